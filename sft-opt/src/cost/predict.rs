//! A whole training as the cost model sees it: memory, payloads, bandwidths and delays.

use serde::{Deserialize, Serialize};

use super::delay::RoundDelay;
use super::memory::Memory;
use super::payload::Payload;
use super::round::{Phases, Round};
use crate::bandwidth::{Problem, allocate_bandwidth, allocate_even, allocate_two_pools};
use crate::error::{Error, Result};
use crate::system::{Fading, Placement, ServerModel, System};

/// The most rounds times devices that are gone through: some gigabytes of a [`Prediction`].
const MAX_DEVICE_ROUNDS: u64 = 10_000_000;

/// Who gets how much of the band.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allocation {
    /// The exact solution of P2 in every round, and of the two-pool problem with
    /// [`ServerModel::OptimalShare`].
    #[default]
    Optimal,
    /// The same for every device.
    Even,
    /// These bandwidths in Hz, one per device, in every round.
    Given(Vec<f64>),
}

/// A training to be predicted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forecast {
    /// Who computes what, the same on every device.
    pub placement: Placement,
    /// Devices train one after the other, each with the whole band: sequential split learning.
    #[serde(default)]
    pub sequential: bool,
    /// What compression leaves of activations and gradients, above 0 up to 1.
    pub beta: f64,
    /// Number of rounds, at least 1 and, times the devices, at most 10,000,000; the model is broadcast
    /// in the first.
    pub rounds: u64,
    /// Rayleigh draws of every round's links; the mean links in every round without.
    #[serde(default)]
    pub fading: Option<Fading>,
    /// The bandwidths; ignored where devices train one after the other.
    #[serde(default)]
    pub allocation: Allocation,
}

/// One round of a predicted training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictedRound {
    /// What every device moves.
    pub payloads: Vec<Payload>,
    /// Bandwidth of every device in Hz.
    pub b_hz: Vec<f64>,
    /// Share of the server of every device in FLOP/s, with [`ServerModel::OptimalShare`].
    pub server_flop_per_s: Option<Vec<f64>>,
    /// Phases of every device, and the delay of the round.
    pub delay: RoundDelay,
}

/// A predicted training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Memory that training takes on every device.
    pub memory: Memory,
    /// Every round, the first included.
    pub rounds: Vec<PredictedRound>,
}

impl Prediction {
    /// Delay of the whole training (20).
    pub fn total_s(&self) -> f64 {
        self.rounds.iter().map(|round| round.delay.total_s).sum()
    }
}

impl System {
    /// Predicts a training: memory (26'), and in every round payloads (V-C), bandwidths (29) and
    /// the delay of every phase (11) to (20); `O(N·rounds)`.
    ///
    /// With [`ServerModel::OptimalShare`] and given or even bandwidths the server alone is shared
    /// optimally; sequential training has the server to itself.
    ///
    /// # Errors
    /// A cut, a `beta` or bandwidths outside their ranges, no rounds or too many; magnitudes whose results a
    /// double cannot hold.
    pub fn predict(&self, forecast: &Forecast) -> Result<Prediction> {
        self.check_rounds(forecast.rounds)?;
        let round = |round| self.predict_round(forecast, round);
        Ok(Prediction {
            memory: self.memory(forecast.placement)?,
            rounds: (1..=forecast.rounds).map(round).collect::<Result<_>>()?,
        })
    }

    /// Refuses as many rounds of as many devices as nobody waits for, or has the memory for.
    pub(crate) fn check_rounds(&self, rounds: u64) -> Result<()> {
        if rounds == 0 {
            return Err(Error::Empty { name: "rounds" });
        }
        if rounds.saturating_mul(self.devices().len() as u64) > MAX_DEVICE_ROUNDS {
            return Err(Error::Value {
                name: "rounds",
                value: rounds as f64,
                accepted: "at most 10,000,000 over the number of devices",
            });
        }
        Ok(())
    }

    fn predict_round(&self, forecast: &Forecast, number: u64) -> Result<PredictedRound> {
        let (beta, first) = (forecast.beta, number == 1);
        let placements = self.everywhere(forecast.placement);
        let links = match forecast.fading {
            Some(fading) => self.faded_links(fading, number),
            None => self.links(),
        };
        let payloads = if forecast.sequential {
            self.sequential_payloads(&placements, beta, first)?
        } else {
            self.payloads(&placements, beta, first)?
        };
        let round = Round {
            placements: &placements,
            links: &links,
            payloads: &payloads,
        };
        let (b_hz, server_flop_per_s, delay) = if forecast.sequential {
            let whole = vec![self.total_hz(); links.len()];
            (whole, None, self.sequential_delay(&round)?)
        } else if self.server().model == ServerModel::OptimalShare {
            let [b_hz, shares] = self.shares(&round, &forecast.allocation)?;
            let delay = self.shared_delay(&round, &b_hz, &shares)?;
            (b_hz, Some(shares), delay)
        } else {
            let b_hz = self.bandwidths(&round, &forecast.allocation)?;
            let delay = self.parallel_delay(&round, &b_hz)?;
            (b_hz, None, delay)
        };
        Ok(PredictedRound {
            payloads,
            b_hz,
            server_flop_per_s,
            delay,
        })
    }

    fn bandwidths(&self, round: &Round<'_>, allocation: &Allocation) -> Result<Vec<f64>> {
        let demands = self.demands(round)?;
        Ok(match allocation {
            Allocation::Optimal => allocate_bandwidth(&demands.problem())?.value.b_hz,
            Allocation::Even => allocate_even(&demands.problem())?.value.b_hz,
            Allocation::Given(b_hz) => b_hz.clone(),
        })
    }

    /// Bandwidths and shares of the server.
    fn shares(&self, round: &Round<'_>, allocation: &Allocation) -> Result<[Vec<f64>; 2]> {
        let pools = self.server_pools(round)?;
        let band = Problem {
            a_s: &pools.a_s,
            c_bits_per_bps_hz: &pools.demands[0],
            total_hz: pools.totals[0],
            cap_hz: pools.caps[0].as_deref(),
        };
        let b_hz = match allocation {
            Allocation::Optimal => return Ok(allocate_two_pools(&pools.problem())?.value.shares),
            Allocation::Even => allocate_even(&band)?.value.b_hz,
            Allocation::Given(b_hz) => b_hz.clone(),
        };
        // Everything but the server; where a delay is infinite, no share changes that.
        let alone = self.shared_delay(round, &b_hz, &vec![f64::MAX; b_hz.len()])?;
        let a_s: Vec<f64> = alone.devices.iter().map(Phases::total_s).collect();
        if a_s.iter().any(|a| a.is_infinite()) {
            let even = pools.totals[1] / a_s.len() as f64;
            return Ok([b_hz, vec![even; a_s.len()]]);
        }
        let server = allocate_bandwidth(&Problem {
            a_s: &a_s,
            c_bits_per_bps_hz: &pools.demands[1],
            total_hz: pools.totals[1],
            cap_hz: None,
        })?;
        Ok([b_hz, server.value.b_hz])
    }
}
