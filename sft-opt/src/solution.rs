//! The answer to a bandwidth problem.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What fixes the delay of an allocation; how a solve ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Regime {
    /// Optimal: the whole band is used and all demanding devices finish at the same time.
    Bandwidth,
    /// Optimal: a device at its cap, or a device without demand, fixes the delay.
    CapOrFloor,
    /// Optimal: no device asks for bandwidth.
    NoDemand,
    /// A device with demand cannot have any bandwidth: the delay is infinite.
    Infeasible,
    /// Not optimised: the allocation was given and only evaluated.
    Given,
}

impl Regime {
    /// The regime's name in data: `bandwidth`, `cap_or_floor`, `no_demand`, `infeasible`, `given`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bandwidth => "bandwidth",
            Self::CapOrFloor => "cap_or_floor",
            Self::NoDemand => "no_demand",
            Self::Infeasible => "infeasible",
            Self::Given => "given",
        }
    }
}

impl fmt::Display for Regime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An allocation of bandwidth and what it achieves.
///
/// `B` holds the bandwidths: a `Vec<f64>`, or the caller's slice after
/// [`allocate_bandwidth_into`](crate::allocate_bandwidth_into).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Solution<B = Vec<f64>> {
    /// Bandwidth of every device in Hz. From the exact solver this is the smallest optimal
    /// allocation: what [`Regime::CapOrFloor`] leaves over may go to anybody below their cap.
    pub b_hz: B,
    /// Delay of the slowest device `τ` in seconds; infinite if [`Regime::Infeasible`].
    pub tau_s: f64,
    /// `τ − a_max` in seconds, where `a_max` is the largest `a_n` among devices with demand (of
    /// all devices if none has demand). Keeps its digits where `tau_s` rounds them away.
    pub tau_minus_amax_s: f64,
    /// `Σ b_n` in Hz; at most the band, to rounding.
    pub used_hz: f64,
    /// `ν = −dτ/dW` in s/Hz; 0 unless [`Regime::Bandwidth`].
    pub shadow_price_s_per_hz: f64,
    /// Whether `Σ b_n = W` can be met as well, as the paper's (27g) asks, without changing `τ`.
    pub equality_feasible: bool,
    /// What fixes the delay.
    pub regime: Regime,
    /// Steps taken to the root, but for the last.
    pub iterations: u32,
}

impl Solution<()> {
    /// Joins the scalars with their bandwidths.
    pub(crate) fn with<B>(self, b_hz: B) -> Solution<B> {
        Solution {
            b_hz,
            tau_s: self.tau_s,
            tau_minus_amax_s: self.tau_minus_amax_s,
            used_hz: self.used_hz,
            shadow_price_s_per_hz: self.shadow_price_s_per_hz,
            equality_feasible: self.equality_feasible,
            regime: self.regime,
            iterations: self.iterations,
        }
    }
}
