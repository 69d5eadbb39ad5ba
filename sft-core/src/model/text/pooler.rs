//! The frozen layer between the last hidden state and the head of models like BERT.

use candle_core::{Result, Tensor};

use super::TextWeights;
use super::names::PoolerActivation;
use crate::layers::{Backend, bytes};

/// `[D, D]` with a bias, then an activation.
///
/// A language model's files have none where only Transformers' classifiers do (`RoBERTa`, `DistilBERT`):
/// it is the identity there, so that the head reads the first token behind the activation.
#[derive(Clone, Debug)]
pub(super) struct Pooler {
    weight: Tensor,
    bias: Tensor,
    activation: PoolerActivation,
}

impl Pooler {
    /// The one in the weights at this path.
    pub(super) fn new(
        (path, activation): (&str, PoolerActivation),
        weights: &TextWeights,
        backend: &Backend,
    ) -> Result<Self> {
        let [weight, bias] = ["weight", "bias"].map(|part| {
            let tensor = weights.0.get(&format!("{path}.{part}"))?;
            tensor.to_device(backend.device())
        });
        Ok(Self {
            weight: weight?,
            bias: bias?,
            activation,
        })
    }

    /// Memory of the weights.
    pub(super) fn bytes(&self) -> usize {
        bytes(&self.weight) + bytes(&self.bias)
    }

    /// What the head reads `[B, D]` of rows `[B, D]`.
    pub(super) fn forward(&self, rows: &Tensor) -> Result<Tensor> {
        let rows = rows.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?;
        match self.activation {
            PoolerActivation::Tanh => rows.tanh(),
            PoolerActivation::Relu => rows.relu(),
        }
    }
}
