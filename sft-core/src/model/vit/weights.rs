//! The parameters of a vision transformer by name.

use std::collections::HashMap;

use candle_core::{Device, Result as TensorResult, Tensor};
use rand_distr::{Distribution, Normal};

use super::VitConfig;
use crate::layers::{NormKind, NormWeights};
use crate::model::checkpoint::{NamedWeights, Weight, checked};
use crate::model::half::below;
use crate::seed;

/// Every parameter of a [`VitConfig`] but the head's, present and of the right shape: tensors in
/// memory, or places in a file that each is read from when it is asked for.
#[derive(Clone, Debug)]
pub struct VitWeights(pub(super) NamedWeights);

impl VitWeights {
    /// Takes what `config` lists out of `tensors`, as f32; others are left out.
    ///
    /// # Errors
    /// The first tensor that is missing, misshapen or not a float, named.
    pub fn new(config: &VitConfig, tensors: &HashMap<String, Tensor>) -> Result<Self, String> {
        let tensors = tensors.iter();
        let weights = tensors.map(|(name, tensor)| (name.clone(), tensor.clone().into()));
        Self::select(config, &weights.collect(), config.num_hidden_layers)
    }

    /// Weights before any training: matrices, class token and positions from N(0, 0.02^2), biases 0,
    /// factors 1.
    pub(super) fn untrained(config: &VitConfig, seed: u64) -> TensorResult<Self> {
        let mut rng = seed::rng(seed, &[seed::WEIGHTS]);
        let parameters = config.parameters().into_iter().map(|(name, shape)| {
            let normal = Normal::new(0.0f32, 0.02).map_err(candle_core::Error::wrap)?;
            let values: Vec<f32> = match shape.as_slice() {
                [n] if name.rsplit('.').next() == Some("bias") => vec![0.0; *n],
                [n] => vec![1.0; *n],
                _ => normal
                    .sample_iter(&mut rng)
                    .take(shape.iter().product())
                    .collect(),
            };
            let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
            Ok((name, tensor.into()))
        });
        parameters.collect::<TensorResult<_>>().map(Self)
    }

    /// The same of tensors that may be in a file, of the first `blocks` blocks.
    pub(super) fn select(
        config: &VitConfig,
        weights: &HashMap<String, Weight>,
        blocks: usize,
    ) -> Result<Self, String> {
        let parameters = below(&config.spec(), blocks, config.parameters()).into_iter();
        let checked = parameters.map(|(name, shape)| {
            let weight = checked(weights, &name, &shape)?.clone();
            Ok((name, weight))
        });
        checked.collect::<Result<_, _>>().map(Self)
    }

    /// The layer normalisation at a path.
    pub(super) fn norm(&self, path: &str, eps: f64) -> TensorResult<NormWeights> {
        Ok(NormWeights {
            gain: self.0.get(&format!("{path}.weight"))?,
            bias: Some(self.0.get(&format!("{path}.bias"))?),
            eps,
            kind: NormKind::Layer,
        })
    }
}
