//! The layers that get an adapter.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{LinearSpec, ModelSpec};
use crate::{Error, Result};

/// Every linear layer of the blocks, by PEFT's name for it.
const ALL_LINEAR: &str = "all-linear";

/// The layers that get an adapter, as PEFT's `target_modules` names them: a layer is a target if its
/// path is one of the names or ends with one, such as `q_proj`; `all-linear` stands for every
/// linear layer of the blocks. Written as one text, the names are separated by commas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetModules(Vec<String>);

impl Default for TargetModules {
    /// Every linear layer of the blocks, as in the paper.
    fn default() -> Self {
        Self(vec![ALL_LINEAR.into()])
    }
}

impl TargetModules {
    /// The layers of a model that have these names.
    ///
    /// # Errors
    /// A name that no layer has; the message lists those there are.
    pub fn resolve(&self, spec: &ModelSpec) -> Result<Targets> {
        let mut targets = Targets::NONE;
        for name in &self.0 {
            let found = places(name, spec);
            if found == Targets::NONE {
                let known = spec.modules().join(", ");
                let reason = format!("must be {ALL_LINEAR} or some of {known}, got {name:?}");
                return Err(Error::argument("targets", reason));
            }
            targets = targets.or(found);
        }
        Ok(targets.in_model(spec))
    }
}

/// The layers that one name means.
fn places(name: &str, spec: &ModelSpec) -> Targets {
    if name == ALL_LINEAR {
        return Targets::ALL_LINEAR;
    }
    let named = |layers: &[LinearSpec]| {
        let layers = layers.iter().enumerate();
        let named = layers.filter(|(_, layer)| layer.path.ends_with(name));
        named.fold(0, |bits, (i, _)| bits | 1 << i)
    };
    Targets {
        block: named(&spec.block),
        embedding: named(&spec.embedding),
        head: spec.head.ends_with(name),
    }
}

impl FromStr for TargetModules {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<_> = text
            .split(',')
            .map(|name| name.trim().to_string())
            .collect();
        if names.iter().any(String::is_empty) {
            return Err(format!(
                "expected names of modules with commas between, or {ALL_LINEAR}"
            ));
        }
        Ok(Self(names))
    }
}

impl fmt::Display for TargetModules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl TryFrom<String> for TargetModules {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<TargetModules> for String {
    fn from(targets: TargetModules) -> Self {
        targets.to_string()
    }
}

/// A layer that may take an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// This one of [`ModelSpec::block`], in any block.
    Block(usize),
    /// This one of [`ModelSpec::embedding`].
    Embedding(usize),
    /// The head.
    Head,
}

/// The same layers as places in a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// A bit for each of [`ModelSpec::block`]; those of layers that are not there mean nothing.
    block: u64,
    /// A bit for each of [`ModelSpec::embedding`].
    embedding: u64,
    head: bool,
}

impl Targets {
    /// Every linear layer of the blocks, of any model.
    pub const ALL_LINEAR: Self = Self {
        block: u64::MAX,
        embedding: 0,
        head: false,
    };
    /// No layer: the frozen model with a head.
    pub(crate) const NONE: Self = Self {
        block: 0,
        embedding: 0,
        head: false,
    };

    /// Whether this layer gets an adapter.
    pub fn contains(self, place: Place) -> bool {
        let bit = |bits: u64, i: usize| i < u64::BITS as usize && bits >> i & 1 == 1;
        match place {
            Place::Block(i) => bit(self.block, i),
            Place::Embedding(i) => bit(self.embedding, i),
            Place::Head => self.head,
        }
    }

    /// Whether a layer before the blocks gets an adapter.
    pub(crate) fn are_before_blocks(self) -> bool {
        self.embedding != 0
    }

    /// The same and this layer.
    #[must_use]
    pub(crate) fn with(mut self, place: Place) -> Self {
        match place {
            Place::Block(i) => self.block |= 1 << i,
            Place::Embedding(i) => self.embedding |= 1 << i,
            Place::Head => self.head = true,
        }
        self
    }

    fn or(self, other: Self) -> Self {
        Self {
            block: self.block | other.block,
            embedding: self.embedding | other.embedding,
            head: self.head || other.head,
        }
    }

    /// The names of the layers in a model.
    pub fn modules(self, spec: &ModelSpec) -> TargetModules {
        let block = spec.block.iter().enumerate();
        let block = block.filter(|(i, _)| self.contains(Place::Block(*i)));
        let block = block.map(|(_, layer)| spec.module(layer).to_string());
        let mut names: Vec<_> = block.collect();
        if names.len() == spec.block.len() {
            names = vec![ALL_LINEAR.into()];
        }
        let embedding = spec.embedding.iter().enumerate();
        let embedding = embedding.filter(|(i, _)| self.contains(Place::Embedding(*i)));
        names.extend(embedding.map(|(_, layer)| layer.module().to_string()));
        names.extend(self.head.then(|| spec.head.module.clone()));
        TargetModules(names)
    }

    /// The same layers of a model in one form: all of its linears are [`Self::ALL_LINEAR`].
    pub(crate) fn in_model(self, spec: &ModelSpec) -> Self {
        let all = (0..spec.block.len()).all(|i| self.contains(Place::Block(i)));
        let block = if all { u64::MAX } else { self.block };
        Self { block, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::Path;

    fn spec() -> ModelSpec {
        let linear = |checkpoint: &str, module: &str| LinearSpec {
            path: Path::new(checkpoint, module),
            inputs: 4,
            outputs: 4,
            kernel: None,
        };
        ModelSpec {
            depth: 2,
            width: 4,
            tokens: 5,
            grid: None,
            causal: false,
            blocks: Path::new("encoder.layer", "layers"),
            block: vec![
                linear("attention.query", "self_attn.q_proj"),
                linear("attention.output.dense", "self_attn.o_proj"),
                linear("output.dense", "mlp.down_proj"),
            ],
            fan_in_fan_out: false,
            embedding: vec![linear("embeddings.projection", "embeddings.projection")],
            head: Path::same("classifier"),
            head_bias: true,
            pooler: None,
        }
    }

    #[test]
    fn names_mean_what_they_mean_to_peft() {
        let of = |text: &str| {
            let modules: TargetModules = text.parse().unwrap();
            modules
                .resolve(&spec())
                .unwrap()
                .modules(&spec())
                .to_string()
        };
        for text in [
            "q_proj",
            "q_proj,down_proj",
            "all-linear",
            "o_proj,projection,classifier",
        ] {
            assert_eq!(of(text), text);
        }
        assert_eq!(of("self_attn.q_proj"), "q_proj");
        assert_eq!(of("dense"), "o_proj,down_proj");
        assert_eq!(of("attention.output.dense"), "o_proj");
        assert_eq!(of("q_proj,o_proj,down_proj"), "all-linear");
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        for text in ["proj", "q", "layers", "q_proj,wq"] {
            let modules: TargetModules = text.parse().unwrap();
            let error = modules.resolve(&spec()).unwrap_err().to_string();
            let wanted = "targets must be all-linear or some of q_proj, o_proj, down_proj, \
                          projection, classifier, got ";
            assert!(error.starts_with(wanted), "{text}: {error}");
        }
        for text in ["", "q_proj,", ","] {
            assert!(text.parse::<TargetModules>().is_err(), "{text}");
        }
    }
}
