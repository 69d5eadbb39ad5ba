//! A training step of the whole model, unsplit.

use super::forward::{features, task_head};
use crate::Result;
use crate::adapter::{Adapters, Lora, check_adapters};
use crate::data::{Inputs, Labels};
use crate::model::Model;
use crate::optim::OptimizerConfig;
use crate::optim::Trainable;
use crate::split::Step;
use crate::task::TaskHead;

/// The whole model with its adapters on one device, as FL trains it.
pub struct WholeModel<'m> {
    model: &'m dyn Model,
    lora: Lora,
    start: Adapters,
    head: TaskHead,
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
        config: impl Into<OptimizerConfig>,
    ) -> Result<Self> {
        check_adapters(model.spec(), lora, start)?;
        Ok(Self {
            model,
            lora,
            start: start.clone(),
            head: task_head(model, &start.head)?,
            trainable: Trainable::new(start.vectors(), config.into(), model.device())?,
        })
    }

    /// Forward, loss, backward and update for one mini-batch; returns the mean cross-entropy.
    ///
    /// # Errors
    /// Shapes that do not fit the model.
    pub fn step(&mut self, inputs: &Inputs, labels: &Labels, step: Step) -> Result<f32> {
        let lora = self.lora.training(step.dropout_seed);
        let tensors = self.trainable.tensors();
        let head = &tensors[tensors.len() - self.head.trained()..];
        let features = features(self.model, lora, tensors, &self.head, inputs)?;
        let loss = self.head.loss(&features, head, lora, labels)?;
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
