//! A cut layer of its own for every device.

use serde::{Deserialize, Serialize};

use crate::bandwidth::allocate_bandwidth_into;
use crate::compression::{Compression, Setting, best_compression};
use crate::error::{Error, Result};
use crate::joint::{CutOption, JointProblem};
use crate::outcome::{Constraint, Outcome, infeasible};
use crate::problem::Problem;
use crate::shared_cuts::{self, Shared};
use crate::system::ServerModel;

/// A cut layer and bandwidth for every device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceCuts {
    /// Cut layer of every device.
    pub cuts: Vec<usize>,
    /// Compression, the same for all.
    pub setting: Setting,
    /// Delay of the round in seconds.
    pub tau_s: f64,
    /// No cuts and shares can be faster than this, in seconds: `tau_s` itself but for
    /// [`ServerModel::OptimalShare`] with many devices.
    pub lower_bound_s: f64,
    /// Bandwidth of every device in Hz.
    pub b_hz: Vec<f64>,
    /// Share of the server of every device in FLOP/s, with [`ServerModel::OptimalShare`].
    pub server_flop_per_s: Option<Vec<f64>>,
    /// Rounds of choosing cuts and allocating the band; with [`ServerModel::OptimalShare`]
    /// branches searched.
    pub iterations: u32,
}

/// Solves the joint problem with a cut layer of its own for every device.
///
/// Variables: `ρ`, `q`, cut layers `l_n`, bandwidths `b_n` (and, with
/// [`ServerModel::OptimalShare`], shares of the server). Objective:
/// `max_n a_n(l_n) + (c_n(l_n) + β·e_n)/b_n`, plus `d_n(l_n)/y_n` for a share `y_n`. Constraints:
/// as [`JointProblem`], memory for every device on its own.
///
/// [`ServerModel::PerDevice`] and [`ServerModel::Even`], exactly: a delay `τ` can be met iff
/// `Σ_n min_l c_n(l)/(τ − a_n(l)) ≤ W`, where the minimum is over cuts with `a_n(l) < τ` and a
/// need within the cap. Starting from a feasible delay, every device takes the cut with the
/// least need, P2 is solved for these cuts, and so on: the delay falls until it is a fixed
/// point. There the left side, which falls with `τ`, meets `W` (or a cap, or a device without
/// demand) for the best cuts, so no smaller delay can be met. `O(NL)` per iteration, usually 3
/// to 6.
///
/// [`ServerModel::OptimalShare`]: two sums to keep and a discrete choice per device make a
/// knapsack, hard in general. Solved by branch and bound, see [`DeviceCuts::lower_bound_s`]: for
/// any weight `λ` of the band against the server, `Σ_n min_l (√(λc/X) + √((1−λ)d/Y))²/(τ − a) ≤ 1`
/// is necessary, a problem of the exact kind, whose delay is a bound. `O(NL)` per bound and
/// `λ`; exact to 1e-9 within 1,000 branches, which suffice for about ten devices, and beyond
/// that within the gap reported, which falls as `1/N`.
///
/// # Errors
/// As [`optimize`](crate::optimize); [`ServerModel::Sequential`], where one device's cut delays
/// all others: the sum of their work and the slowest device's time are minimised together.
pub fn optimize_device_cuts(
    problem: &JointProblem,
    compression: &Compression,
) -> Result<Outcome<DeviceCuts>> {
    problem.validate()?;
    refuse_sequential(problem.server_model)?;
    let Some(setting) = best_compression(compression)? else {
        return Ok(infeasible(Constraint::Accuracy));
    };
    let table = Table::new(problem, setting.beta);
    if table.least_demands().is_none() {
        return Ok(infeasible(Constraint::Memory));
    }
    if problem.server_model == ServerModel::OptimalShare {
        let found = shared_cuts::solve(problem, &table)?;
        return Ok(found.map_or_else(
            || infeasible(Constraint::Bandwidth),
            |shared| Outcome::Optimal(answer_shared(problem, setting, shared)),
        ));
    }
    let Some((best, iterations)) = table.solve()? else {
        return Ok(infeasible(Constraint::Bandwidth));
    };
    Ok(Outcome::Optimal(DeviceCuts {
        cuts: cut_layers(problem, &best.chosen),
        setting,
        tau_s: best.tau_s,
        lower_bound_s: best.tau_s,
        b_hz: best.b_hz,
        server_flop_per_s: None,
        iterations,
    }))
}

fn answer_shared(problem: &JointProblem, setting: Setting, shared: Shared) -> DeviceCuts {
    let [b_hz, server] = shared.shares;
    DeviceCuts {
        cuts: cut_layers(problem, &shared.chosen),
        setting,
        tau_s: shared.tau_s,
        lower_bound_s: shared.lower_bound_s,
        b_hz,
        server_flop_per_s: Some(server),
        iterations: shared.branches,
    }
}

fn cut_layers(problem: &JointProblem, chosen: &[usize]) -> Vec<usize> {
    (chosen.iter())
        .map(|&option| problem.cuts[option].cut)
        .collect()
}

fn refuse_sequential(model: ServerModel) -> Result<()> {
    if model != ServerModel::Sequential {
        return Ok(());
    }
    Err(Error::Unsupported {
        name: "server model",
        value: model.as_str(),
        accepted: "per_device, even or optimal_share: there devices wait for themselves only",
    })
}

/// `a` and `c` of every device and cut, and the band.
#[derive(Clone)]
pub(crate) struct Table {
    /// One row per device, one entry per cut: `a`, `c`, and whether the cut fits.
    pub(crate) rows: Vec<Vec<(f64, f64, bool)>>,
    pub(crate) total_hz: f64,
    pub(crate) cap_hz: Option<Vec<f64>>,
}

/// Cuts, as positions in the list of options, and what they achieve.
pub(crate) struct Allocated {
    pub(crate) chosen: Vec<usize>,
    pub(crate) tau_s: f64,
    b_hz: Vec<f64>,
}

impl Table {
    fn new(problem: &JointProblem, beta: f64) -> Self {
        let row = |n: usize| {
            let entry = |option: &CutOption| {
                (
                    option.a_s[n],
                    option.c_fixed[n] + beta * problem.c_beta[n],
                    option.memory_bytes < problem.memory_max_bytes[n],
                )
            };
            problem.cuts.iter().map(entry).collect()
        };
        Self {
            rows: (0..problem.devices()).map(row).collect(),
            total_hz: problem.total_hz,
            cap_hz: problem.cap_hz.clone(),
        }
    }

    /// The best cuts and the iterations taken; `None` if no delay is finite. Every device must
    /// fit a cut.
    pub(crate) fn solve(&self) -> Result<Option<(Allocated, u32)>> {
        let Some(start) = self.least_demands() else {
            return Ok(None);
        };
        let mut best = self.allocate(start)?;
        if best.tau_s.is_infinite() {
            return Ok(None);
        }
        let mut iterations = 1;
        while let Some(chosen) = self.least_needs(best.tau_s) {
            if chosen == best.chosen {
                break;
            }
            let next = self.allocate(chosen)?;
            iterations += 1;
            if next.tau_s >= best.tau_s {
                break;
            }
            best = next;
        }
        Ok(Some((best, iterations)))
    }

    /// The cut with the least demand for every device; `None` if one fits no cut.
    fn least_demands(&self) -> Option<Vec<usize>> {
        self.choose(|_, _, c| Some(c))
    }

    /// The cut with the least need at `τ` for every device; `None` if one can only meet `τ`
    /// itself, as a device without demand that is the last to finish.
    fn least_needs(&self, tau_s: f64) -> Option<Vec<usize>> {
        self.choose(|n, a, c| {
            let need = c / (tau_s - a);
            let cap = self.cap_hz.as_ref().map_or(f64::INFINITY, |cap| cap[n]);
            // Rounding must not rule out the cut that meets its cap exactly.
            (a < tau_s && need <= cap * (1.0 + 4.0 * f64::EPSILON)).then_some(need)
        })
    }

    fn choose(&self, measure: impl Fn(usize, f64, f64) -> Option<f64>) -> Option<Vec<usize>> {
        let of_row = |(n, row): (usize, &Vec<(f64, f64, bool)>)| {
            let mut best: Option<(usize, f64)> = None;
            for (option, &(a, c, fits)) in row.iter().enumerate() {
                let Some(value) = fits.then(|| measure(n, a, c)).flatten() else {
                    continue;
                };
                if best.is_none_or(|(_, least)| value < least) {
                    best = Some((option, value));
                }
            }
            best.map(|(option, _)| option)
        };
        self.rows.iter().enumerate().map(of_row).collect()
    }

    fn allocate(&self, chosen: Vec<usize>) -> Result<Allocated> {
        let entries = || self.rows.iter().zip(&chosen).map(|(row, &k)| row[k]);
        let a_s: Vec<f64> = entries().map(|(a, _, _)| a).collect();
        let c: Vec<f64> = entries().map(|(_, c, _)| c).collect();
        let mut b_hz = vec![0.0; a_s.len()];
        let single = Problem {
            a_s: &a_s,
            c_bits_per_bps_hz: &c,
            total_hz: self.total_hz,
            cap_hz: self.cap_hz.as_deref(),
        };
        let tau_s = allocate_bandwidth_into(&single, &mut b_hz)?.tau_s;
        Ok(Allocated {
            chosen,
            tau_s,
            b_hz,
        })
    }
}
