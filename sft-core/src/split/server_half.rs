//! The server's half of a training step: the other blocks, the loss and its own backward pass.

use candle_core::{Tensor, Var};

use super::Step;
use super::forward::upper;
use crate::adapter::{Head, Lora, check_blocks, check_head};
use crate::data::Labels;
use crate::model::{Hidden, Model};
use crate::optim::{OptimizerConfig, Trainable};
use crate::task::{Classifier, cross_entropy};
use crate::{Error, Result};

/// The server's half for one device: the other blocks and the head, with their adapters.
pub struct ServerHalf<'m> {
    model: &'m dyn Model,
    lora: Lora,
    /// Whether nothing is trained below.
    frozen_below: bool,
    head: Head,
    classifier: Classifier,
    trainable: Trainable,
}

/// What one step of the server gives.
pub struct ServerStep {
    /// Mean cross-entropy of the mini-batch.
    pub loss: f32,
    /// The gradient of the activation; none where nothing is trained below.
    pub gradient: Option<Tensor>,
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
        let first = model.spec().depth.saturating_sub(blocks.len());
        check_blocks(model.spec(), lora, first, blocks)?;
        check_head(model.spec(), Some(lora), head)?;
        let vectors = (blocks.iter().map(Vec::as_slice)).chain(head.trained());
        Ok(Self {
            model,
            lora,
            frozen_below: lora.freezes(first),
            head: head.clone(),
            classifier: Classifier::new(head, model.backend())?,
            trainable: Trainable::new(vectors, config.into(), model.device())?,
        })
    }

    /// Classes of the head, K.
    pub fn classes(&self) -> usize {
        self.head.classes
    }

    /// Forward, loss, backward and update, (5) of the paper, for one mini-batch.
    ///
    /// # Errors
    /// Shapes that do not fit the model.
    pub fn step(&mut self, activation: &Hidden, labels: &Labels, step: Step) -> Result<ServerStep> {
        // The cut is a variable of the graph where its gradient is wanted.
        let received = (!self.frozen_below).then(|| Var::from_tensor(&activation.state));
        let received = received.transpose()?;
        let state = received
            .as_ref()
            .map_or(&activation.state, |var| var.as_tensor());
        let hidden = activation.with_state(state.clone());
        let lora = self.lora.training(step.dropout_seed);
        let tensors = self.trainable.tensors();
        let logits = upper(self.model, lora, tensors, &self.classifier, &hidden)?;
        let loss = cross_entropy(&logits, labels)?;
        let mut grads = loss.backward()?;
        let gradient = received.map(|cut| grads.remove(&cut).ok_or(Error::NoGradient(0)));
        let gradient = gradient.transpose()?;
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
