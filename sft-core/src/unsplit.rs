//! A training step of the whole model, unsplit.

use candle_core::Tensor;

use crate::fit::check_adapters;
use crate::forward::{cross_entropy, logits};
use crate::head::Classifier;
use crate::trainable::Trainable;
use crate::{Adapters, Lora, Model, Result, Rule, Step};

/// The whole model with its adapters on one device, as FL trains it.
pub struct WholeModel<'m> {
    model: &'m dyn Model,
    lora: Lora,
    start: Adapters,
    classifier: Classifier,
    trainable: Trainable,
}

impl<'m> WholeModel<'m> {
    /// `model` with these adapters.
    ///
    /// # Errors
    /// Adapters or a head that do not fit the model.
    pub fn new(
        model: &'m dyn Model,
        lora: Lora,
        start: &Adapters,
        rule: impl Into<Rule>,
    ) -> Result<Self> {
        check_adapters(model, lora, start)?;
        Ok(Self {
            model,
            lora,
            start: start.clone(),
            classifier: Classifier::new(&start.head, model.device())?,
            trainable: Trainable::new(start.vectors(), rule.into(), model.device())?,
        })
    }

    /// Forward, loss, backward and update for one mini-batch; returns the mean cross-entropy.
    ///
    /// # Errors
    /// Shapes that do not fit the model.
    pub fn step(&mut self, input: &Tensor, labels: &[u32], step: Step) -> Result<f32> {
        let lora = self.lora.training(step.dropout_seed);
        let tensors = self.trainable.tensors();
        let logits = logits(self.model, lora, tensors, &self.classifier, input)?;
        let loss = cross_entropy(&logits, labels)?;
        self.trainable.step(loss.backward()?, step.learning_rate)?;
        Ok(loss.to_scalar()?)
    }

    /// The adapters and the head.
    ///
    /// # Errors
    /// A tensor operation failed.
    pub fn adapters(&self) -> Result<Adapters> {
        Ok(self.start.with_vectors(self.trainable.values()?))
    }
}
