//! The reference trainer: what `sft.finetune` calls.

/// The configuration of a run as a dict.
mod config;
/// Images as NumPy arrays.
mod data;
/// A run on a thread of its own, watched from Python's.
mod run;

pub(crate) use config::_run_defaults;
pub(crate) use run::{_finetune, _start_candle, _write_run};
