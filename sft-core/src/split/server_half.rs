//! The server's half of a training step: the other blocks and its own backward pass; where the labels
//! are there, the head and the loss between them.

use candle_core::{Tensor, Var};

use super::forward::upper;
use super::head_half::HeadHalf;
use super::{LabelSide, Step};
use crate::adapter::{Head, Lora, check_blocks};
use crate::data::Labels;
use crate::layers::inject;
use crate::model::{Hidden, Model};
use crate::optim::{OptimizerConfig, Trainable};
use crate::{Error, Result};

/// The server's half for one device: the other blocks with their adapters, and the head where the
/// labels are on the server.
pub struct ServerHalf<'m> {
    model: &'m dyn Model,
    lora: Lora,
    /// Whether nothing is trained below.
    frozen_below: bool,
    head: Option<HeadHalf>,
    /// Whether features are those of tokens, for a language model's head.
    tells_tokens: bool,
    trainable: Trainable,
}

/// What one step of the server gives.
pub struct ServerStep {
    /// Mean cross-entropy of the labels of the mini-batch that count.
    pub loss: f32,
    /// The gradient of the activation; none where nothing is trained below.
    pub gradient: Option<Tensor>,
}

/// What the server's half makes of an activation, on the way to its backward pass.
pub struct Passed {
    /// What the head reads, `[B, D]`, or of tokens `[T, D]`.
    pub features: Tensor,
    /// The activation as a variable of the graph, where its gradient is wanted.
    received: Option<Var>,
}

impl<'m> ServerHalf<'m> {
    /// The half with the last `blocks.len()` blocks of `model`; the head is here where the labels are.
    ///
    /// # Errors
    /// Adapters or a head that do not fit the model.
    pub fn new(
        model: &'m dyn Model,
        lora: Lora,
        blocks: &[Vec<f32>],
        head: &Head,
        labels: LabelSide,
        config: impl Into<OptimizerConfig>,
    ) -> Result<Self> {
        let first = model.spec().depth.saturating_sub(blocks.len());
        check_blocks(model.spec(), lora, first, blocks)?;
        let here = (labels == LabelSide::Server).then_some(head);
        let half = here.map(|head| HeadHalf::new(model, lora, head));
        let trained = here.into_iter().flat_map(Head::trained);
        let vectors = (blocks.iter().map(Vec::as_slice)).chain(trained);
        Ok(Self {
            model,
            lora,
            frozen_below: lora.freezes(first),
            head: half.transpose()?,
            tells_tokens: head.is_none(),
            trainable: Trainable::new(vectors, config.into(), model.device())?,
        })
    }

    /// What labels must be below, if the head is here: its classes K, or the vocabulary V where next
    /// tokens are told.
    pub(super) fn answers(&self) -> Option<usize> {
        self.head.as_ref().map(HeadHalf::answers)
    }

    /// Whether labels are next tokens.
    pub(super) fn tells_tokens(&self) -> bool {
        self.tells_tokens
    }

    /// What is trained of the blocks, and of the head.
    fn tensors(&self) -> (&[Tensor], &[Tensor]) {
        let head = self.head.as_ref().map_or(0, HeadHalf::trained);
        let tensors = self.trainable.tensors();
        tensors.split_at(tensors.len() - head)
    }

    /// The features of an activation; they carry the graph that [`Self::backward`] needs.
    ///
    /// # Errors
    /// Shapes that do not fit the model.
    pub fn forward(&self, activation: &Hidden, step: Step) -> Result<Passed> {
        let received = (!self.frozen_below).then(|| Var::from_tensor(&activation.state));
        let received = received.transpose()?;
        let state = received
            .as_ref()
            .map_or(&activation.state, |var| var.as_tensor());
        let hidden = activation.with_state(state.clone());
        let lora = self.lora.training(step.dropout_seed);
        let blocks = self.tensors().0;
        let features = upper(self.model, lora, blocks, self.tells_tokens, &hidden)?;
        Ok(Passed { features, received })
    }

    /// Forward, loss, backward and update, (5) of the paper, for one mini-batch, where the labels are
    /// here.
    ///
    /// # Errors
    /// A half without a head, or shapes that do not fit the model.
    pub fn step(&mut self, activation: &Hidden, labels: &Labels, step: Step) -> Result<ServerStep> {
        let Passed { features, received } = self.forward(activation, step)?;
        let missing = || Error::argument("head", "must be on the server with the labels, got none");
        let head = self.head.as_ref().ok_or_else(missing)?;
        let lora = self.lora.training(step.dropout_seed);
        let loss = head.loss(&features, self.tensors().1, lora, labels)?;
        Ok(ServerStep {
            gradient: self.update(&loss, received, step)?,
            loss: loss.to_scalar()?,
        })
    }

    /// Backward and update from the gradient of the features, where the labels are on the device; the
    /// gradient of the activation, or none where nothing is trained below.
    ///
    /// # Errors
    /// A gradient of another shape than the features'.
    pub fn backward(
        &mut self,
        passed: Passed,
        gradient: &Tensor,
        step: Step,
    ) -> Result<Option<Tensor>> {
        let loss = inject(&passed.features, gradient)?;
        self.update(&loss, passed.received, step)
    }

    fn update(
        &mut self,
        loss: &Tensor,
        received: Option<Var>,
        step: Step,
    ) -> Result<Option<Tensor>> {
        let mut grads = loss.backward()?;
        let gradient = received.map(|cut| grads.remove(&cut).ok_or(Error::NoGradient(0)));
        let gradient = gradient.transpose()?;
        self.trainable.step(grads, step.learning_rate)?;
        Ok(gradient)
    }

    /// Forgets what only another step needs.
    pub(super) fn end(&mut self) {
        self.trainable.end();
    }

    /// The adapters of the half's blocks, and the head if it is here.
    ///
    /// # Errors
    /// A tensor operation failed.
    pub fn adapters(&self) -> Result<(Vec<Vec<f32>>, Option<Head>)> {
        let mut blocks = self.trainable.values()?;
        let trained = blocks.split_off(self.tensors().0.len());
        let head = self.head.as_ref().map(|head| head.with_trained(trained));
        Ok((blocks, head))
    }
}
