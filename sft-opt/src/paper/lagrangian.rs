//! Algorithm 2 in its corrected form: an augmented Lagrangian (PHR) for P1.

use serde::{Deserialize, Serialize};

use super::compression_given_cut::{CutDelay, Inner};
use crate::error::{Error, NOT_NEGATIVE, Result, check, check_entries, check_len};
use crate::plan::{Compression, Configuration, JointProblem, Rate, Setting, formula};
use crate::solution::{Constraint, Solution, Status};
use crate::system::ServerModel;

/// Settings of [`augmented_lagrangian`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Phr {
    /// Starting points in the box of kept fraction and bits, at least 1. Default 4.
    pub starts: u32,
    /// Penalty factor of the first iteration, positive. Default 10.
    pub penalty: f64,
    /// Largest shortfall of accuracy that counts as met, positive. Default 1e-7.
    pub tolerance: f64,
    /// Most updates of the multiplier per start, at least 1. Default 60.
    pub max_iterations: u32,
}

impl Default for Phr {
    fn default() -> Self {
        Self {
            starts: 4,
            penalty: 10.0,
            tolerance: 1e-7,
            max_iterations: 60,
        }
    }
}

/// Seeks P1 (28) by the paper's Algorithm 2 in its corrected form; [`configure`] is exact.
///
/// Variables: `ρ`, `q` (relaxed to a continuum, then to the integers beside it), cut layer `l`
/// by enumeration over those that fit. Objective, constraints: as [`configure`]. For every `l`
/// and start: minimise `τ + (max(0, λ + cg)² − λ²)/2c`, `g = A_th − A`, over the box; then
/// `λ ← max(0, λ + cg)`, and `c ← 4c` unless `|max(g, −λ/c)|` has halved. The inner problem is
/// solved by projected Newton steps, so the result depends on the start: a local method.
///
/// [`Status::Infeasible`] with [`Constraint::Accuracy`] says that no start ended feasible, not that
/// no feasible point exists. Iterations are updates of the multiplier, over all cuts and starts.
/// `O(cuts·starts·(N + iterations))`.
///
/// # Errors
/// As [`configure`]; settings outside their ranges; a measured [`Rate::Table`], which knows
/// whole bits only, and [`ServerModel::OptimalShare`].
///
/// [`configure`]: crate::plan::configure
pub fn augmented_lagrangian(
    problem: &JointProblem,
    compression: &Compression,
    b_hz: &[f64],
    settings: &Phr,
) -> Result<Solution<Option<Configuration>>> {
    check_fixed_share(problem, compression, b_hz)?;
    settings.validate()?;
    let mut best: Option<(f64, usize, Setting)> = None;
    let (mut fits, mut iterations) = (false, 0);
    for option in problem.fitting() {
        fits = true;
        let delay = CutDelay::new(problem, option, b_hz);
        for start in 0..settings.starts {
            let Some(setting) = from_start(&delay, compression, settings, start, &mut iterations)
            else {
                continue;
            };
            let tau_s = delay.at(setting.beta).0;
            if best.is_none_or(|best| tau_s < best.0) {
                best = Some((tau_s, option.cut, setting));
            }
        }
    }
    let constraint = match best {
        Some((tau_s, cut, setting)) if tau_s.is_finite() => {
            return Ok(Solution {
                value: Some(Configuration {
                    cut,
                    setting,
                    b_hz: b_hz.to_vec(),
                    server_flop_per_s: None,
                }),
                tau_s,
                bound_s: 0.0,
                status: Status::Feasible,
                iterations,
            });
        }
        Some(_) => Constraint::Bandwidth,
        None if fits => Constraint::Accuracy,
        None => Constraint::Memory,
    };
    Ok(Solution::infeasible(constraint))
}

/// Checks what both forms of Algorithm 2 need.
pub(crate) fn check_fixed_share(
    problem: &JointProblem,
    compression: &Compression,
    b_hz: &[f64],
) -> Result<()> {
    problem.validate()?;
    compression.validate()?;
    check_len("b_hz", b_hz.len(), problem.devices())?;
    check_entries("b_hz", b_hz, f64::MAX, NOT_NEGATIVE)?;
    let unsupported = |name, value, accepted| {
        Err(Error::Unsupported {
            name,
            value,
            accepted,
        })
    };
    if problem.server_model == ServerModel::OptimalShare {
        let value = problem.server_model.as_str();
        return unsupported("server model", value, "one that fixes every device's share");
    }
    if compression.rate != Rate::Formula {
        return unsupported("rate", "a table", "the formula: bits are relaxed");
    }
    Ok(())
}

impl Phr {
    fn validate(&self) -> Result<()> {
        let (starts, most) = (self.starts, self.max_iterations);
        check(starts >= 1, "starts", starts.into(), "at least 1")?;
        check(most >= 1, "max_iterations", most.into(), "at least 1")?;
        for (name, x) in [("penalty", self.penalty), ("tolerance", self.tolerance)] {
            check(x > 0.0 && x.is_finite(), name, x, "finite and positive")?;
        }
        Ok(())
    }
}

/// Runs from one start in the relaxed box, then from there at the integers beside it.
fn from_start(
    delay: &CutDelay,
    compression: &Compression,
    settings: &Phr,
    start: u32,
    iterations: &mut u32,
) -> Option<Setting> {
    let scale = compression.accuracy.scale();
    let x = [
        scale.of(compression.keep_min),
        scale.of(compression.keep_max),
    ];
    let whole = [
        f64::from(compression.bits_min),
        f64::from(compression.bits_max),
    ];
    // Additive recurrence on the plastic number: even cover for any number of starts.
    let spread = |k: f64| (0.5 + k * f64::from(start)).fract();
    let point = [
        x[0] + spread(0.754_877_666_246_693) * (x[1] - x[0]),
        whole[0] + spread(0.569_840_290_998_053) * (whole[1] - whole[0]),
    ];
    let mut run = |point, bits| {
        let inner = Inner {
            delay,
            compression,
            low: [x[0], bits],
            high: [x[1], bits],
        };
        phr(&inner, settings, point, iterations)
    };
    let relaxed = {
        let inner = Inner {
            delay,
            compression,
            low: [x[0], whole[0]],
            high: [x[1], whole[1]],
        };
        phr(&inner, settings, point, &mut 0).point
    };
    let candidates = [relaxed[1].floor(), relaxed[1].ceil()];
    (candidates.into_iter())
        .map(|bits| run([relaxed[0], bits], bits))
        .filter(|end| end.shortfall <= settings.tolerance)
        .map(|end| {
            let (keep, bits) = (scale.keep(end.point[0]), end.point[1]);
            Setting {
                keep,
                bits: bits as u32,
                beta: formula(keep, bits),
                accuracy: compression.accuracy.at(keep, bits),
            }
        })
        .min_by(|a, b| a.beta.total_cmp(&b.beta))
}

/// Where a run of the outer loop ended.
struct End {
    point: [f64; 2],
    shortfall: f64,
}

/// Outer loop: multiplier and penalty.
fn phr(inner: &Inner<'_>, settings: &Phr, start: [f64; 2], iterations: &mut u32) -> End {
    let mut point = start;
    // Delay is measured in its value at the start: the penalty then has one meaning.
    let unit = inner.objective(start).0;
    let (mut lambda, mut penalty) = (0.0, settings.penalty);
    let mut last = f64::INFINITY;
    for _ in 0..settings.max_iterations {
        *iterations += 1;
        point = inner.minimise(point, unit, lambda, penalty);
        let g = inner.shortfall(point).0;
        let residual = g.max(-lambda / penalty).abs();
        lambda = (lambda + penalty * g).max(0.0);
        if residual <= 0.5 * settings.tolerance {
            break;
        }
        if residual > 0.5 * last {
            penalty *= 4.0;
        }
        last = residual;
    }
    End {
        shortfall: inner.shortfall(point).0,
        point,
    }
}
