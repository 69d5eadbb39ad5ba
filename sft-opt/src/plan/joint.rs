//! P1 and P: cut layer and compression at given bandwidths, and jointly with them.

use serde::{Deserialize, Serialize};

use super::compression::Setting;
use super::compression_problem::CompressionProblem;
use super::problem::{CutOption, JointProblem};
use crate::bandwidth::{Problem, TwoPools, allocate_bandwidth, allocate_two_pools};
use crate::error::{NOT_NEGATIVE, Result, check_entries, check_len};
use crate::solution::{Constraint, Solution};
use crate::system::ServerModel;

/// A cut layer, compression and bandwidths for a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Configuration<S = Setting> {
    /// Cut layer `l`.
    pub cut: usize,
    /// Compression.
    pub setting: S,
    /// Bandwidth of every device in Hz.
    pub b_hz: Vec<f64>,
    /// Share of the server of every device in FLOP/s, with [`ServerModel::OptimalShare`].
    pub server_flop_per_s: Option<Vec<f64>>,
}

/// Solves P1 (28) exactly: cut layer and compression at given bandwidths `b_hz` in Hz.
///
/// Variables: the setting of the compression, cut layer `l`. Objective: the delay of the slowest
/// device. Constraints: accuracy, memory (strict, every device), boxes. The best compression does
/// not depend on `l` ([`CompressionProblem`]); then the least delay over the cuts that fit. With
/// [`ServerModel::OptimalShare`] the server is shared optimally. `O(N·cuts)`; among equals the
/// first cut. Its iterations are the cuts compared.
///
/// # Errors
/// As [`JointProblem::validate`] and [`CompressionProblem::best`]; bandwidths that are not one per
/// device, finite and at least 0.
pub fn configure<C: CompressionProblem>(
    problem: &JointProblem,
    compression: &C,
    b_hz: &[f64],
) -> Result<Solution<Option<Configuration<C::Setting>>>> {
    problem.validate()?;
    check_len("b_hz", b_hz.len(), problem.devices())?;
    check_entries("b_hz", b_hz, f64::MAX, NOT_NEGATIVE)?;
    best_cut(problem, compression, |option, c| {
        let a_s: Vec<f64> = (option.a_s.iter().zip(&c).zip(b_hz))
            .map(|((a, &c), b)| if c == 0.0 { *a } else { a + c / b })
            .collect();
        let b_hz = b_hz.to_vec();
        if problem.server_model != ServerModel::OptimalShare || a_s.iter().any(|a| a.is_infinite())
        {
            let tau_s = a_s.into_iter().fold(0.0, f64::max);
            return Ok((tau_s, b_hz, None));
        }
        let shares = allocate_bandwidth(&Problem {
            a_s: &a_s,
            c_bits_per_bps_hz: &option.server_flop,
            total_hz: problem.server_flop_per_s,
            cap_hz: None,
        })?;
        Ok((shares.tau_s, b_hz, Some(shares.value.b_hz)))
    })
}

/// Solves the joint problem P (27) exactly: cut layer, compression and bandwidths.
///
/// Variables: kept fraction and bits (or a step), cut layer `l`, bandwidths `b` (and, with
/// [`ServerModel::OptimalShare`], shares of the server). Objective and constraints: see
/// [`JointProblem`] and [`Compression`](super::Compression), or
/// [`StepCompression`](super::StepCompression).
///
/// The delay depends on the setting only through `β`, and grows with it, for every `l` and `b`; so
/// the problem separates into one compression problem ([`CompressionProblem`]) and one bandwidth
/// problem per cut that fits ([`allocate_bandwidth`], or [`allocate_two_pools`]). `O(N·cuts)`;
/// among equals the first cut.
///
/// # Errors
/// As [`JointProblem::validate`] and [`CompressionProblem::best`]; magnitudes whose results a
/// double cannot hold.
pub fn optimize<C: CompressionProblem>(
    problem: &JointProblem,
    compression: &C,
) -> Result<Solution<Option<Configuration<C::Setting>>>> {
    problem.validate()?;
    best_cut(problem, compression, |option, c| {
        if problem.server_model == ServerModel::OptimalShare {
            let pools = TwoPools {
                a_s: &option.a_s,
                demands: [&c, &option.server_flop],
                totals: [problem.total_hz, problem.server_flop_per_s],
                caps: [problem.cap_hz.as_deref(), None],
            };
            let solution = allocate_two_pools(&pools)?;
            let [b_hz, server] = solution.value.shares;
            return Ok((solution.tau_s, b_hz, Some(server)));
        }
        let solution = allocate_bandwidth(&Problem {
            a_s: &option.a_s,
            c_bits_per_bps_hz: &c,
            total_hz: problem.total_hz,
            cap_hz: problem.cap_hz.as_deref(),
        })?;
        Ok((solution.tau_s, solution.value.b_hz, None))
    })
}

/// A delay in seconds, bandwidths, and shares of the server where it is shared.
type Allocated = (f64, Vec<f64>, Option<Vec<f64>>);

fn best_cut<C: CompressionProblem>(
    problem: &JointProblem,
    compression: &C,
    mut allocate: impl FnMut(&CutOption, Vec<f64>) -> Result<Allocated>,
) -> Result<Solution<Option<Configuration<C::Setting>>>> {
    let Some(setting) = compression.best()? else {
        return Ok(Solution::infeasible(Constraint::Accuracy));
    };
    let (mut best, mut cuts): (Option<(usize, Allocated)>, _) = (None, 0);
    for option in problem.fitting() {
        cuts += 1;
        let found = allocate(option, problem.demand(option, C::beta(&setting)))?;
        if best.as_ref().is_none_or(|(_, best)| found.0 < best.0) {
            best = Some((option.cut, found));
        }
    }
    let Some((cut, (tau_s, b_hz, server_flop_per_s))) = best else {
        return Ok(Solution::infeasible(Constraint::Memory));
    };
    if tau_s.is_infinite() {
        return Ok(Solution::infeasible(Constraint::Bandwidth));
    }
    let configuration = Configuration {
        cut,
        setting,
        b_hz,
        server_flop_per_s,
    };
    Ok(Solution::optimal(Some(configuration), tau_s, cuts))
}
