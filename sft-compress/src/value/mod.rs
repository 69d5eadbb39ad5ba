//! What becomes of the value of a kept element: an index, and from it a magnitude.

/// Evenly and otherwise spaced points, and rounding to them.
pub(crate) mod levels;
/// Random numbers by seed and position.
mod noise;
/// The quantizers of the context-coded method, and what a frame says of them.
pub(crate) mod points;
/// How large the elements of a tensor are.
pub(crate) mod profile;
/// The span of the kept magnitudes, and the range of each row in it.
pub(crate) mod ranges;
/// Indices to tokens and extra bits.
pub(crate) mod token;

pub(crate) use levels::Levels;
pub(crate) use noise::Noise;
