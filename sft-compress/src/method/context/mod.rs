//! Method 2: every element's position, level and sign as one symbol, coded by
//! its context.

/// What of a tensor is encoded independently.
mod chunk;
/// Which rows and channels share statistics.
mod classes;
/// Rows, channels and chunks.
mod geometry;
/// Chunks of few kept elements.
mod list;
/// The tables of frequencies and how an element finds its own.
mod model;
/// The entropy coder.
mod rans;
/// A frame's body to elements.
mod read;
/// Row ranges and extra bits.
mod side;
/// A model's parts in a frame.
mod tables;
/// Elements to a frame's body.
mod write;

#[cfg(test)]
pub(crate) use model::rank;
pub(crate) use read::{DecodeMemory, Frame, inspect};
pub(crate) use write::{EncodeMemory, write};
