#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

/// LoRA adapters: on which layers, as values and as PEFT's files.
pub mod adapter;
/// Labelled samples and how they are spread over devices.
pub mod data;
/// Frozen transformers that can be cut between any two of their blocks.
pub mod model;
/// Devices and server on a network.
#[cfg(feature = "net")]
pub mod net;
/// What turns gradients into updates.
pub mod optim;
/// Algorithm 1 and the schemes it is compared with, from configuration to checkpoint.
pub mod run;
/// The two halves of a training step, and what passes between them.
pub mod split;
/// What a model is tuned for: its loss and its score.
pub mod task;

/// Files that appear whole or not at all.
mod atomic_write;
/// What some data holds, as one number.
mod digest;
/// The crate's error.
mod error;
/// Memory that was freed; with `unsafe`, as the kernels.
#[cfg(feature = "net")]
mod freed;
/// Matrix product and elementwise kernels, with `unsafe`.
mod kernels;
/// Frozen layers with adapters, forward and backward by hand.
mod layers;
/// Numbers where a file has them; with `unsafe`, as the kernels.
mod mapped;
/// Independent tasks on a few threads.
mod parallel;
/// Independent random streams from one seed.
mod seed;

pub use atomic_write::write_whole;
pub use digest::Digest;
pub use error::{Error, Result};
