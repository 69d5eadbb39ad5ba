//! Delay of a round: (18'), (19).

use serde::{Deserialize, Serialize};

use super::round::{Phases, Round, RoundClock, transfer_s};
use crate::error::{NOT_NEGATIVE, Result, check_entries, check_len};
use crate::system::{ServerModel, System};

/// Delay of one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundDelay {
    /// Phases of every device.
    pub devices: Vec<Phases>,
    /// Delay of the round in seconds: the slowest device's when devices work in parallel (19),
    /// the sum when they work one after the other.
    pub total_s: f64,
}

impl System {
    /// Delay of a round in which devices work in parallel with bandwidths `b_hz`; (18'), (19), `O(N)`.
    ///
    /// A device with payload and no bandwidth has an infinite delay.
    ///
    /// # Errors
    /// As [`System::demands`]; bandwidths that are not finite and at least 0.
    pub fn parallel_delay(&self, round: &Round<'_>, b_hz: &[f64]) -> Result<RoundDelay> {
        let clock = RoundClock::new(self, round)?;
        check_len("b_hz", b_hz.len(), self.devices().len())?;
        check_entries("b_hz", b_hz, f64::MAX, NOT_NEGATIVE)?;
        let devices = (b_hz.iter().enumerate())
            .map(|(n, &b)| Ok(clock.phases(n, b, clock.server_s(n)?)))
            .collect::<Result<_>>()?;
        Ok(slowest(devices))
    }

    /// [`System::parallel_delay`] with a share `server_flop_per_s` of the server for every
    /// device, in FLOP/s, whatever the [`ServerModel`].
    ///
    /// # Errors
    /// As [`System::parallel_delay`]; shares that are not finite and at least 0.
    pub fn shared_delay(
        &self,
        round: &Round<'_>,
        b_hz: &[f64],
        server_flop_per_s: &[f64],
    ) -> Result<RoundDelay> {
        let clock = RoundClock::new(self, round)?;
        for (name, list) in [("b_hz", b_hz), ("server_flop_per_s", server_flop_per_s)] {
            check_len(name, list.len(), self.devices().len())?;
            check_entries(name, list, f64::MAX, NOT_NEGATIVE)?;
        }
        let server_s = |n: usize| transfer_s(clock.server_flop(n), server_flop_per_s[n]);
        let devices = (b_hz.iter().enumerate())
            .map(|(n, &b)| clock.phases(n, b, server_s(n)))
            .collect();
        Ok(slowest(devices))
    }

    /// Delay of a round in which devices work one after the other, each with the whole band
    /// and the whole server: sequential split learning (SL); `O(N)`.
    ///
    /// Payloads: [`System::sequential_payloads`].
    ///
    /// # Errors
    /// As [`System::demands`].
    pub fn sequential_delay(&self, round: &Round<'_>) -> Result<RoundDelay> {
        let mut clock = RoundClock::new(self, round)?;
        clock.server_model = ServerModel::PerDevice;
        let devices: Vec<_> = (0..self.devices().len())
            .map(|n| Ok(clock.phases(n, self.total_hz(), clock.server_s(n)?)))
            .collect::<Result<_>>()?;
        let total_s = devices.iter().map(Phases::total_s).sum();
        Ok(RoundDelay { devices, total_s })
    }
}

/// A round that lasts as long as its slowest device.
fn slowest(devices: Vec<Phases>) -> RoundDelay {
    let total_s = devices.iter().map(Phases::total_s).fold(0.0, f64::max);
    RoundDelay { devices, total_s }
}
