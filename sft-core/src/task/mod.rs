//! What a model is tuned for: its loss and its score.

/// The classification head on the device that computes it.
mod classifier;
/// Classification by cross-entropy.
mod classify;

pub(crate) use classifier::Classifier;
pub use classify::{correct, cross_entropy};
