//! The frozen layer between the last hidden state and the head of models like BERT.

use candle_core::{Result, Tensor};

use super::names::PoolerActivation;
use super::{TextConfig, TextWeights};
use crate::layers::{Backend, LinearWeights, bytes};

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
    /// That of a model; none of a family without.
    pub(super) fn new(
        config: &TextConfig,
        weights: &TextWeights,
        backend: &Backend,
    ) -> Result<Option<Self>> {
        let Some((path, activation)) = config.family.names().pooler else {
            return Ok(None);
        };
        let LinearWeights { weight, bias } = weights.linear(path)?;
        let bias = bias.map_or_else(
            || Tensor::zeros(config.width, weight.dtype(), weight.device()),
            Ok,
        )?;
        Ok(Some(Self {
            weight: weight.to_device(backend.device())?,
            bias: bias.to_device(backend.device())?,
            activation,
        }))
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
