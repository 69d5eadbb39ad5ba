//! What the examples share.

/// The data set of the embedded default.
pub mod digits;
/// The flags of `vit_finetune`.
pub mod flags;
/// Model and data as the flags name them.
pub mod input;
/// Curves as SVG.
pub mod plot;
/// Table, `run.json` and pictures.
pub mod report;
