use pyo3::prelude::*;
use pyo3::types::PyDict;
use sft_opt::{Compression, JointProblem, Outcome, System, optimize};

use super::json::{read, write};
use crate::array::frozen;
use crate::error::{detached, infeasible};

/// `sft.optimize`: the best configuration, and what every cut layer could achieve.
#[pyfunction]
pub(crate) fn _optimize<'py>(
    py: Python<'py>,
    system: &str,
    compression: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let system: System = read("system", system)?;
    let compression: Compression = read("compression", compression)?;
    let (best, cuts) = detached(py, || {
        let problem = system.joint_problem(&system.links(), false)?;
        let best = optimize(&problem, &compression)?;
        Ok::<_, sft_opt::Error>((best, one_by_one(problem, &compression)?))
    })?;
    let best = match best {
        Outcome::Optimal(best) => best,
        Outcome::Infeasible { constraint } => return Err(infeasible(py, constraint)),
    };
    let answer = PyDict::new(py);
    answer.set_item("cut", best.cut)?;
    answer.set_item("setting", write(&best.setting)?)?;
    answer.set_item("tau_s", best.tau_s)?;
    answer.set_item("b_hz", frozen(py, best.b_hz))?;
    let shares = best.server_flop_per_s.map(|shares| frozen(py, shares));
    answer.set_item("server_flop_per_s", shares)?;
    answer.set_item("cuts", cuts)?;
    Ok(answer)
}

/// Cut layer, memory in bytes, and the delay in seconds if it fits.
type Cut = (usize, f64, Option<f64>);

/// Every cut layer as if there were no other.
fn one_by_one(mut problem: JointProblem, compression: &Compression) -> sft_opt::Result<Vec<Cut>> {
    let options = std::mem::take(&mut problem.cuts);
    let alone = |option: sft_opt::CutOption| {
        let (cut, memory_bytes) = (option.cut, option.memory_bytes);
        problem.cuts = vec![option];
        let best = optimize(&problem, compression)?.optimal();
        Ok((cut, memory_bytes, best.map(|best| best.tau_s)))
    };
    options.into_iter().map(alone).collect()
}
