//! What a round asks of the band and of the server: the bandwidth problems of a system.

use super::payload::Payload;
use super::round::{Round, RoundClock};
use crate::bandwidth::{Problem, TwoPools};
use crate::error::{Result, check_rate};
use crate::system::{Device, Link, System};

/// What every device asks of the band in one round: `τ_n = a_n + c_n/b_n`.
#[derive(Clone, Debug, PartialEq)]
pub struct Demands {
    /// Delay that bandwidth does not change, `a_n = τ_ED + I_n(τ_CC + τ_SC + τ_DU)`, seconds.
    pub a_s: Vec<f64>,
    /// Bits over spectral efficiency,
    /// `c_n = (uplink + adapter bits)/η_n^UL + downlink bits/η_n^DL`.
    pub c_bits_per_bps_hz: Vec<f64>,
    /// Caps in Hz, infinite without one.
    pub cap_hz: Vec<f64>,
    /// The whole band in Hz.
    pub total_hz: f64,
}

impl Demands {
    /// The bandwidth problem P2 of this round, for [`allocate_bandwidth`](crate::allocate_bandwidth).
    pub fn problem(&self) -> Problem<'_> {
        Problem {
            a_s: &self.a_s,
            c_bits_per_bps_hz: &self.c_bits_per_bps_hz,
            total_hz: self.total_hz,
            cap_hz: Some(&self.cap_hz),
        }
    }
}

/// What every device asks of two pools in one round: `τ_n = a_n + u_n/x_n + d_n/y_n`.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolDemands {
    /// Delay that neither pool changes, in seconds.
    pub a_s: Vec<f64>,
    /// Demands of the first and the second pool.
    pub demands: [Vec<f64>; 2],
    /// The pools.
    pub totals: [f64; 2],
    /// Caps, infinite for a device without one; `None` for a pool that nobody has a cap of.
    pub caps: [Option<Vec<f64>>; 2],
}

impl PoolDemands {
    /// The problem of this round, for [`allocate_two_pools`](crate::bandwidth::allocate_two_pools).
    pub fn problem(&self) -> TwoPools<'_> {
        TwoPools {
            a_s: &self.a_s,
            demands: [&self.demands[0], &self.demands[1]],
            totals: self.totals,
            caps: [self.caps[0].as_deref(), self.caps[1].as_deref()],
        }
    }
}

impl System {
    /// Demands of a round in which devices work in parallel; `O(N)`.
    ///
    /// # Errors
    /// A list without one entry per device, a cut outside 1 to `L - 1`, a link that is not
    /// finite and positive, a payload that is not finite and at least 0;
    /// [`OptimalShare`](crate::system::ServerModel::OptimalShare), whose demands are
    /// [`System::server_pools`].
    pub fn demands(&self, round: &Round<'_>) -> Result<Demands> {
        let clock = RoundClock::new(self, round)?;
        let n = self.devices().len();
        Ok(Demands {
            a_s: (0..n)
                .map(|n| Ok(clock.fixed(n)?.fixed_s()))
                .collect::<Result<_>>()?,
            c_bits_per_bps_hz: round.links.iter().zip(round.payloads).map(air).collect(),
            cap_hz: (self.devices().iter())
                .map(|d| d.cap_hz.unwrap_or(f64::INFINITY))
                .collect(),
            total_hz: self.total_hz(),
        })
    }

    /// Demands of the band (Hz) and of the server (FLOP/s) of a round in which every device
    /// gets a share of either, whatever the [`ServerModel`](crate::system::ServerModel); `O(N)`.
    /// Caps are those of the band.
    ///
    /// # Errors
    /// As [`System::demands`].
    pub fn server_pools(&self, round: &Round<'_>) -> Result<PoolDemands> {
        let clock = RoundClock::new(self, round)?;
        let all = 0..self.devices().len();
        Ok(PoolDemands {
            a_s: all.clone().map(|n| clock.local(n).fixed_s()).collect(),
            demands: [
                round.links.iter().zip(round.payloads).map(air).collect(),
                all.map(|n| clock.server_flop(n)).collect(),
            ],
            totals: [self.total_hz(), self.server().flop_per_s()],
            caps: [self.caps_hz(), None],
        })
    }

    /// Demands of an uplink and a downlink band (frequency-division duplex), both in Hz, the
    /// broadcast being sent in the downlink band; `O(N)`. A cap holds in either band.
    ///
    /// # Errors
    /// As [`System::server_pools`] and [`System::demands`]; a band that is not finite and
    /// positive.
    pub fn duplex_pools(
        &self,
        round: &Round<'_>,
        uplink_hz: f64,
        downlink_hz: f64,
    ) -> Result<PoolDemands> {
        check_rate("uplink_hz", uplink_hz)?;
        check_rate("downlink_hz", downlink_hz)?;
        let mut clock = RoundClock::new(self, round)?;
        clock.broadcast_bps *= downlink_hz / self.total_hz();
        let up = |(link, payload): (&Link, &Payload)| {
            (payload.uplink_bits + payload.adapter_bits) / link.uplink_bps_hz
        };
        let down =
            |(link, payload): (&Link, &Payload)| payload.downlink_bits / link.downlink_bps_hz;
        let pairs = || round.links.iter().zip(round.payloads);
        Ok(PoolDemands {
            a_s: (0..round.links.len())
                .map(|n| Ok(clock.fixed(n)?.fixed_s()))
                .collect::<Result<_>>()?,
            demands: [pairs().map(up).collect(), pairs().map(down).collect()],
            totals: [uplink_hz, downlink_hz],
            caps: [self.caps_hz(), self.caps_hz()],
        })
    }

    /// Caps of the devices, infinite without one; `None` if nobody has one.
    pub(crate) fn caps_hz(&self) -> Option<Vec<f64>> {
        let devices = self.devices();
        let capped = devices.iter().any(|device| device.cap_hz.is_some());
        let cap = |device: &Device| device.cap_hz.unwrap_or(f64::INFINITY);
        capped.then(|| devices.iter().map(cap).collect())
    }
}

/// Bits over spectral efficiency in both directions, `c_n`.
fn air((link, payload): (&Link, &Payload)) -> f64 {
    (payload.uplink_bits + payload.adapter_bits) / link.uplink_bps_hz
        + payload.downlink_bits / link.downlink_bps_hz
}
