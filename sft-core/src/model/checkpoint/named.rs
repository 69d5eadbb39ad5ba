//! The parameters of a model by name.

use std::collections::HashMap;

use candle_core::{Result as TensorResult, Tensor, bail};

use super::Weight;
use crate::layers::{LinearWeights, Matrix};

/// Tensors by name, in memory or in files that each is read from when it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct NamedWeights(HashMap<String, Weight>);

impl FromIterator<(String, Weight)> for NamedWeights {
    fn from_iter<I: IntoIterator<Item = (String, Weight)>>(weights: I) -> Self {
        Self(weights.into_iter().collect())
    }
}

impl NamedWeights {
    /// Whether a parameter is there: those of the last blocks are not where another machine has them.
    pub(crate) fn holds(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A parameter that must be there.
    pub(crate) fn get(&self, name: &str) -> TensorResult<Tensor> {
        self.named(name)?.load()
    }

    /// A parameter that may be left out.
    pub(crate) fn find(&self, name: &str) -> TensorResult<Option<Tensor>> {
        self.0.get(name).map(Weight::load).transpose()
    }

    /// Where a parameter is, without reading it.
    pub(crate) fn place(&self, name: &str) -> Option<&Weight> {
        self.0.get(name)
    }

    /// The linear layer at a path.
    pub(crate) fn linear(&self, path: &str) -> TensorResult<LinearWeights> {
        Ok(LinearWeights {
            weight: self.matrix(&format!("{path}.weight"))?,
            bias: self.find(&format!("{path}.bias"))?,
        })
    }

    fn matrix(&self, name: &str) -> TensorResult<Matrix> {
        self.named(name)?.matrix()
    }

    fn named(&self, name: &str) -> TensorResult<&Weight> {
        match self.0.get(name) {
            Some(weight) => Ok(weight),
            None => bail!("missing tensor {name}"),
        }
    }

    /// Puts another tensor of its shape in the place of a parameter.
    pub(crate) fn replace(&mut self, name: &str, tensor: Tensor) {
        self.0.insert(name.into(), tensor.into());
    }

    /// The same of files that this program wrote for itself: matrices may be left there.
    pub(crate) fn mapped(self) -> Self {
        let weights = self.0.into_iter();
        weights
            .map(|(name, weight)| (name, weight.mapped()))
            .collect()
    }
}
