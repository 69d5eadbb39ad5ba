//! What a model is tuned for: its loss and its score.

/// The classification head on the device that computes it.
mod classifier;
/// Classification by cross-entropy.
mod classify;
/// Language modelling by the model's own head.
mod language;

use candle_core::Tensor;

pub(crate) use classifier::Classifier;
pub use classify::{correct, cross_entropy};
pub(crate) use language::LanguageHead;

use crate::Result;
use crate::adapter::Lora;
use crate::data::Labels;

/// How well labels are told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Labels that the largest logit is at.
    pub right: usize,
    /// Labels that count: samples, or next tokens.
    pub counted: usize,
    /// The sum of their cross-entropies, nat.
    pub loss: f64,
}

impl Score {
    /// The fraction of the labels that is told right.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.counted as f64
    }

    /// The mean cross-entropy of a label, nat.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.counted as f64
    }
}

/// A head where it is computed, without what is trained.
#[derive(Debug)]
pub(crate) enum TaskHead {
    /// A new one for classes, which reads one vector a sample.
    Classes(Classifier),
    /// A language model's own, which reads one vector a token.
    Tokens(LanguageHead),
}

impl TaskHead {
    /// Whether it reads features of tokens `[T, D]`, in place of those of samples `[B, D]`.
    pub(crate) fn reads_tokens(&self) -> bool {
        matches!(self, Self::Tokens(_))
    }

    /// How many vectors [`Head::trained`](crate::adapter::Head::trained) has.
    pub(crate) fn trained(&self) -> usize {
        match self {
            Self::Classes(classifier) => classifier.trained(),
            Self::Tokens(_) => 0,
        }
    }

    /// The logits, `[B, K]` or `[T, V]`, for features and what is trained of the head as tensors.
    pub(crate) fn logits(
        &self,
        features: &Tensor,
        trained: &[Tensor],
        lora: Lora,
    ) -> Result<Tensor> {
        match self {
            Self::Classes(classifier) => classifier.logits(features, trained, lora),
            Self::Tokens(head) => head.logits(features),
        }
    }

    /// The mean cross-entropy of the labels that count, a scalar.
    ///
    /// # Errors
    /// Labels of another kind or number than the features, or beyond the head's.
    pub(crate) fn loss(
        &self,
        features: &Tensor,
        trained: &[Tensor],
        lora: Lora,
        labels: &Labels,
    ) -> Result<Tensor> {
        match self {
            Self::Classes(_) => cross_entropy(&self.logits(features, trained, lora)?, labels),
            Self::Tokens(head) => head.loss(features, labels),
        }
    }

    /// How well labels are told.
    ///
    /// # Errors
    /// As [`Self::loss`].
    pub(crate) fn score(
        &self,
        features: &Tensor,
        trained: &[Tensor],
        lora: Lora,
        labels: &Labels,
    ) -> Result<Score> {
        match self {
            Self::Classes(_) => {
                let logits = self.logits(features, trained, lora)?;
                let (right, counted) = (correct(&logits, labels)?, labels.counted());
                let mean = cross_entropy(&logits, labels)?.to_scalar::<f32>()?;
                let loss = f64::from(mean) * counted as f64;
                Ok(Score {
                    right,
                    counted,
                    loss,
                })
            }
            Self::Tokens(head) => head.score(features, labels),
        }
    }
}

impl std::iter::Sum for Score {
    fn sum<I: Iterator<Item = Self>>(scores: I) -> Self {
        scores.fold(Self::default(), |a, b| Self {
            right: a.right + b.right,
            counted: a.counted + b.counted,
            loss: a.loss + b.loss,
        })
    }
}
