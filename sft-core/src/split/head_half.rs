//! The head and the loss, on the side of the cut that has the labels.

use candle_core::Tensor;

use super::forward::task_head;
use crate::Result;
use crate::adapter::{Head, Lora, check_head};
use crate::data::Labels;
use crate::model::Model;
use crate::task::TaskHead;

/// The head without what is trained of it: that is with everything else that its side trains.
pub(super) struct HeadHalf {
    head: Head,
    task: TaskHead,
}

impl HeadHalf {
    pub(super) fn new(model: &dyn Model, lora: Lora, head: &Head) -> Result<Self> {
        check_head(model.spec(), Some(lora), head)?;
        Ok(Self {
            head: head.clone(),
            task: task_head(model, head)?,
        })
    }

    /// What labels must be below: the classes K, or the vocabulary V of a language model.
    pub(super) fn answers(&self) -> usize {
        match &self.task {
            TaskHead::Classes(_) => self.head.classes,
            TaskHead::Tokens(head) => head.vocabulary(),
        }
    }

    /// How many vectors [`Head::trained`] has.
    pub(super) fn trained(&self) -> usize {
        self.task.trained()
    }

    /// The mean loss for features `[B, D]`, or of tokens `[T, D]`, and [`Head::trained`] as tensors, a scalar.
    pub(super) fn loss(
        &self,
        features: &Tensor,
        trained: &[Tensor],
        lora: Lora,
        labels: &Labels,
    ) -> Result<Tensor> {
        self.task.loss(features, trained, lora, labels)
    }

    /// The head with these values for [`Head::trained`].
    pub(super) fn with_trained(&self, values: Vec<Vec<f32>>) -> Head {
        self.head.with_trained(values)
    }
}
