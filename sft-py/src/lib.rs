//! The extension module `sft._sft` of the Python package `sft`: it converts arguments and
//! results and leaves every computation to the crates it wraps.
//!
//! The documentation here is what Python's `help` shows.

#![forbid(unsafe_code)]
#![allow(
    clippy::doc_markdown,
    reason = "docstrings follow NumPy's conventions, not Markdown's"
)]

/// NumPy arrays and other Python arguments in, NumPy arrays out.
mod array;
/// `sft.Codec` and `sft.decode`.
mod compress;
/// Errors to exceptions, and running without the interpreter's lock.
mod error;
/// `sft.allocate_bandwidth`, its baselines and `sft.Solution`.
mod opt;

/// Compiled part of sft; import `sft` instead.
#[pyo3::pymodule]
mod _sft {
    #[pymodule_export]
    use crate::compress::{Codec, decode};
    #[pymodule_export]
    use crate::error::CodecError;
    #[pymodule_export]
    use crate::opt::{Solution, allocate_bandwidth, allocate_even, allocate_random};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
