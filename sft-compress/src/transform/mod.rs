//! The transform codec: a basis that both sides know, and what it makes of samples.

/// The basis: rotation, means, steps.
mod basis;
/// A basis as bytes.
mod bytes;
/// Learning a basis from activations.
#[cfg(feature = "learn")]
mod learn;
/// Indices to bits and back.
mod planes;
/// The principal channels.
mod rotation;
/// What is told of the rows of a sequence.
mod rows;
/// Samples to coefficients and back.
mod spectrum;
/// How the tokens of a sample lie, and in which order they are coded.
mod tokens;

pub use basis::Basis;
pub(crate) use planes::Models;
pub(crate) use rows::{Known, Reference, Row};
pub(crate) use spectrum::Work;
pub use tokens::Tokens;
