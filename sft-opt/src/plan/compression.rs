//! The compression problem: fewest bits at the wanted accuracy, exactly.

use serde::{Deserialize, Serialize};

use super::accuracy::Accuracy;
use super::compression_problem::CompressionProblem;
use super::rate::Rate;
use crate::error::{Result, check};
use crate::numeric::polynomial::visit_feasible;

/// Most bits of a level a problem may ask for.
const MAX_BITS: u32 = 32;

/// What compression may do, and what it must achieve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compression {
    /// Accuracy of a kept fraction and a number of bits.
    pub accuracy: Accuracy,
    /// Least accuracy `A_th`, finite: the accuracy without compression less the loss allowed.
    pub accuracy_min: f64,
    /// Least kept fraction `ρ_min`, above 0; 0.01 in a file without it.
    #[serde(default = "keep_min")]
    pub keep_min: f64,
    /// Largest kept fraction `ρ_max`, at most 1; 1 in a file without it.
    #[serde(default = "keep_max")]
    pub keep_max: f64,
    /// Fewest bits of a level `q_min`, at least 1; 1 in a file without it.
    #[serde(default = "bits_min")]
    pub bits_min: u32,
    /// Most bits of a level `q_max`, at most 32; 8 in a file without it.
    #[serde(default = "bits_max")]
    pub bits_max: u32,
    /// Bits on the air.
    #[serde(default)]
    pub rate: Rate,
}

fn keep_min() -> f64 {
    0.01
}

fn keep_max() -> f64 {
    1.0
}

fn bits_min() -> u32 {
    1
}

fn bits_max() -> u32 {
    8
}

/// A way to compress.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Kept fraction `ρ`.
    pub keep: f64,
    /// Bits of a level `q`; `2^q` levels.
    pub bits: u32,
    /// Compressed bits over raw bits `β`.
    pub beta: f64,
    /// Accuracy that the surface predicts.
    pub accuracy: f64,
}

impl Setting {
    /// Number of quantization points, `2^q`.
    pub fn levels(&self) -> u64 {
        1 << self.bits
    }
}

impl Compression {
    /// Checks every field.
    ///
    /// # Errors
    /// A field outside its documented range.
    pub fn validate(&self) -> Result<()> {
        let (low, high) = (self.keep_min, self.keep_max);
        check(
            self.accuracy_min.is_finite(),
            "accuracy_min",
            self.accuracy_min,
            "finite",
        )?;
        check(
            low > 0.0 && low <= 1.0,
            "keep_min",
            low,
            "above 0 and at most 1",
        )?;
        let legal = high >= low && high <= 1.0;
        check(legal, "keep_max", high, "from keep_min to 1")?;
        let (fewest, most) = (self.bits_min, self.bits_max);
        check(fewest >= 1, "bits_min", fewest.into(), "at least 1")?;
        let legal = most >= fewest && most <= MAX_BITS;
        check(legal, "bits_max", most.into(), "from bits_min to 32")
    }
}

impl CompressionProblem for Compression {
    type Setting = Setting;

    fn best(&self) -> Result<Option<Setting>> {
        best_compression(self)
    }

    fn beta(setting: &Setting) -> f64 {
        setting.beta
    }
}

/// Solves the compression problem exactly.
///
/// Variables: kept fraction `ρ` and integer bits `q`. Objective: least `β(ρ, q)`. Constraints:
/// `A(ρ, q) ≥ A_th` (27b), `ρ_min ≤ ρ ≤ ρ_max` (27d), `q_min ≤ q ≤ q_max` (27e). `None`: no
/// setting is accurate enough.
///
/// The delay depends on `(ρ, q)` only through `β` and grows with it, so this is the optimal
/// compression of P1 (28) and of P (27) at every cut layer and bandwidth. For every `q` the
/// accuracy is a cubic in `x(ρ)` whose roots bound the feasible intervals; `β` is concave in `ρ`
/// on each (between neighbours of a measured table), so its minimum is at an end. `O(q_max −
/// q_min)`; among equals the fewest bits.
///
/// # Errors
/// A field outside its documented range.
pub fn best_compression(problem: &Compression) -> Result<Option<Setting>> {
    problem.validate()?;
    Ok(least_beta(problem, problem.accuracy_min))
}

/// [`best_compression`] at another accuracy, for a checked problem.
pub(crate) fn least_beta(problem: &Compression, accuracy_min: f64) -> Option<Setting> {
    let mut best: Option<Setting> = None;
    for bits in problem.bits_min..=problem.bits_max {
        visit_ends(problem, bits, accuracy_min, |keep| {
            let Some(beta) = problem.rate.at(keep, bits) else {
                return;
            };
            if best.is_none_or(|best| beta < best.beta) {
                best = Some(Setting {
                    keep,
                    bits,
                    beta,
                    accuracy: problem.accuracy.at(keep, bits.into()),
                });
            }
        });
    }
    best
}

/// Visits the kept fractions among which the best one for `bits` is.
fn visit_ends(problem: &Compression, bits: u32, accuracy_min: f64, mut visit: impl FnMut(f64)) {
    let scale = problem.accuracy.scale();
    let mut cubic = problem.accuracy.along_keep(bits.into());
    cubic[0] -= accuracy_min;
    let mut piece = |low: f64, high: f64| {
        visit_feasible(&cubic, scale.of(low), scale.of(high), |x| {
            visit(scale.keep(x).clamp(low, high));
        });
    };
    for (low, high) in pieces(problem) {
        piece(low, high);
    }
}

/// The range of kept fractions, cut where `β` need not be concave.
pub(super) fn pieces(problem: &Compression) -> impl Iterator<Item = (f64, f64)> {
    let (low, high) = (problem.keep_min, problem.keep_max);
    let knots = problem.rate.knots().iter().copied();
    let inner = knots.filter(move |&knot| low < knot && knot < high);
    let ends = inner.clone().chain(std::iter::once(high));
    std::iter::once(low).chain(inner).zip(ends)
}
