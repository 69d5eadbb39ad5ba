//! The extension module `sft._sft` of the Python package `sft`: it converts arguments and
//! results and leaves every computation to the crates it wraps.
//!
//! The documentation here is what Python's `help` shows.

#![forbid(unsafe_code)]
#![allow(
    clippy::doc_markdown,
    reason = "docstrings follow NumPy's conventions, not Markdown's"
)]
#![allow(
    clippy::needless_pass_by_value,
    reason = "arguments from Python arrive by value"
)]

/// NumPy arrays and other Python arguments in, NumPy arrays out.
mod array;
/// `sft.Codec`.
mod codec;
/// The settings of a codec by their names in Python.
mod config;
/// Errors to exceptions, and running without the interpreter's lock.
mod error;
/// `sft.ErrorFeedback`.
mod feedback;
/// `sft.decode`, `sft.inspect` and `sft.measure`.
mod frame;
/// Links between processes.
mod net;
/// The solvers.
mod opt;
/// `sft.RateTable`.
mod rate;
/// The trainer.
mod train;
/// `sft.Basis` and the codec of it.
mod transform;

/// Compiled part of sft; import `sft` instead.
#[pyo3::pymodule]
mod _sft {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::codec::Codec;
    #[pymodule_export]
    use crate::error::{_panic, CodecError, SolverError};
    #[pymodule_export]
    use crate::feedback::ErrorFeedback;
    #[pymodule_export]
    use crate::frame::{Info, Measure, decode, inspect, measure};
    #[pymodule_export]
    use crate::net::{Link, LinkCounts, Listener, connect, listen, make_certificates};
    #[pymodule_export]
    use crate::opt::{
        _accuracy, _beta, _fit, _fit_steps, _optimize, _optimize_device_compression,
        _optimize_device_cuts, _predict, _step_values, _system, _two_timescale, Solution,
        TwoPoolSolution, allocate_bandwidth, allocate_two_pools,
    };
    #[pymodule_export]
    use crate::rate::{Choice, RateTable};
    #[pymodule_export]
    use crate::train::{_finetune, _join, _run_defaults, _serve, _start_candle, _write_run};
    #[pymodule_export]
    use crate::transform::{Basis, PyDecoder, PyEncoder};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("InternalError", crate::error::internal_error(module.py())?)
    }
}
