//! The reference trainer: what `sft.finetune` calls.

/// The configuration of a run as a dict.
mod config;
/// Images as NumPy arrays.
mod data;
/// A device of a run over a network.
mod join;
/// A run, in one process or served to devices.
mod run;
/// Work on a thread of its own, watched from Python's.
mod watch;

pub(crate) use config::_run_defaults;
pub(crate) use join::_join;
pub(crate) use run::{_finetune, _serve, _start_candle, _write_run};
