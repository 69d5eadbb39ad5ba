//! Algorithm 2 in its corrected form: an augmented Lagrangian (PHR) for P1.

use serde::{Deserialize, Serialize};

use crate::compression::{Compression, Setting};
use crate::error::{Error, NOT_NEGATIVE, Result, check, check_entries, check_len};
use crate::joint::{CutOption, JointProblem};
use crate::outcome::{Constraint, Outcome, infeasible};
use crate::polynomial::{slope, value};
use crate::rate::{Rate, formula};
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

/// The best point that [`augmented_lagrangian`] met.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhrSolution {
    /// Cut layer.
    pub cut: usize,
    /// Compression, with integer bits.
    pub setting: Setting,
    /// Delay of the round in seconds.
    pub tau_s: f64,
    /// Updates of the multiplier, over all cuts and starts.
    pub iterations: u32,
}

/// Seeks P1 (28) by the paper's Algorithm 2 in its corrected form; [`configure`] is exact.
///
/// Variables: `ρ`, `q` (relaxed to a continuum, then to the integers beside it), cut layer `l`
/// by enumeration over those that fit. Objective, constraints: as [`configure`]. For every `l`
/// and start: minimise `τ + (max(0, λ + cg)² − λ²)/2c`, `g = A_th − A`, over the box; then
/// `λ ← max(0, λ + cg)`, and `c ← 4c` unless `|max(g, −λ/c)|` has halved. The inner problem is
/// solved by projected Newton steps, so the result depends on the start: a local method.
///
/// `Infeasible` with [`Constraint::Accuracy`] says that no start ended feasible, not that no
/// feasible point exists. `O(cuts·starts·(N + iterations))`.
///
/// # Errors
/// As [`configure`]; settings outside their ranges; a measured [`Rate::Table`], which knows
/// whole bits only, and [`ServerModel::OptimalShare`].
///
/// [`configure`]: crate::configure
pub fn augmented_lagrangian(
    problem: &JointProblem,
    compression: &Compression,
    b_hz: &[f64],
    settings: &Phr,
) -> Result<Outcome<PhrSolution>> {
    check_fixed_share(problem, compression, b_hz)?;
    settings.validate()?;
    let mut best: Option<PhrSolution> = None;
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
            if best.is_none_or(|best| tau_s < best.tau_s) {
                best = Some(PhrSolution {
                    cut: option.cut,
                    setting,
                    tau_s,
                    iterations: 0,
                });
            }
        }
    }
    Ok(match best {
        Some(best) if best.tau_s.is_finite() => {
            Outcome::Optimal(PhrSolution { iterations, ..best })
        }
        Some(_) => infeasible(Constraint::Bandwidth),
        None if fits => infeasible(Constraint::Accuracy),
        None => infeasible(Constraint::Memory),
    })
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

/// Delay of one cut as a function of `β`: the maximum of straight lines.
pub(crate) struct CutDelay {
    lines: Vec<(f64, f64)>,
}

impl CutDelay {
    pub(crate) fn new(problem: &JointProblem, option: &CutOption, b_hz: &[f64]) -> Self {
        let time = |c: f64, b: f64| if c == 0.0 { 0.0 } else { c / b };
        let line = |n: usize| {
            let fixed = option.a_s[n] + time(option.c_fixed[n], b_hz[n]);
            (fixed, time(problem.c_beta[n], b_hz[n]))
        };
        Self {
            lines: (0..b_hz.len()).map(line).collect(),
        }
    }

    /// Delay in seconds, and its slope.
    pub(crate) fn at(&self, beta: f64) -> (f64, f64) {
        let mut slowest = (0.0, 0.0);
        for &(fixed, slope) in &self.lines {
            let tau = if slope == 0.0 {
                fixed
            } else {
                fixed + beta * slope
            };
            if tau > slowest.0 {
                slowest = (tau, slope);
            }
        }
        slowest
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

/// Most Newton steps of one inner problem.
const NEWTON_STEPS: u32 = 60;

/// The inner problem of one cut: a smooth function of `(x, q)` on a box.
struct Inner<'a> {
    delay: &'a CutDelay,
    compression: &'a Compression,
    low: [f64; 2],
    high: [f64; 2],
}

impl Inner<'_> {
    /// Delay and its gradient.
    fn objective(&self, [x, q]: [f64; 2]) -> (f64, [f64; 2]) {
        let scale = self.compression.accuracy.scale();
        // β' is infinite at the ends of 0..=1.
        let keep = scale.keep(x).clamp(1e-12, 1.0 - 1e-12);
        let (tau, per_beta) = self.delay.at(formula(keep, q));
        let by_keep = (1.0 + q + ((1.0 - keep) / keep).log2()) / 32.0;
        let keep_by_x = match scale {
            crate::KeepScale::Keep => 1.0,
            crate::KeepScale::Log2Keep => keep * std::f64::consts::LN_2,
        };
        (
            tau,
            [per_beta * by_keep * keep_by_x, per_beta * keep / 32.0],
        )
    }

    /// `g = A_th − A` and its gradient.
    fn shortfall(&self, [x, q]: [f64; 2]) -> (f64, [f64; 2]) {
        let along_keep = self.compression.accuracy.along_keep(q);
        let along_bits = self.compression.accuracy.along_bits(x);
        let g = self.compression.accuracy_min - value(&along_keep, x);
        (g, [-slope(&along_keep, x), -slope(&along_bits, q)])
    }

    /// Augmented Lagrangian and its gradient.
    fn lagrangian(&self, point: [f64; 2], unit: f64, lambda: f64, c: f64) -> (f64, [f64; 2]) {
        let (tau, by_tau) = self.objective(point);
        let (g, by_g) = self.shortfall(point);
        let force = (lambda + c * g).max(0.0);
        let value = tau / unit + (force * force - lambda * lambda) / (2.0 * c);
        (value, [0, 1].map(|k| by_tau[k] / unit + force * by_g[k]))
    }

    fn clamp(&self, point: [f64; 2]) -> [f64; 2] {
        [0, 1].map(|k| point[k].clamp(self.low[k], self.high[k]))
    }

    /// Projected Newton steps with a line search.
    fn minimise(&self, start: [f64; 2], unit: f64, lambda: f64, c: f64) -> [f64; 2] {
        let f = |point| self.lagrangian(point, unit, lambda, c);
        let mut point = self.clamp(start);
        for _ in 0..NEWTON_STEPS {
            let (value, gradient) = f(point);
            let direction = self.direction(point, gradient, |p| f(p).1);
            let mut length = 1.0;
            let next = loop {
                let trial = self.clamp([0, 1].map(|k| point[k] + length * direction[k]));
                let gain: f64 = (0..2).map(|k| gradient[k] * (trial[k] - point[k])).sum();
                if f(trial).0 <= value + 1e-4 * gain {
                    break trial;
                }
                length *= 0.5;
                if length < 1e-12 {
                    return point;
                }
            };
            let moved = (0..2)
                .map(|k| (next[k] - point[k]).abs())
                .fold(0.0, f64::max);
            point = next;
            if moved < 1e-13 {
                break;
            }
        }
        point
    }

    /// Newton's direction over the variables that are free to move, downhill.
    fn direction(
        &self,
        point: [f64; 2],
        gradient: [f64; 2],
        gradient_at: impl Fn([f64; 2]) -> [f64; 2],
    ) -> [f64; 2] {
        let free = [0, 1].map(|k| {
            let stuck_low = point[k] <= self.low[k] && gradient[k] >= 0.0;
            let stuck_high = point[k] >= self.high[k] && gradient[k] <= 0.0;
            !(stuck_low || stuck_high)
        });
        let width = [0, 1].map(|k| self.high[k] - self.low[k]);
        let column = |k: usize| {
            // A step inside the box.
            let h = 1e-6
                * if point[k] + 1e-6 * width[k] <= self.high[k] {
                    width[k]
                } else {
                    -width[k]
                };
            let mut moved = point;
            moved[k] += h;
            let there = gradient_at(moved);
            [0, 1].map(|m| (there[m] - gradient[m]) / h)
        };
        match free {
            [false, false] => [0.0; 2],
            [true, false] => [newton(gradient[0], column(0)[0], width[0]), 0.0],
            [false, true] => [0.0, newton(gradient[1], column(1)[1], width[1])],
            [true, true] => {
                let (first, second) = (column(0), column(1));
                let cross = f64::midpoint(first[1], second[0]);
                let det = first[0] * second[1] - cross * cross;
                if first[0] > 0.0 && det > 1e-14 * first[0] * second[1] {
                    [
                        (cross * gradient[1] - second[1] * gradient[0]) / det,
                        (cross * gradient[0] - first[0] * gradient[1]) / det,
                    ]
                } else {
                    [
                        newton(gradient[0], first[0], width[0]),
                        newton(gradient[1], second[1], width[1]),
                    ]
                }
            }
        }
    }
}

/// One variable's step: Newton's where the function is convex, else the box's width downhill.
fn newton(gradient: f64, curvature: f64, width: f64) -> f64 {
    if curvature > 0.0 {
        -gradient / curvature
    } else {
        -width.copysign(gradient)
    }
}
