//! The solvers: `sft.allocate_bandwidth`, `sft.allocate_two_pools`, and what the package's planning calls.

/// One band: `sft.allocate_bandwidth` and `sft.Solution`.
mod bandwidth;
/// Accuracy surfaces and curves over steps: fit and value.
mod fit;
/// Systems and settings as JSON.
mod json;
/// The joint problem, for all devices or for each, and the two timescales.
mod plan;
/// Two resources: `sft.allocate_two_pools` and `sft.TwoPoolSolution`.
mod pools;
/// Delay, memory and payloads of a training.
mod predict;
/// The compression problem of two kinds.
mod problem;

pub(crate) use bandwidth::{Solution, allocate_bandwidth};
pub(crate) use fit::{_accuracy, _beta, _fit, _fit_steps, _step_values};
pub(crate) use plan::{
    _optimize, _optimize_device_compression, _optimize_device_cuts, _two_timescale,
};
pub(crate) use pools::{TwoPoolSolution, allocate_two_pools};
pub(crate) use predict::{_predict, _system};
