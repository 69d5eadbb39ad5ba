//! The inner problem of Algorithm 2: delay and shortfall of accuracy at one cut layer, minimised
//! over a box by projected Newton steps.

use crate::numeric::polynomial::{slope, value};
use crate::plan::{Compression, CutOption, JointProblem, KeepScale, formula};

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

/// Most Newton steps of one inner problem.
const NEWTON_STEPS: u32 = 60;

/// The inner problem of one cut: a smooth function of `(x, q)` on a box.
pub(crate) struct Inner<'a> {
    pub(crate) delay: &'a CutDelay,
    pub(crate) compression: &'a Compression,
    pub(crate) low: [f64; 2],
    pub(crate) high: [f64; 2],
}

impl Inner<'_> {
    /// Delay and its gradient.
    pub(crate) fn objective(&self, [x, q]: [f64; 2]) -> (f64, [f64; 2]) {
        let scale = self.compression.accuracy.scale();
        // β' is infinite at the ends of 0..=1.
        let keep = scale.keep(x).clamp(1e-12, 1.0 - 1e-12);
        let (tau, per_beta) = self.delay.at(formula(keep, q));
        let by_keep = (1.0 + q + ((1.0 - keep) / keep).log2()) / 32.0;
        let keep_by_x = match scale {
            KeepScale::Keep => 1.0,
            KeepScale::Log2Keep => keep * std::f64::consts::LN_2,
        };
        (
            tau,
            [per_beta * by_keep * keep_by_x, per_beta * keep / 32.0],
        )
    }

    /// `g = A_th − A` and its gradient.
    pub(crate) fn shortfall(&self, [x, q]: [f64; 2]) -> (f64, [f64; 2]) {
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
    pub(crate) fn minimise(&self, start: [f64; 2], unit: f64, lambda: f64, c: f64) -> [f64; 2] {
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
