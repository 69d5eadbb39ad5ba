//! A cut layer of its own for every device.

use serde::{Deserialize, Serialize};

use super::compression::Setting;
use super::compression_problem::CompressionProblem;
use super::cut_table::CutTable;
use super::problem::JointProblem;
use super::shared_cuts::{self, Shared};
use crate::error::{Error, Result};
use crate::solution::{Constraint, Solution, Status};
use crate::system::{Placement, ServerModel};

/// A cut layer and bandwidth for every device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceCuts<S = Setting> {
    /// Cut layer of every device.
    pub cuts: Vec<usize>,
    /// Compression, the same for all.
    pub setting: S,
    /// Bandwidth of every device in Hz.
    pub b_hz: Vec<f64>,
    /// Share of the server of every device in FLOP/s, with [`ServerModel::OptimalShare`].
    pub server_flop_per_s: Option<Vec<f64>>,
}

impl<S> DeviceCuts<S> {
    /// Where every device is cut, for a [`Round`](crate::cost::Round).
    pub fn placements(&self) -> Vec<Placement> {
        (self.cuts.iter())
            .map(|&cut| Placement::Split { cut })
            .collect()
    }
}

/// Solves the joint problem with a cut layer of its own for every device.
///
/// Variables: the setting of the compression, cut layers `l_n`, bandwidths `b_n` (and, with
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
/// knapsack, hard in general. Solved by branch and bound: for
/// any weight `λ` of the band against the server, `Σ_n min_l (√(λc/X) + √((1−λ)d/Y))²/(τ − a) ≤ 1`
/// is necessary, a problem of the exact kind, whose delay is a bound. `O(NL)` per bound and
/// `λ`; exact to 1e-9 within 1,000 branches, which suffice for about ten devices, and beyond
/// that within the gap to `bound_s`, which falls as `1/N`.
///
/// Its iterations are rounds of choosing cuts and allocating the band, or branches searched.
///
/// # Errors
/// As [`optimize`](crate::optimize); [`ServerModel::Sequential`], where one device's cut delays
/// all others: the sum of their work and the slowest device's time are minimised together.
pub fn optimize_device_cuts<C: CompressionProblem>(
    problem: &JointProblem,
    compression: &C,
) -> Result<Solution<Option<DeviceCuts<C::Setting>>>> {
    problem.validate()?;
    refuse_sequential(problem.server_model)?;
    let Some(setting) = compression.best()? else {
        return Ok(Solution::infeasible(Constraint::Accuracy));
    };
    let table = CutTable::new(problem, C::beta(&setting));
    if table.least_demands().is_none() {
        return Ok(Solution::infeasible(Constraint::Memory));
    }
    let found = if problem.server_model == ServerModel::OptimalShare {
        shared_cuts::solve(problem, &table)?.map(|found| shared(problem, setting, found))
    } else {
        table.solve()?.map(|(best, iterations)| {
            let cuts = DeviceCuts {
                cuts: cut_layers(problem, &best.chosen),
                setting,
                b_hz: best.b_hz,
                server_flop_per_s: None,
            };
            Solution::optimal(Some(cuts), best.tau_s, iterations)
        })
    };
    Ok(found.unwrap_or_else(|| Solution::infeasible(Constraint::Bandwidth)))
}

fn shared<S>(problem: &JointProblem, setting: S, found: Shared) -> Solution<Option<DeviceCuts<S>>> {
    let [b_hz, server] = found.shares;
    let cuts = DeviceCuts {
        cuts: cut_layers(problem, &found.chosen),
        setting,
        b_hz,
        server_flop_per_s: Some(server),
    };
    Solution {
        value: Some(cuts),
        tau_s: found.tau_s,
        bound_s: found.bound_s,
        status: if found.bound_s < found.tau_s {
            Status::IterationLimit
        } else {
            Status::Optimal
        },
        iterations: found.branches,
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
