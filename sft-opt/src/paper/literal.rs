//! Algorithm 2 as the paper prints it, to show what it does.

use serde::{Deserialize, Serialize};

use super::compression_given_cut::CutDelay;
use super::lagrangian::check_fixed_share;
use crate::error::{Error, NOT_NEGATIVE, Result, check};
use crate::plan::{Compression, JointProblem, Setting, formula};
use crate::solution::{Solution, Status};

/// Settings of [`algorithm2_literal`]; the paper gives none of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Literal {
    /// Both multipliers at the start, at least 0. Default 1.
    pub multiplier: f64,
    /// Step of the multipliers `μ`, positive. Default 1.
    pub step: f64,
    /// Change of the Lagrangian below which it stops, positive, in seconds. Default 1e-6.
    pub tolerance: f64,
    /// Most iterations, at least 1. Default 100.
    pub max_iterations: u32,
}

impl Default for Literal {
    fn default() -> Self {
        Self {
            multiplier: 1.0,
            step: 1.0,
            tolerance: 1e-6,
            max_iterations: 100,
        }
    }
}

/// Where [`algorithm2_literal`] ended, feasible or not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiteralPoint {
    /// Cut layer.
    pub cut: usize,
    /// Compression.
    pub setting: Setting,
    /// `A − A_th`, negative where accuracy is missed.
    pub accuracy_slack: f64,
    /// `M_max − M(l)` in MiB, not positive where memory is exceeded.
    pub memory_slack_mib: f64,
}

impl LiteralPoint {
    /// Whether the end satisfies accuracy and memory.
    pub fn is_feasible(&self) -> bool {
        self.accuracy_slack >= 0.0 && self.memory_slack_mib > 0.0
    }
}

/// Points of the kept fraction among which the maximum is sought.
const GRID: u32 = 128;
const BYTES_PER_MIB: f64 = 1024.0 * 1024.0;

/// Runs Algorithm 2 as printed: not a solver of P1, but a record of what (30) does.
///
/// `ℒ = τ + λ₁(A − A_th) + λ₂(M_max − M(l))` is *maximised* over `(ρ, q)` for every `l` and
/// then over `l`; both multipliers grow by `μ` times a slack that is positive where feasible.
/// That rewards delay. Maxima over `ρ` are taken on 129 points of the box; accuracy is a
/// fraction, memory in MiB. Cuts that do not fit are candidates, as printed.
///
/// [`Status::Feasible`] says that it met its own test: a Lagrangian that stands still at a feasible
/// point.
///
/// # Errors
/// As [`augmented_lagrangian`](super::augmented_lagrangian).
pub fn algorithm2_literal(
    problem: &JointProblem,
    compression: &Compression,
    b_hz: &[f64],
    settings: &Literal,
) -> Result<Solution<LiteralPoint>> {
    check_fixed_share(problem, compression, b_hz)?;
    settings.validate()?;
    let limit = (problem.memory_max_bytes.iter().copied()).fold(f64::INFINITY, f64::min);
    let delays: Vec<_> = (problem.cuts.iter())
        .map(|option| {
            let slack = (limit - option.memory_bytes) / BYTES_PER_MIB;
            (option.cut, slack, CutDelay::new(problem, option, b_hz))
        })
        .collect();
    let settings_of_box = candidates(compression);
    let mut lambda = [settings.multiplier; 2];
    let mut last = f64::INFINITY;
    let mut iterations = 0;
    loop {
        iterations += 1;
        let mut best: Option<(f64, f64, LiteralPoint)> = None;
        for (cut, memory_slack_mib, delay) in &delays {
            for setting in &settings_of_box {
                let tau_s = delay.at(setting.beta).0;
                let accuracy_slack = setting.accuracy - compression.accuracy_min;
                let value = tau_s + lambda[0] * accuracy_slack + lambda[1] * memory_slack_mib;
                if best.is_none_or(|(most, ..)| value > most) {
                    let point = LiteralPoint {
                        cut: *cut,
                        setting: *setting,
                        accuracy_slack,
                        memory_slack_mib: *memory_slack_mib,
                    };
                    best = Some((value, tau_s, point));
                }
            }
        }
        let Some((value, tau_s, found)) = best else {
            return Err(Error::Range { name: "tau_s" });
        };
        let stopped = (value - last).abs() < settings.tolerance && found.is_feasible();
        if stopped || iterations == settings.max_iterations {
            return Ok(Solution {
                value: found,
                tau_s,
                bound_s: 0.0,
                status: if stopped {
                    Status::Feasible
                } else {
                    Status::IterationLimit
                },
                iterations,
            });
        }
        last = value;
        lambda[0] = (lambda[0] + settings.step * found.accuracy_slack).max(0.0);
        lambda[1] = (lambda[1] + settings.step * found.memory_slack_mib).max(0.0);
    }
}

impl Literal {
    fn validate(&self) -> Result<()> {
        let (first, most) = (self.multiplier, self.max_iterations);
        let legal = first >= 0.0 && first.is_finite();
        check(legal, "multiplier", first, NOT_NEGATIVE)?;
        check(most >= 1, "max_iterations", most.into(), "at least 1")?;
        for (name, x) in [("step", self.step), ("tolerance", self.tolerance)] {
            check(x > 0.0 && x.is_finite(), name, x, "finite and positive")?;
        }
        Ok(())
    }
}

fn candidates(compression: &Compression) -> Vec<Setting> {
    let (low, high) = (compression.keep_min, compression.keep_max);
    let keeps = (0..=GRID).map(|k| low + (high - low) * f64::from(k) / f64::from(GRID));
    (compression.bits_min..=compression.bits_max)
        .flat_map(|bits| keeps.clone().map(move |keep| (keep, bits)))
        .map(|(keep, bits)| Setting {
            keep,
            bits,
            beta: formula(keep, bits.into()),
            accuracy: compression.accuracy.at(keep, bits.into()),
        })
        .collect()
}
