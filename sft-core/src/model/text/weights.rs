//! The parameters of a text model by name.

use std::collections::HashMap;

use candle_core::{Result as TensorResult, Tensor, bail};

use super::TextConfig;
use crate::layers::{LinearWeights, Matrix, NormKind, NormWeights};
use crate::model::checkpoint::{Weight, checked};
use crate::model::half::below;

/// The head of a language model where it is not the embedding.
pub(super) const LANGUAGE_HEAD: &str = "lm_head.weight";

/// Every parameter of a [`TextConfig`], present and of the right shape: tensors in memory, or places
/// in files that each is read from when it is asked for.
#[derive(Clone, Debug)]
pub struct TextWeights(HashMap<String, Weight>);

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
        Ok(Self(taken))
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
            return self
                .get(&format!("{}.weight", names.at(names.tokens)))
                .map(Some);
        }
        self.find(LANGUAGE_HEAD)
    }

    /// One parameter alone, where it is there.
    pub(super) fn only(&self, name: &str) -> Option<Self> {
        let weight = self.0.get(name)?.clone();
        Some(Self(HashMap::from([(name.into(), weight)])))
    }

    /// Puts another tensor of its shape in the place of a parameter.
    pub(super) fn replace(&mut self, name: &str, tensor: Tensor) {
        self.0.insert(name.into(), tensor.into());
    }

    /// Whether a parameter is there: those of the last blocks are not where another machine has them.
    pub(super) fn holds(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A parameter that the configuration lists.
    pub(super) fn get(&self, name: &str) -> TensorResult<Tensor> {
        match self.find(name)? {
            Some(tensor) => Ok(tensor),
            None => bail!("missing tensor {name}"),
        }
    }

    fn find(&self, name: &str) -> TensorResult<Option<Tensor>> {
        self.0.get(name).map(Weight::load).transpose()
    }

    fn matrix(&self, name: &str) -> TensorResult<Matrix> {
        match self.0.get(name) {
            Some(weight) => weight.matrix(),
            None => bail!("missing tensor {name}"),
        }
    }

    /// The same of files that this program wrote for itself: matrices may be left there.
    pub(super) fn mapped(self) -> Self {
        let weights = self.0.into_iter();
        Self(
            weights
                .map(|(name, weight)| (name, weight.mapped()))
                .collect(),
        )
    }

    /// The linear layer at a path.
    pub(super) fn linear(&self, path: &str) -> TensorResult<LinearWeights> {
        Ok(LinearWeights {
            weight: self.matrix(&format!("{path}.weight"))?,
            bias: self.find(&format!("{path}.bias"))?,
        })
    }

    /// The norm at a path.
    pub(super) fn norm(&self, config: &TextConfig, path: &str) -> TensorResult<NormWeights> {
        let form = config.norm;
        let gain = self.get(&format!("{path}.weight"))?;
        let bias = match form.kind {
            NormKind::Layer => Some(self.get(&format!("{path}.bias"))?),
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
