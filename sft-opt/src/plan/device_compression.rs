//! Compression of its own for every device under one constraint on the mean accuracy.

use serde::{Deserialize, Serialize};

use super::compression::{Compression, Setting, least_beta};
use super::frontier::{Frontier, Point, steepness};
use super::joint::optimize;
use super::problem::{CutOption, JointProblem};
use crate::bandwidth::{Problem, allocate_bandwidth};
use crate::error::{Error, Result, check, check_entries, check_len};
use crate::solution::{Solution, Status};
use crate::system::ServerModel;

/// A common cut layer, and compression and bandwidth of every device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceCompression {
    /// Cut layer.
    pub cut: usize,
    /// Compression of every device.
    pub settings: Vec<Setting>,
    /// Bandwidth of every device in Hz.
    pub b_hz: Vec<f64>,
}

/// Halvings of the delay's and of the multiplier's interval.
const HALVINGS: u32 = 60;
/// Rounding of a mean of accuracies.
const MEAN_ROUNDING: f64 = 1e-13;

/// Solves the joint problem with a compression of its own for every device, to a proved gap.
///
/// Variables: cut layer `l`, `(ρ_n, q_n)`, `b_n`. Objective:
/// `max_n a_n(l) + (c_n(l) + β(ρ_n, q_n)·e_n)/b_n`. Constraints: `Σ w_n·A(ρ_n, q_n) ≥ A_th` with
/// `w_n = |D_n|/|D|`, boxes, memory, band.
///
/// For a delay `τ` the least band is `Σ (c_n + β_n·e_n)/(τ − a_n)`, minimised by a Lagrangian
/// over a convex curve below all settings in the plane of `β` and `A`: every device stops where its
/// slope reaches `λ·w_n·(τ − a_n)/e_n`. Bisection on `λ` and on `τ` gives the bound, also where a
/// table of rates has kinks or is narrower than the box. The curve through 257 settings for every
/// number of bits, and through the kinks, then says what accuracy every device should have; the
/// cheapest settings that have it, with the bandwidths that P2 finds for them, are the answer. At
/// most one device sits between two corners of the curve, so the gap shrinks with the number of
/// devices. Never slower than the common compression of [`optimize`]. `O(cuts·3600·N)`.
///
/// # Errors
/// As [`optimize`]; weights that are not one per device, finite and at least 0 with a positive
/// sum; [`ServerModel::OptimalShare`].
pub fn optimize_device_compression(
    problem: &JointProblem,
    compression: &Compression,
    weights: &[f64],
) -> Result<Solution<Option<DeviceCompression>>> {
    if problem.server_model == ServerModel::OptimalShare {
        return Err(Error::Unsupported {
            name: "server model",
            value: problem.server_model.as_str(),
            accepted: "one that fixes every device's share",
        });
    }
    check_len("weights", weights.len(), problem.devices())?;
    let accepted = "finite and at least 0, with a positive sum";
    check_entries("weights", weights, f64::MAX, accepted)?;
    let sum: f64 = weights.iter().sum();
    check(sum > 0.0 && sum.is_finite(), "weights", sum, accepted)?;
    let weights: Vec<f64> = weights.iter().map(|w| w / sum).collect();
    let common = optimize(problem, compression)?;
    let mut best = common.map(|common| {
        common.map(|common| DeviceCompression {
            cut: common.cut,
            settings: vec![common.setting; problem.devices()],
            b_hz: common.b_hz,
        })
    });
    if best.value.is_none() {
        return Ok(best);
    }
    let frontier = Frontier::new(compression);
    for option in problem.fitting() {
        let search = Search {
            problem,
            compression,
            option,
            weights: &weights,
            frontier: &frontier,
        };
        let (bound_s, found) = search.run(best.tau_s)?;
        best.bound_s = best.bound_s.min(bound_s);
        if let Some((settings, tau_s, b_hz)) = found.filter(|found| found.1 < best.tau_s) {
            best.tau_s = tau_s;
            best.value = Some(DeviceCompression {
                cut: option.cut,
                settings,
                b_hz,
            });
        }
    }
    best.bound_s = best.bound_s.min(best.tau_s);
    if best.bound_s < best.tau_s {
        best.status = Status::Feasible;
    }
    Ok(best)
}

type Found = (Vec<Setting>, f64, Vec<f64>);

/// The search at one cut.
struct Search<'a> {
    problem: &'a JointProblem,
    compression: &'a Compression,
    option: &'a CutOption,
    weights: &'a [f64],
    frontier: &'a Frontier,
}

impl Search<'_> {
    /// The bound of this cut, and the settings found with their delay and bandwidths; nothing if
    /// the bound is not below `best_s`.
    fn run(&self, best_s: f64) -> Result<(f64, Option<Found>)> {
        let mut low = self.option.a_s.iter().copied().fold(0.0, f64::max);
        let mut high = best_s;
        if low >= high || self.relaxed(&self.frontier.bound, high).0 > self.problem.total_hz {
            return Ok((best_s, None));
        }
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            let met = self.relaxed(&self.frontier.bound, middle).0 <= self.problem.total_hz;
            *(if met { &mut high } else { &mut low }) = middle;
        }
        let (_, targets) = self.relaxed(&self.frontier.sampled, high);
        let settings: Option<Vec<Setting>> = (targets.iter())
            .map(|&target| least_beta(self.compression, target))
            .collect();
        // Where only settings between the samples are accurate enough, the common one stays.
        let Some(settings) = settings.filter(|settings| self.is_met_by(settings)) else {
            return Ok((high, None));
        };
        let c: Vec<f64> = (0..settings.len())
            .map(|n| self.option.c_fixed[n] + settings[n].beta * self.problem.c_beta[n])
            .collect();
        let solution = allocate_bandwidth(&Problem {
            a_s: &self.option.a_s,
            c_bits_per_bps_hz: &c,
            total_hz: self.problem.total_hz,
            cap_hz: self.problem.cap_hz.as_deref(),
        })?;
        Ok((high, Some((settings, solution.tau_s, solution.value.b_hz))))
    }

    /// Whether the mean accuracy is as wanted, but for the rounding of the sum.
    fn is_met_by(&self, settings: &[Setting]) -> bool {
        let mean: f64 = (settings.iter().zip(self.weights))
            .map(|(setting, w)| w * setting.accuracy)
            .sum();
        mean >= self.compression.accuracy_min - MEAN_ROUNDING
    }

    /// Least band at `τ` on a frontier, and every device's accuracy there.
    fn relaxed(&self, hull: &[Point], tau_s: f64) -> (f64, Vec<f64>) {
        let time = |n: usize| tau_s - self.option.a_s[n];
        let price = |n: usize| self.problem.c_beta[n] / time(n);
        let count = self.weights.len();
        let at = |lambda: f64| -> Vec<usize> {
            let stop = |n: usize| {
                let limit = lambda * self.weights[n] / price(n);
                // Slopes ascend: count the segments worth taking.
                let (mut low, mut high) = (0, hull.len() - 1);
                while low < high {
                    let middle = usize::midpoint(low, high);
                    let steep = steepness(hull[middle], hull[middle + 1]);
                    if steep <= limit {
                        low = middle + 1;
                    } else {
                        high = middle;
                    }
                }
                low
            };
            (0..count).map(stop).collect()
        };
        let mean = |stops: &[usize]| -> f64 {
            (stops.iter().zip(self.weights))
                .map(|(&stop, w)| w * hull[stop].accuracy)
                .sum()
        };
        let wanted = self.compression.accuracy_min;
        let (mut under, mut over) = (vec![0; count], vec![hull.len() - 1; count]);
        if mean(&under) >= wanted {
            over.clone_from(&under);
        } else {
            // λ may lie in any decade.
            let (mut low, mut high) = (-60.0_f64, 60.0_f64);
            for _ in 0..HALVINGS {
                let middle = f64::midpoint(low, high);
                let stops = at(10f64.powf(middle));
                if mean(&stops) >= wanted {
                    (high, over) = (middle, stops);
                } else {
                    (low, under) = (middle, stops);
                }
            }
        }
        let (less, more) = (mean(&under), mean(&over));
        let part = if more > less {
            ((wanted - less) / (more - less)).clamp(0.0, 1.0)
        } else {
            1.0
        };
        let mix = |n: usize, of: fn(Point) -> f64| {
            let (from, to) = (of(hull[under[n]]), of(hull[over[n]]));
            from + part * (to - from)
        };
        let band = (0..count)
            .map(|n| self.option.c_fixed[n] / time(n) + price(n) * mix(n, |p| p.beta))
            .sum();
        (band, (0..count).map(|n| mix(n, |p| p.accuracy)).collect())
    }
}
