//! The device's half of a training step: embedding and the first blocks forward, and on from the
//! gradient of the activation at the cut.

use candle_core::Tensor;

use super::Step;
use super::forward::lower;
use crate::Result;
use crate::adapter::{Lora, check_blocks, check_embedding, device_vectors};
use crate::data::Inputs;
use crate::layers::with_gradient;
use crate::model::{Hidden, Model};
use crate::optim::{OptimizerConfig, Trainable};

/// The device's half: embedding and the first blocks, with their adapters.
pub struct DeviceHalf<'m> {
    model: &'m dyn Model,
    lora: Lora,
    trainable: Trainable,
}

impl<'m> DeviceHalf<'m> {
    /// The half with the first `blocks.len()` blocks of `model`; `embedding` are the adapters before
    /// them, empty where none is a target.
    ///
    /// # Errors
    /// Adapters that do not fit the model.
    pub fn new(
        model: &'m dyn Model,
        lora: Lora,
        embedding: &[f32],
        blocks: &[Vec<f32>],
        config: impl Into<OptimizerConfig>,
    ) -> Result<Self> {
        check_embedding(model.spec(), lora, embedding)?;
        check_blocks(model.spec(), lora, 0, blocks)?;
        let vectors = device_vectors(embedding, blocks);
        let trainable = Trainable::new(vectors, config.into(), model.device())?;
        Ok(Self {
            model,
            lora,
            trainable,
        })
    }

    /// The activation `[B, S, D]` at the cut; it carries the graph that [`Self::backward`] needs, or
    /// nothing where the half is frozen.
    ///
    /// # Errors
    /// Inputs of another kind or shape than the model's.
    pub fn forward(&self, inputs: &Inputs, step: Step) -> Result<Hidden> {
        let lora = self.lora.training(step.dropout_seed);
        lower(self.model, lora, self.trainable.tensors(), inputs)
    }

    /// Updates the adapters, (6) of the paper, from the gradient of the activation.
    ///
    /// # Errors
    /// A gradient of another shape than the activation's.
    pub fn backward(&mut self, activation: &Hidden, gradient: &Tensor, step: Step) -> Result<()> {
        let activation = &activation.state;
        let loss = if activation.device().is_cpu() {
            with_gradient(activation, 0.0, gradient.clone())?
        } else {
            (activation * gradient)?.sum_all()?
        };
        self.trainable.step(loss.backward()?, step.learning_rate)
    }

    /// The adapters before the blocks, and those of the half's blocks.
    ///
    /// # Errors
    /// A tensor operation failed.
    pub fn adapters(&self) -> Result<(Vec<f32>, Vec<Vec<f32>>)> {
        let mut vectors = self.trainable.values()?;
        Ok((vectors.remove(0), vectors))
    }
}
