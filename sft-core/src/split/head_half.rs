//! The head and the loss, on the side of the cut that has the labels.

use candle_core::Tensor;

use crate::Result;
use crate::adapter::{Head, Lora, check_head};
use crate::data::Labels;
use crate::model::Model;
use crate::task::{Classifier, cross_entropy};

/// The head without what is trained of it: that is with everything else that its side trains.
pub(super) struct HeadHalf {
    head: Head,
    classifier: Classifier,
}

impl HeadHalf {
    pub(super) fn new(model: &dyn Model, lora: Lora, head: &Head) -> Result<Self> {
        check_head(model.spec(), Some(lora), head)?;
        Ok(Self {
            head: head.clone(),
            classifier: Classifier::new(head, model.backend())?,
        })
    }

    /// Classes, K.
    pub(super) fn classes(&self) -> usize {
        self.head.classes()
    }

    /// How many vectors [`Head::trained`] has.
    pub(super) fn trained(&self) -> usize {
        self.classifier.trained()
    }

    /// The mean loss for features `[B, D]` and [`Head::trained`] as tensors, a scalar.
    pub(super) fn loss(
        &self,
        features: &Tensor,
        trained: &[Tensor],
        lora: Lora,
        labels: &Labels,
    ) -> Result<Tensor> {
        cross_entropy(&self.classifier.logits(features, trained, lora)?, labels)
    }

    /// The head with these values for [`Head::trained`].
    pub(super) fn with_trained(&self, values: Vec<Vec<f32>>) -> Head {
        self.head.with_trained(values)
    }
}
