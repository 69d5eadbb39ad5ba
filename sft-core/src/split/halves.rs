//! The two halves of a split training step.
//!
//! The device runs embedding and blocks `0..l` forward, the server the rest,
//! the loss and its own backward; what the device needs to go on is the
//! gradient of the activation at the cut.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, Var};

use super::forward::{lower, upper};
use crate::adapter::{Head, Lora};
use crate::adapter::{check_blocks, check_embedding, check_head, device_vectors};
use crate::data::{Inputs, Labels};
use crate::model::Hidden;
use crate::model::Model;
use crate::optim::OptimizerConfig;
use crate::optim::Trainable;
use crate::task::{Classifier, cross_entropy};
use crate::{Error, Result};

/// What differs from one mini-batch to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The learning rate of the update.
    pub learning_rate: f64,
    /// Where the masks of LoRA dropout come from; the same on both sides of the cut.
    pub dropout_seed: u64,
}

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
        check_blocks(model.spec(), lora, blocks)?;
        let vectors = device_vectors(embedding, blocks);
        let trainable = Trainable::new(vectors, config.into(), model.device())?;
        Ok(Self {
            model,
            lora,
            trainable,
        })
    }

    /// The activation `[B, S, D]` at the cut; it carries the graph that [`Self::backward`] needs.
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
            activation.apply_op1(Inject(gradient.clone()))?
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

/// The server's half for one device: the other blocks and the head, with their adapters.
pub struct ServerHalf<'m> {
    model: &'m dyn Model,
    lora: Lora,
    head: Head,
    classifier: Classifier,
    trainable: Trainable,
}

/// What one step of the server gives.
pub struct ServerStep {
    /// Mean cross-entropy of the mini-batch.
    pub loss: f32,
    /// The gradient of the activation.
    pub gradient: Tensor,
}

impl<'m> ServerHalf<'m> {
    /// The half with the last `blocks.len()` blocks of `model`.
    ///
    /// # Errors
    /// Adapters or a head that do not fit the model.
    pub fn new(
        model: &'m dyn Model,
        lora: Lora,
        blocks: &[Vec<f32>],
        head: &Head,
        config: impl Into<OptimizerConfig>,
    ) -> Result<Self> {
        check_blocks(model.spec(), lora, blocks)?;
        check_head(model.spec(), Some(lora), head)?;
        let vectors = (blocks.iter().map(Vec::as_slice)).chain(head.trained());
        Ok(Self {
            model,
            lora,
            head: head.clone(),
            classifier: Classifier::new(head, model.backend())?,
            trainable: Trainable::new(vectors, config.into(), model.device())?,
        })
    }

    /// Forward, loss, backward and update, (5) of the paper, for one mini-batch.
    ///
    /// # Errors
    /// Shapes that do not fit the model.
    pub fn step(&mut self, activation: &Hidden, labels: &Labels, step: Step) -> Result<ServerStep> {
        let received = Var::from_tensor(&activation.state)?;
        let hidden = activation.with_state(received.as_tensor().clone());
        let lora = self.lora.training(step.dropout_seed);
        let tensors = self.trainable.tensors();
        let logits = upper(self.model, lora, tensors, &self.classifier, &hidden)?;
        let loss = cross_entropy(&logits, labels)?;
        let mut grads = loss.backward()?;
        // The cut is a variable of the graph, so its gradient is there.
        let gradient = grads.remove(&received).ok_or(Error::NoGradient(0))?;
        self.trainable.step(grads, step.learning_rate)?;
        Ok(ServerStep {
            loss: loss.to_scalar()?,
            gradient,
        })
    }

    /// The adapters of the half's blocks, and the head.
    ///
    /// # Errors
    /// A tensor operation failed.
    pub fn adapters(&self) -> Result<(Vec<Vec<f32>>, Head)> {
        let mut blocks = self.trainable.values()?;
        let head = blocks.split_off(blocks.len() - self.classifier.trained());
        Ok((blocks, self.head.with_trained(head)))
    }
}

/// A scalar whose gradient with respect to its argument is a given tensor.
struct Inject(Tensor);

impl CustomOp1 for Inject {
    fn name(&self) -> &'static str {
        "inject-gradient"
    }

    fn cpu_fwd(&self, _: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        if layout.shape() != self.0.shape() {
            candle_core::bail!(
                "the gradient's shape is {:?}, the activation's {:?}",
                self.0.shape(),
                layout.shape()
            )
        }
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}
