//! Our side: the whole split step, device and server half without a codec.

use candle_core::{Device, Tensor};
use sft_core::adapter::{Adapters, Lora};
use sft_core::data::{Inputs, Labels};
use sft_core::model::{Model, Vit};
use sft_core::optim::Optimizer;
use sft_core::split::{DeviceHalf, LabelSide, ServerHalf, Step};

use super::peer::answer;
use crate::Outcome;
use crate::shapes::Shape;

/// The optimizer of every side.
pub(super) const MOMENTUM: f64 = 0.9;
/// The learning rate of every side, and no dropout.
pub(super) const STEP: Step = Step {
    learning_rate: 1e-3,
    dropout_seed: 0,
};

/// Both halves of a model, with a mini-batch.
pub struct Halves<'m> {
    device: DeviceHalf<'m>,
    server: ServerHalf<'m>,
    inputs: Inputs,
    labels: Labels,
}

impl<'m> Halves<'m> {
    /// The halves of a shape's model, before the first step.
    ///
    /// # Errors
    /// A model of another shape.
    pub fn new(shape: &Shape, model: &'m Vit) -> Outcome<Self> {
        let batch = (
            Inputs::Pixels(shape.images()?),
            Labels::Classes(shape.labels()),
        );
        Self::of(model, shape.cut, shape.lora()?, &shape.adapters(), batch)
    }

    /// The halves of any model with these adapters, before the first step on a mini-batch.
    pub(super) fn of(
        model: &'m dyn Model,
        cut: usize,
        lora: Lora,
        start: &Adapters,
        (inputs, labels): (Inputs, Labels),
    ) -> Outcome<Self> {
        let sgd = Optimizer::sgd(MOMENTUM);
        let (low, high) = start.blocks.split_at(cut);
        Ok(Self {
            device: DeviceHalf::new(model, lora, &start.embedding, low, None, sgd)?,
            server: ServerHalf::new(model, lora, high, &start.head, LabelSide::Server, sgd)?,
            inputs,
            labels,
        })
    }

    /// Forward on the device, everything on the server, backward on the device; returns the loss.
    ///
    /// # Errors
    /// A tensor operation failed.
    pub fn step(&mut self) -> Outcome<f32> {
        let activation = self.device.forward(&self.inputs, STEP)?;
        let received = activation.with_state(activation.state.detach());
        let step = self.server.step(&received, &self.labels, STEP)?;
        let gradient = step.gradient.ok_or("no gradient at the cut")?;
        self.device
            .backward(&activation, Some(&gradient), None, STEP)?;
        Ok(step.loss)
    }
}

/// Our side.
pub(super) fn serve(shape: &Shape) -> Outcome<()> {
    let model = shape.model()?;
    let mut halves = Halves::new(shape, &model)?;
    answer(|| halves.step())
}

/// The peak: a square product, which candle hands to the `gemm` crate.
pub(super) fn serve_product(side: usize) -> Outcome<()> {
    let matrix = || Tensor::randn(0f32, 1.0, (side, side), &Device::Cpu);
    let (a, b) = (matrix()?, matrix()?);
    answer(|| {
        a.matmul(&b)?;
        Ok(0.0)
    })
}
