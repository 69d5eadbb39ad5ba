//! How far a device is in its round, on the server's side.

use candle_core::Tensor;

use super::Passed;
use super::extent::Extent;
use super::message::{Hello, Tensors};
use crate::data::SampleId;

/// How far the device is.
#[derive(Default)]
pub(super) struct Stage {
    pub(super) hello: Option<Hello>,
    /// What the device was sent to start with, which it holds with its update.
    pub(super) start: Option<Tensors>,
    /// The next mini-batch.
    pub(super) step: u32,
    /// The mini-batch whose features the device has.
    pub(super) waits: Option<Waits>,
    /// The last gradient, with the samples of its mini-batch.
    pub(super) gradient: Option<(Tensor, Vec<SampleId>, Extent)>,
    pub(super) update: Option<Vec<Vec<f32>>>,
    pub(super) loss: f64,
    pub(super) counted: usize,
    /// Samples of the mini-batches that are done.
    pub(super) samples: usize,
    /// Whether the round is to end at the next mini-batch, and whether the device was told so.
    pub(super) early: bool,
    pub(super) told: bool,
}

/// A mini-batch in the middle of its step.
pub(super) struct Waits {
    pub(super) passed: Passed,
    pub(super) samples: Vec<SampleId>,
    /// Of the activation.
    pub(super) extent: Extent,
}
