//! The reference trainer: what `sft.finetune` calls.

/// Images as NumPy arrays or in folders.
mod data;
/// The arguments of `sft.finetune`.
mod options;
/// A run on a thread of its own, watched from Python's.
mod run;

pub(crate) use run::_finetune;
