//! P1 and P: cut layer and compression at given bandwidths, and jointly with them.

use serde::{Deserialize, Serialize};

use crate::bandwidth::allocate_bandwidth;
use crate::compression::{Compression, Setting, best_compression};
use crate::error::{Error, NOT_NEGATIVE, Result, check_entries, check_len, check_rate, check_size};
use crate::outcome::{Constraint, Outcome, infeasible};
use crate::pools::{TwoPools, allocate_two_pools};
use crate::problem::Problem;
use crate::system::ServerModel;

/// What a cut layer asks of devices, band and server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutOption {
    /// Cut layer `l`.
    pub cut: usize,
    /// Memory it takes on every device in bytes, at least 0.
    pub memory_bytes: f64,
    /// Delay that bandwidth does not change, `a_n(l)`, in seconds; with
    /// [`ServerModel::OptimalShare`] without the server's part.
    pub a_s: Vec<f64>,
    /// Bits over spectral efficiency that compression does not change: adapters.
    pub c_fixed: Vec<f64>,
    /// Work of the server in FLOP; read with [`ServerModel::OptimalShare`] only.
    #[serde(default)]
    pub server_flop: Vec<f64>,
}

/// The joint problem P (27) but for compression: over cut layer `l`, compressed share `β` and
/// bandwidths `b`,
///
/// ```text
/// minimise    max_n  a_n(l) + (c_n(l) + β·e_n)/b_n
/// subject to  memory(l) < memory_max_n for all n,   Σ b_n ≤ W,   0 ≤ b_n ≤ cap_n
/// ```
///
/// [`System::joint_problem`](crate::System::joint_problem) makes it from a system; the cuts it
/// holds are the ones to choose from, so a single one is the fixed cut of a baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JointProblem {
    /// The cut layers to choose from.
    pub cuts: Vec<CutOption>,
    /// Bits over spectral efficiency of raw activations and gradients, `e_n`.
    pub c_beta: Vec<f64>,
    /// Memory of every device in bytes.
    pub memory_max_bytes: Vec<f64>,
    /// The band `W` in Hz.
    pub total_hz: f64,
    /// Most bandwidth of every device in Hz; `None` if nobody has a cap.
    pub cap_hz: Option<Vec<f64>>,
    /// How `a_s` counts the server.
    pub server_model: ServerModel,
    /// Compute rate of the server in FLOP/s; read with [`ServerModel::OptimalShare`] only.
    #[serde(default)]
    pub server_flop_per_s: f64,
}

/// A chosen cut layer, compression and allocation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// Cut layer `l`.
    pub cut: usize,
    /// Compression.
    pub setting: Setting,
    /// Delay of the round in seconds.
    pub tau_s: f64,
    /// Bandwidth of every device in Hz.
    pub b_hz: Vec<f64>,
    /// Share of the server of every device in FLOP/s, with [`ServerModel::OptimalShare`].
    pub server_flop_per_s: Option<Vec<f64>>,
}

impl JointProblem {
    /// Number of devices.
    pub fn devices(&self) -> usize {
        self.c_beta.len()
    }

    /// Checks every field.
    ///
    /// # Errors
    /// No device, no cut, a list without one entry per device, a number that is not finite and
    /// at least 0.
    pub fn validate(&self) -> Result<()> {
        let n = self.devices();
        if n == 0 {
            return Err(Error::NoDevices);
        }
        let list = |name, values: &[f64], max| {
            check_len(name, values.len(), n)?;
            check_entries(name, values, max, NOT_NEGATIVE)
        };
        list("c_beta", &self.c_beta, f64::MAX)?;
        list("memory_max_bytes", &self.memory_max_bytes, f64::INFINITY)?;
        check_size("total_hz", self.total_hz)?;
        if let Some(caps) = &self.cap_hz {
            list("cap_hz", caps, f64::INFINITY)?;
        }
        let shared = self.server_model == ServerModel::OptimalShare;
        if self.cuts.is_empty() {
            return Err(Error::Empty { name: "cuts" });
        }
        for option in &self.cuts {
            check_size("memory_bytes", option.memory_bytes)?;
            list("a_s", &option.a_s, f64::MAX)?;
            list("c_fixed", &option.c_fixed, f64::MAX)?;
            if shared {
                list("server_flop", &option.server_flop, f64::MAX)?;
            }
        }
        if shared {
            check_rate("server_flop_per_s", self.server_flop_per_s)?;
        }
        Ok(())
    }

    /// Cut layers that fit into every device.
    pub(crate) fn fitting(&self) -> impl Iterator<Item = &CutOption> {
        let limit = self
            .memory_max_bytes
            .iter()
            .copied()
            .fold(f64::INFINITY, f64::min);
        (self.cuts.iter()).filter(move |option| option.memory_bytes < limit)
    }

    /// `c_n(l) + β·e_n`.
    pub(crate) fn demand(&self, option: &CutOption, beta: f64) -> Vec<f64> {
        (option.c_fixed.iter().zip(&self.c_beta))
            .map(|(fixed, raw)| fixed + beta * raw)
            .collect()
    }
}

/// Solves P1 (28) exactly: cut layer and compression at given bandwidths `b_hz` in Hz.
///
/// Variables: `ρ`, integer bits `q`, cut layer `l`. Objective: the delay of the slowest device.
/// Constraints: accuracy, memory (strict, every device), boxes. The best compression does not
/// depend on `l` ([`best_compression`]); then the least delay over the cuts that fit. With
/// [`ServerModel::OptimalShare`] the server is shared optimally. `O(N·cuts)`; among equals the
/// first cut.
///
/// # Errors
/// As [`JointProblem::validate`] and [`Compression::validate`]; bandwidths that are not one per
/// device, finite and at least 0.
pub fn configure(
    problem: &JointProblem,
    compression: &Compression,
    b_hz: &[f64],
) -> Result<Outcome<Configuration>> {
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
            return Ok(Allocation {
                tau_s,
                b_hz,
                server_flop_per_s: None,
            });
        }
        let shares = allocate_bandwidth(&Problem {
            a_s: &a_s,
            c_bits_per_bps_hz: &option.server_flop,
            total_hz: problem.server_flop_per_s,
            cap_hz: None,
        })?;
        Ok(Allocation {
            tau_s: shares.tau_s,
            b_hz,
            server_flop_per_s: Some(shares.b_hz),
        })
    })
}

/// Solves the joint problem P (27) exactly: cut layer, compression and bandwidths.
///
/// Variables: `ρ`, integer bits `q`, cut layer `l`, bandwidths `b` (and, with
/// [`ServerModel::OptimalShare`], shares of the server). Objective and constraints: see
/// [`JointProblem`] and [`Compression`].
///
/// The delay depends on `(ρ, q)` only through `β`, and grows with it, for every `l` and `b`; so
/// the problem separates into one compression problem ([`best_compression`]) and one bandwidth
/// problem per cut that fits ([`allocate_bandwidth`], or [`allocate_two_pools`]). `O(N·cuts)`;
/// among equals the first cut.
///
/// # Errors
/// As [`JointProblem::validate`] and [`Compression::validate`]; magnitudes whose results a
/// double cannot hold.
pub fn optimize(
    problem: &JointProblem,
    compression: &Compression,
) -> Result<Outcome<Configuration>> {
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
            let [b_hz, server] = solution.shares;
            return Ok(Allocation {
                tau_s: solution.tau_s,
                b_hz,
                server_flop_per_s: Some(server),
            });
        }
        let solution = allocate_bandwidth(&Problem {
            a_s: &option.a_s,
            c_bits_per_bps_hz: &c,
            total_hz: problem.total_hz,
            cap_hz: problem.cap_hz.as_deref(),
        })?;
        Ok(Allocation {
            tau_s: solution.tau_s,
            b_hz: solution.b_hz,
            server_flop_per_s: None,
        })
    })
}

/// What a cut achieves.
struct Allocation {
    tau_s: f64,
    b_hz: Vec<f64>,
    server_flop_per_s: Option<Vec<f64>>,
}

fn best_cut(
    problem: &JointProblem,
    compression: &Compression,
    mut allocate: impl FnMut(&CutOption, Vec<f64>) -> Result<Allocation>,
) -> Result<Outcome<Configuration>> {
    let Some(setting) = best_compression(compression)? else {
        return Ok(infeasible(Constraint::Accuracy));
    };
    let mut best: Option<(usize, Allocation)> = None;
    for option in problem.fitting() {
        let found = allocate(option, problem.demand(option, setting.beta))?;
        if best
            .as_ref()
            .is_none_or(|(_, best)| found.tau_s < best.tau_s)
        {
            best = Some((option.cut, found));
        }
    }
    Ok(match best {
        None => infeasible(Constraint::Memory),
        Some((_, found)) if found.tau_s.is_infinite() => infeasible(Constraint::Bandwidth),
        Some((cut, found)) => Outcome::Optimal(Configuration {
            cut,
            setting,
            tau_s: found.tau_s,
            b_hz: found.b_hz,
            server_flop_per_s: found.server_flop_per_s,
        }),
    })
}
