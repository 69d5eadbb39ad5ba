//! The answer to a bandwidth problem.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::solution::Solution;

/// What fixes the delay of an optimal allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Regime {
    /// The whole band is used and all demanding devices finish at the same time.
    Bandwidth,
    /// A device at its cap, or a device without demand.
    CapOrFloor,
    /// No device asks for bandwidth.
    NoDemand,
}

impl Regime {
    /// The regime's name in data: `bandwidth`, `cap_or_floor`, `no_demand`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bandwidth => "bandwidth",
            Self::CapOrFloor => "cap_or_floor",
            Self::NoDemand => "no_demand",
        }
    }
}

impl fmt::Display for Regime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Bandwidth of every device.
///
/// `B` holds the numbers: a `Vec<f64>`, or the caller's slice after
/// [`allocate_bandwidth_into`](crate::bandwidth::allocate_bandwidth_into).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bandwidths<B = Vec<f64>> {
    /// Bandwidth of every device in Hz, all 0 if infeasible. From the exact solver this is the
    /// smallest optimal allocation: what [`Regime::CapOrFloor`] leaves over may go to anybody below
    /// their cap.
    pub b_hz: B,
    /// `τ − a_max` in seconds, where `a_max` is the largest `a_n` among devices with demand (of
    /// all devices if none has demand). Keeps its digits where `tau_s` rounds them away.
    pub tau_minus_amax_s: f64,
    /// `Σ b_n` in Hz; at most the band, to rounding.
    pub used_hz: f64,
    /// `ν = −dτ/dW` in s/Hz; 0 unless [`Regime::Bandwidth`].
    pub shadow_price_s_per_hz: f64,
    /// Whether `Σ b_n = W` can be met as well, as the paper's (27g) asks, without changing `τ`.
    pub equality_feasible: bool,
    /// What fixes the delay; `None` unless optimal.
    pub regime: Option<Regime>,
}

impl Solution<Bandwidths<()>> {
    /// Joins the scalars with their bandwidths.
    pub(crate) fn with<B>(self, b_hz: B) -> Solution<Bandwidths<B>> {
        self.map(|scalars| Bandwidths {
            b_hz,
            tau_minus_amax_s: scalars.tau_minus_amax_s,
            used_hz: scalars.used_hz,
            shadow_price_s_per_hz: scalars.shadow_price_s_per_hz,
            equality_feasible: scalars.equality_feasible,
            regime: scalars.regime,
        })
    }
}
