//! The parameters of a text model by name.

use std::collections::HashMap;

use candle_core::{Result as TensorResult, Tensor};

use super::TextConfig;
use crate::layers::{NormKind, NormWeights};
use crate::model::checkpoint::{NamedWeights, Weight, checked};
use crate::model::half::below;

/// The head of a language model where it is not the embedding.
pub(super) const LANGUAGE_HEAD: &str = "lm_head.weight";

/// Every parameter of a [`TextConfig`], present and of the right shape: tensors in memory, or places
/// in files that each is read from when it is asked for.
#[derive(Clone, Debug)]
pub struct TextWeights(pub(super) NamedWeights);

impl TextWeights {
    /// Tensors by the names that `config` lists; variables stay variables.
    ///
    /// # Errors
    /// The first tensor that is missing or misshapen.
    pub fn new(config: &TextConfig, tensors: &HashMap<String, Tensor>) -> Result<Self, String> {
        let tensors = tensors.iter();
        let weights = tensors.map(|(name, tensor)| (name.clone(), tensor.clone().into()));
        Self::take(config, &mut weights.collect(), config.depth)
    }

    /// Takes what `config` lists, of the first `blocks` blocks, and the head of a language model that has
    /// its own, out of `weights`.
    pub(super) fn take(
        config: &TextConfig,
        weights: &mut HashMap<String, Weight>,
        blocks: usize,
    ) -> Result<Self, String> {
        let mut parameters = below(&config.spec(), blocks, config.parameters());
        if config.family.is_decoder() && weights.contains_key(LANGUAGE_HEAD) {
            parameters.push((LANGUAGE_HEAD.into(), vec![config.vocabulary, config.width]));
        }
        let mut taken = HashMap::with_capacity(parameters.len());
        for (name, shape) in parameters {
            checked(weights, &name, &shape)?;
            taken.extend(weights.remove_entry(&name));
        }
        if config.tied_head {
            taken.remove(LANGUAGE_HEAD);
        }
        Ok(Self(taken.into_iter().collect()))
    }

    /// What a language model multiplies features by, `[V, D]`: the embedding where the two are tied.
    ///
    /// None where the files have a head of neither kind, as those of classifiers.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub fn language_head(&self, config: &TextConfig) -> TensorResult<Option<Tensor>> {
        if !config.family.is_decoder() {
            return Ok(None);
        }
        if config.tied_head {
            let names = config.family.names();
            let embedding = format!("{}.weight", names.at(names.tokens));
            return self.0.get(&embedding).map(Some);
        }
        self.0.find(LANGUAGE_HEAD)
    }

    /// The norm at a path.
    pub(super) fn norm(&self, config: &TextConfig, path: &str) -> TensorResult<NormWeights> {
        let form = config.norm;
        let gain = self.0.get(&format!("{path}.weight"))?;
        let bias = match form.kind {
            NormKind::Layer => Some(self.0.get(&format!("{path}.bias"))?),
            NormKind::Rms => None,
        };
        Ok(NormWeights {
            gain: if form.plus_one { (gain + 1.0)? } else { gain },
            bias,
            eps: form.eps,
            kind: form.kind,
        })
    }
}
