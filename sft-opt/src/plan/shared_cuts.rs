//! A cut layer for every device where each has a share of the server: branch and bound.

use super::cut_table::CutTable;
use super::problem::JointProblem;
use crate::bandwidth::{TwoPools, allocate_two_pools};
use crate::error::Result;

/// Branches searched at most.
const MAX_BRANCHES: u32 = 1_000;
/// Relative gap at which a branch cannot gain anything.
const GAP: f64 = 1e-9;
/// Steps of the search for the best weight; any weight gives a bound.
const WEIGHT_STEPS: u32 = 24;

/// The best cuts found, as positions in the list of options, and a bound for all others.
pub(super) struct Shared {
    pub(super) chosen: Vec<usize>,
    pub(super) tau_s: f64,
    pub(super) bound_s: f64,
    pub(super) shares: [Vec<f64>; 2],
    pub(super) branches: u32,
}

/// A part of all choices: cuts that are still allowed, by the flags of the table's entries.
struct Branch {
    table: CutTable,
    bound: Bound,
}

struct Bound {
    tau_s: f64,
    weight: f64,
    chosen: Vec<usize>,
}

/// Searches the cuts that `table` allows; `None` if no delay is finite.
pub(super) fn solve(problem: &JointProblem, table: &CutTable) -> Result<Option<Shared>> {
    let mut best: Option<Shared> = None;
    let Some(root) = branch(problem, table.clone(), &mut best)? else {
        return Ok(None);
    };
    let (mut open, mut branches) = (vec![root], 1);
    while let Some(next) = least_bound(&open) {
        let tau_s = best.as_ref().map_or(f64::INFINITY, |best| best.tau_s);
        if open[next].bound.tau_s >= tau_s * (1.0 - GAP) || branches >= MAX_BRANCHES {
            break;
        }
        let parent = open.swap_remove(next);
        let Some(device) = least_decided(problem, &parent) else {
            continue;
        };
        for option in 0..problem.cuts.len() {
            if !parent.table.rows[device][option].2 {
                continue;
            }
            let mut table = parent.table.clone();
            for (k, entry) in table.rows[device].iter_mut().enumerate() {
                entry.2 = k == option;
            }
            open.extend(branch(problem, table, &mut best)?);
            branches += 1;
        }
    }
    Ok(best.map(|best| {
        let bound = least_bound(&open).map_or(best.tau_s, |least| open[least].bound.tau_s);
        // Within the gap the answer is exact.
        let exact = bound >= best.tau_s * (1.0 - GAP);
        Shared {
            bound_s: if exact { best.tau_s } else { bound },
            branches,
            ..best
        }
    }))
}

fn least_bound(open: &[Branch]) -> Option<usize> {
    (0..open.len()).min_by(|&a, &b| open[a].bound.tau_s.total_cmp(&open[b].bound.tau_s))
}

/// Bounds a part of the choices and tries the cuts that gave the bound.
fn branch(
    problem: &JointProblem,
    table: CutTable,
    best: &mut Option<Shared>,
) -> Result<Option<Branch>> {
    let Some(bound) = lower_bound(problem, &table)? else {
        return Ok(None);
    };
    let found = evaluate(problem, &table, &bound.chosen)?;
    let better = |best: &Shared| found.tau_s < best.tau_s;
    if found.tau_s.is_finite() && best.as_ref().is_none_or(better) {
        *best = Some(found);
    }
    Ok(Some(Branch { table, bound }))
}

/// The best bound over weights `λ`, quasi-concave in `λ`: golden section.
fn lower_bound(problem: &JointProblem, table: &CutTable) -> Result<Option<Bound>> {
    let golden = 0.5 * (5f64.sqrt() - 1.0);
    let (mut low, mut high) = (0.0, 1.0);
    let at = |weight: f64| weighted(problem, table, weight);
    let mut left = at(1.0 - golden)?;
    let mut right = at(golden)?;
    for _ in 0..WEIGHT_STEPS {
        let value = |bound: &Option<Bound>| bound.as_ref().map_or(f64::INFINITY, |b| b.tau_s);
        if value(&left) < value(&right) {
            low = high - golden * (high - low);
            left = right;
            right = at(low + golden * (high - low))?;
        } else {
            high = low + golden * (high - low);
            right = left;
            left = at(high - golden * (high - low))?;
        }
    }
    Ok(match (left, right) {
        (Some(left), Some(right)) if left.tau_s < right.tau_s => Some(right),
        (left, _) => left,
    })
}

/// Delay with both pools joined into one, the first counting `λ`, the second `1 − λ`.
fn weighted(problem: &JointProblem, table: &CutTable, weight: f64) -> Result<Option<Bound>> {
    let mut joined = table.clone();
    (joined.total_hz, joined.cap_hz) = (1.0, None);
    for (n, row) in joined.rows.iter_mut().enumerate() {
        for (k, entry) in row.iter_mut().enumerate() {
            entry.1 = demand(problem, n, k, entry.1, weight);
            // Without a band only cuts that send nothing are left.
            entry.2 &= entry.1.is_finite();
        }
    }
    let found = joined.solve()?;
    Ok(found.map(|(best, _)| Bound {
        tau_s: best.tau_s,
        weight,
        chosen: best.chosen,
    }))
}

/// `(√(λp) + √((1−λ)r))²` for parts `p` and `r` of the pools.
fn demand(problem: &JointProblem, n: usize, option: usize, c: f64, weight: f64) -> f64 {
    let part = |demand: f64, total: f64| if demand > 0.0 { demand / total } else { 0.0 };
    let first = weight * part(c, problem.total_hz);
    let second = (1.0 - weight)
        * part(
            problem.cuts[option].server_flop[n],
            problem.server_flop_per_s,
        );
    (first.sqrt() + second.sqrt()).powi(2)
}

/// The device whose two best cuts are the closest at the bound; `None` if all are decided.
fn least_decided(problem: &JointProblem, branch: &Branch) -> Option<usize> {
    let margin = |n: usize| {
        let mut needs = (branch.table.rows[n].iter().enumerate())
            .filter(|(_, entry)| entry.2)
            .map(|(k, &(a, c, _))| {
                let time = branch.bound.tau_s - a;
                let need = demand(problem, n, k, c, branch.bound.weight) / time;
                if time > 0.0 { need } else { f64::INFINITY }
            })
            .collect::<Vec<f64>>();
        needs.sort_by(f64::total_cmp);
        (needs.len() > 1).then(|| needs[1] - needs[0])
    };
    let all = (0..branch.table.rows.len()).filter_map(|n| margin(n).map(|margin| (n, margin)));
    all.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(n, _)| n)
}

/// What given cuts achieve with both pools shared optimally.
fn evaluate(problem: &JointProblem, table: &CutTable, chosen: &[usize]) -> Result<Shared> {
    let pick = |of: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
        (chosen.iter().enumerate())
            .map(|(n, &k)| of(n, k))
            .collect()
    };
    let (a_s, c) = (
        pick(&|n, k| table.rows[n][k].0),
        pick(&|n, k| table.rows[n][k].1),
    );
    let flop = pick(&|n, k| problem.cuts[k].server_flop[n]);
    let solution = allocate_two_pools(&TwoPools {
        a_s: &a_s,
        demands: [&c, &flop],
        totals: [problem.total_hz, problem.server_flop_per_s],
        caps: [problem.cap_hz.as_deref(), None],
    })?;
    Ok(Shared {
        chosen: chosen.to_vec(),
        tau_s: solution.tau_s,
        bound_s: 0.0,
        shares: solution.value.shares,
        branches: 0,
    })
}
