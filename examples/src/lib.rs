//! What the examples share.

/// Cut and compression by the cost model.
pub mod auto;
/// What the programs print, and how they end.
pub mod console;
/// The data set of the embedded default.
pub mod digits;
/// The flags of `vit_finetune`.
pub mod flags;
/// The embedded default of `llm_finetune`.
pub mod glosses;
/// Model and data as the flags name them.
pub mod input;
/// Instances of P1 and P2 in a file.
pub mod instances;
/// What this process has taken of the machine's memory.
pub mod memory;
/// Curves as SVG.
pub mod plot;
/// What the programs that pre-train have in common.
pub mod pretrain;
/// What the programs that fine-tune have in common.
pub mod program;
/// Table, `run.json` and pictures.
pub mod report;
/// An accuracy surface as a file.
pub mod surface;
/// An accuracy surface as SVG.
pub mod surface_plot;
/// The settings of a sweep and what comes of them.
pub mod sweep;

/// The repository's front page: its Rust code is compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
