//! A cut layer of its own for every device.

use serde::{Deserialize, Serialize};

use crate::bandwidth::allocate_bandwidth_into;
use crate::compression::{Compression, Setting, best_compression};
use crate::error::{Error, Result};
use crate::joint::{CutOption, JointProblem};
use crate::outcome::{Constraint, Outcome, infeasible};
use crate::problem::Problem;
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
    /// Bandwidth of every device in Hz.
    pub b_hz: Vec<f64>,
    /// Rounds of choosing cuts and allocating the band.
    pub iterations: u32,
}

/// Solves the joint problem exactly with a cut layer of its own for every device.
///
/// Variables: `ρ`, `q`, cut layers `l_n`, bandwidths `b_n`. Objective:
/// `max_n a_n(l_n) + (c_n(l_n) + β·e_n)/b_n`. Constraints: as [`JointProblem`], memory for every
/// device on its own.
///
/// A delay `τ` can be met iff `Σ_n min_l c_n(l)/(τ − a_n(l)) ≤ W`, where the minimum is over
/// cuts with `a_n(l) < τ` and a need within the cap. Starting from a feasible delay, every
/// device takes the cut with the least need, P2 is solved for these cuts, and so on: the delay
/// falls until it is a fixed point. There the left side, which falls with `τ`, meets `W` (or a
/// cap, or a device without demand) for the best cuts, so no smaller delay can be met. `O(NL)`
/// per iteration, usually 3 to 6.
///
/// # Errors
/// As [`optimize`](crate::optimize); [`ServerModel::Sequential`], where one device's cut delays
/// all others, and [`ServerModel::OptimalShare`].
pub fn optimize_device_cuts(
    problem: &JointProblem,
    compression: &Compression,
) -> Result<Outcome<DeviceCuts>> {
    problem.validate()?;
    refuse_coupled(problem.server_model)?;
    let Some(setting) = best_compression(compression)? else {
        return Ok(infeasible(Constraint::Accuracy));
    };
    let table = Table::new(problem, setting.beta);
    let Some(start) = table.least_demands() else {
        return Ok(infeasible(Constraint::Memory));
    };
    let mut best = table.allocate(problem, start)?;
    if best.tau_s.is_infinite() {
        return Ok(infeasible(Constraint::Bandwidth));
    }
    let mut iterations = 1;
    while let Some(chosen) = table.least_needs(problem, best.tau_s) {
        if chosen == best.chosen {
            break;
        }
        let next = table.allocate(problem, chosen)?;
        iterations += 1;
        if next.tau_s >= best.tau_s {
            break;
        }
        best = next;
    }
    Ok(Outcome::Optimal(DeviceCuts {
        cuts: (best.chosen.iter())
            .map(|&option| problem.cuts[option].cut)
            .collect(),
        setting,
        tau_s: best.tau_s,
        b_hz: best.b_hz,
        iterations,
    }))
}

fn refuse_coupled(model: ServerModel) -> Result<()> {
    match model {
        ServerModel::PerDevice | ServerModel::Even => Ok(()),
        ServerModel::Sequential | ServerModel::OptimalShare => Err(Error::Unsupported {
            name: "server model",
            value: model.as_str(),
            accepted: "per_device or even: there the cut of a device delays nobody else",
        }),
    }
}

/// `a` and `c` of every device and cut.
struct Table {
    /// One row per device, one entry per cut: `a`, `c`, and whether the cut fits.
    rows: Vec<Vec<(f64, f64, bool)>>,
}

/// Cuts, as positions in the list of options, and what they achieve.
struct Allocated {
    chosen: Vec<usize>,
    tau_s: f64,
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
        }
    }

    /// The cut with the least demand for every device; `None` if one fits no cut.
    fn least_demands(&self) -> Option<Vec<usize>> {
        self.choose(|_, _, c| Some(c))
    }

    /// The cut with the least need at `τ` for every device; `None` if one can only meet `τ`
    /// itself, as a device without demand that is the last to finish.
    fn least_needs(&self, problem: &JointProblem, tau_s: f64) -> Option<Vec<usize>> {
        self.choose(|n, a, c| {
            let need = c / (tau_s - a);
            let cap = problem.cap_hz.as_ref().map_or(f64::INFINITY, |cap| cap[n]);
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

    fn allocate(&self, problem: &JointProblem, chosen: Vec<usize>) -> Result<Allocated> {
        let entries = || self.rows.iter().zip(&chosen).map(|(row, &k)| row[k]);
        let a_s: Vec<f64> = entries().map(|(a, _, _)| a).collect();
        let c: Vec<f64> = entries().map(|(_, c, _)| c).collect();
        let mut b_hz = vec![0.0; a_s.len()];
        let single = Problem {
            a_s: &a_s,
            c_bits_per_bps_hz: &c,
            total_hz: problem.total_hz,
            cap_hz: problem.cap_hz.as_deref(),
        };
        let tau_s = allocate_bandwidth_into(&single, &mut b_hz)?.tau_s;
        Ok(Allocated {
            chosen,
            tau_s,
            b_hz,
        })
    }
}
