use pyo3::prelude::*;
use pyo3::types::PyDict;
use sft_opt::plan::{
    Assumption, Configuration, JointProblem, configure, optimize_device_compression,
    optimize_device_cuts, two_timescale,
};
use sft_opt::{Constraint, Solution, System, optimize};

use super::json::{read, write};
use super::predict::fading;
use super::problem::{AnyCompression, AnySetting};
use crate::array::{frozen, unsigned, vector};
use crate::config::parse;
use crate::error::{detached, infeasible};

const ASSUMPTIONS: &[(&str, Assumption)] =
    &[("joint", Assumption::Joint), ("even", Assumption::Even)];

/// `sft.optimize`: the best configuration, and what every cut layer could achieve.
#[pyfunction]
pub(crate) fn _optimize<'py>(
    py: Python<'py>,
    system: &str,
    compression: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let task = Task::read(system, compression)?;
    let (best, cuts) = detached(py, || {
        let problem = task.problem()?;
        let best = optimize(&problem, &task.compression)?;
        Ok::<_, sft_opt::Error>((best, task.one_by_one(problem, Assumption::Joint)?))
    })?;
    let best = optimal(py, best)?;
    configuration(py, best.value, best.tau_s, cuts)
}

/// `sft.optimize_device_cuts`.
#[pyfunction]
pub(crate) fn _optimize_device_cuts<'py>(
    py: Python<'py>,
    system: &str,
    compression: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let task = Task::read(system, compression)?;
    let best = detached(py, || {
        optimize_device_cuts(&task.problem()?, &task.compression)
    })?;
    let best = optimal(py, best)?;
    let (answer, value) = (PyDict::new(py), best.value);
    let cuts = value.cuts.iter().map(|&cut| i64::try_from(cut));
    answer.set_item("cuts", frozen(py, cuts.collect::<Result<_, _>>()?))?;
    answer.set_item("setting", write(&value.setting)?)?;
    answer.set_item("tau_s", best.tau_s)?;
    answer.set_item("bound_s", best.bound_s)?;
    answer.set_item("b_hz", frozen(py, value.b_hz))?;
    let shares = value.server_flop_per_s.map(|shares| frozen(py, shares));
    answer.set_item("server_flop_per_s", shares)?;
    answer.set_item("iterations", best.iterations)?;
    Ok(answer)
}

/// `sft.optimize_device_compression`; without weights by the devices' samples.
#[pyfunction]
pub(crate) fn _optimize_device_compression<'py>(
    py: Python<'py>,
    system: &str,
    compression: &str,
    weights: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let task = Task::read(system, compression)?;
    let compression = task.compression.levels()?;
    let weights = match weights {
        Some(weights) => vector(weights, "weights")?.as_slice()?.to_vec(),
        None => (task.system.devices().iter())
            .map(|device| device.samples as f64)
            .collect(),
    };
    let best = detached(py, || {
        optimize_device_compression(&task.problem()?, compression, &weights)
    })?;
    let best = optimal(py, best)?;
    let (answer, value) = (PyDict::new(py), best.value);
    answer.set_item("cut", value.cut)?;
    answer.set_item("settings", write(&value.settings)?)?;
    answer.set_item("tau_s", best.tau_s)?;
    answer.set_item("bound_s", best.bound_s)?;
    answer.set_item("b_hz", frozen(py, value.b_hz))?;
    Ok(answer)
}

/// `sft.two_timescale`: the configuration as `_optimize` has it, and the delay of every round.
#[pyfunction]
pub(crate) fn _two_timescale<'py>(
    py: Python<'py>,
    system: &str,
    compression: &str,
    assumption: &str,
    rounds: &Bound<'py, PyAny>,
    fading_seed: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let task = Task::read(system, compression)?;
    let assumption = parse("assumption", assumption, ASSUMPTIONS)?;
    let rounds = unsigned(rounds, "rounds", "1..=10**7 over the number of devices")?;
    let fading = fading_seed.map(fading).transpose()?;
    let (run, cuts) = detached(py, || {
        let (system, compression) = (&task.system, &task.compression);
        let run = two_timescale(system, compression, assumption, fading, rounds)?;
        Ok::<_, sft_opt::Error>((run, task.one_by_one(task.problem()?, assumption)?))
    })?;
    let run = optimal(py, run)?;
    let answer = PyDict::new(py);
    let (tau_s, run) = (run.tau_s, run.value);
    let chosen = configuration(py, run.configuration, tau_s, cuts)?;
    answer.set_item("configuration", chosen)?;
    answer.set_item("rounds_s", frozen(py, run.rounds_s))?;
    Ok(answer)
}

/// A system and what compression may do to it.
struct Task {
    system: System,
    compression: AnyCompression,
}

impl Task {
    fn read(system: &str, compression: &str) -> PyResult<Self> {
        Ok(Self {
            system: read("system", system)?,
            compression: AnyCompression::read(compression)?,
        })
    }

    /// The joint problem of a round after the first, over the mean links.
    fn problem(&self) -> sft_opt::Result<JointProblem> {
        self.system.joint_problem(&self.system.links(), false)
    }

    /// Every cut layer as if there were no other.
    fn one_by_one(
        &self,
        mut problem: JointProblem,
        assumption: Assumption,
    ) -> sft_opt::Result<Vec<Cut>> {
        let options = std::mem::take(&mut problem.cuts);
        let even = vec![problem.total_hz / problem.devices() as f64; problem.devices()];
        let alone = |option: sft_opt::plan::CutOption| {
            let (cut, memory_bytes) = (option.cut, option.memory_bytes);
            problem.cuts = vec![option];
            let best = match assumption {
                Assumption::Joint => optimize(&problem, &self.compression)?,
                Assumption::Even => configure(&problem, &self.compression, &even)?,
            };
            Ok((cut, memory_bytes, best.feasible().map(|best| best.tau_s)))
        };
        options.into_iter().map(alone).collect()
    }
}

/// Cut layer, memory in bytes, and the delay in seconds if it fits.
type Cut = (usize, f64, Option<f64>);

/// The optimum, or the exception for the constraint that cannot be met.
fn optimal<T>(py: Python<'_>, solution: Solution<Option<T>>) -> PyResult<Solution<T>> {
    let constraint = solution.status.constraint();
    let failure = || infeasible(py, constraint.unwrap_or(Constraint::Bandwidth));
    solution.feasible().ok_or_else(failure)
}

fn configuration(
    py: Python<'_>,
    best: Configuration<AnySetting>,
    tau_s: f64,
    cuts: Vec<Cut>,
) -> PyResult<Bound<'_, PyDict>> {
    let answer = PyDict::new(py);
    answer.set_item("cut", best.cut)?;
    answer.set_item("setting", write(&best.setting)?)?;
    answer.set_item("tau_s", tau_s)?;
    answer.set_item("b_hz", frozen(py, best.b_hz))?;
    let shares = best.server_flop_per_s.map(|shares| frozen(py, shares));
    answer.set_item("server_flop_per_s", shares)?;
    answer.set_item("cuts", cuts)?;
    Ok(answer)
}
