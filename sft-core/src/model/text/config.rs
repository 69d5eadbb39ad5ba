//! The sizes of a text model and what its blocks are made of.

use std::cmp::Ordering;

use super::Pooling;
use super::names::{Qkv, TextFamily};
use super::read::read_config;
use crate::adapter::{LinearSpec, ModelSpec, Path};
use crate::layers::{Activation, Mask, NormKind, NormOrder, Rotary};

/// Sizes and constants of a text model, whatever its files call them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TextConfig {
    /// How its files name the parameters.
    pub family: TextFamily,
    /// Number of blocks, L.
    pub depth: usize,
    /// Features of a hidden state, D.
    pub width: usize,
    /// Heads of the queries, A.
    pub heads: usize,
    /// Heads of keys and values, each of which serves `heads / kv_heads` heads of queries.
    pub kv_heads: usize,
    /// Features of a head; the heads together may have others than D.
    pub head_width: usize,
    /// Width of the MLP.
    pub mlp_width: usize,
    /// Tokens of the vocabulary, V.
    pub vocabulary: usize,
    /// The most tokens of a sample.
    pub tokens: usize,
    /// Whether a language model's head is the embedding itself.
    pub tied_head: bool,
    pub(crate) norm: NormForm,
    pub(crate) attention: AttentionForm,
    pub(crate) mlp: MlpForm,
    pub(crate) embedding: EmbeddingForm,
}

/// Every norm of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct NormForm {
    pub(crate) kind: NormKind,
    pub(crate) eps: f64,
    pub(crate) order: NormOrder,
    /// Whether the gain is one more than what files have (Gemma).
    pub(crate) plus_one: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AttentionForm {
    /// Whether queries, keys and values have biases, and whether the output has.
    pub(crate) biases: [bool; 2],
    /// Whether each head's queries and keys are normalised.
    pub(crate) head_norms: bool,
    /// The factor of the scores.
    pub(crate) scale: f64,
    /// What the tokens of each block see, and how its queries and keys are rotated.
    pub(crate) blocks: Vec<(Mask, Option<Rotary>)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct MlpForm {
    pub(crate) activation: Activation,
    pub(crate) biases: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EmbeddingForm {
    /// The factor of the tokens' vectors, where they have one.
    pub(crate) scale: Option<f64>,
    /// Rows of the learned positions, of which the first token of a sample has row `first`.
    pub(crate) positions: usize,
    pub(crate) first: usize,
    /// Rows of the token types, of which all tokens have row 0.
    pub(crate) types: usize,
}

impl TextConfig {
    /// Reads the contents of Hugging Face's `config.json`.
    ///
    /// # Errors
    /// The setting that is missing, out of range, or asks for what is not done, with its value.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let json = serde_json::from_str(text).map_err(|e| e.to_string())?;
        read_config(&json)
    }

    /// What the model tells of itself, of a head that reads what the family's do: the linears of a
    /// block and the head.
    pub fn spec(&self) -> ModelSpec {
        let names = self.family.names();
        let linear = |(path, outputs, inputs): (&str, usize, usize)| LinearSpec {
            path: Path::same(path),
            inputs,
            outputs,
            kernel: None,
        };
        ModelSpec {
            depth: self.depth,
            width: self.width,
            tokens: self.tokens,
            grid: None,
            causal: self.family.is_decoder(),
            blocks: Path::same(names.at(names.blocks)),
            block: self.linears().into_iter().map(linear).collect(),
            fan_in_fan_out: names.is_transposed,
            embedding: Vec::new(),
            head: Path::same(names.head),
            head_bias: !self.family.is_decoder(),
            pooler: names.pooler.map(|(path, _)| Path::same(path)),
        }
    }

    /// The same where a head reads what `pooling` says: nothing but the family's is behind a pooler.
    pub(super) fn spec_with(&self, pooling: Pooling) -> ModelSpec {
        let mut spec = self.spec();
        spec.pooler = spec.pooler.filter(|_| pooling == Pooling::of(self.family));
        spec
    }

    /// The linears of a block in the order of the adapter vector: path, outputs, inputs.
    pub(super) fn linears(&self) -> Vec<(&'static str, usize, usize)> {
        let names = self.family.names();
        let (d, m) = (self.width, self.mlp_width);
        let (q, kv) = (
            self.heads * self.head_width,
            self.kv_heads * self.head_width,
        );
        let mut list = match names.qkv {
            Qkv::Apart([query, key, value]) => vec![(query, q, d), (key, kv, d), (value, kv, d)],
            Qkv::Fused(all) => vec![(all, q + 2 * kv, d)],
        };
        list.push((names.output, d, q));
        list.extend(names.gate.map(|gate| (gate, m, d)));
        list.extend([(names.up, m, d), (names.down, d, m)]);
        list
    }

    /// Name and shape of every parameter but the head's, in the order of the computation.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let (names, d, form) = (self.family.names(), self.width, self.embedding);
        let mut list = vec![(names.at(names.tokens), vec![self.vocabulary, d])];
        list.extend(
            names
                .positions
                .map(|path| (names.at(path), vec![form.positions, d])),
        );
        list.extend(
            names
                .types
                .map(|path| (names.at(path), vec![form.types, d])),
        );
        for (path, _) in &mut list {
            path.push_str(".weight");
        }
        list.extend(
            names
                .embedding_norm
                .iter()
                .flat_map(|path| self.norm(&names.at(path), d)),
        );
        for index in 0..self.depth {
            self.block_parameters(index, &mut list);
        }
        list.extend(
            names
                .final_norm
                .iter()
                .flat_map(|path| self.norm(&names.at(path), d)),
        );
        list.extend(self.pooler_parameters());
        list
    }

    /// Name and shape of the weight and the bias of the layer before the head, where it has one.
    pub(super) fn pooler_parameters(&self) -> Vec<(String, Vec<usize>)> {
        let (pooler, d) = (self.family.names().pooler, self.width);
        let both = |(path, _)| {
            [
                (format!("{path}.weight"), vec![d, d]),
                (format!("{path}.bias"), vec![d]),
            ]
        };
        pooler.into_iter().flat_map(both).collect()
    }

    pub(super) fn block_parameters(&self, index: usize, list: &mut Vec<(String, Vec<usize>)>) {
        let names = self.family.names();
        for (place, (below, outputs, inputs)) in self.linears().into_iter().enumerate() {
            let path = names.in_block(index, below);
            let biased = match place.cmp(&names.qkv.paths().len()) {
                Ordering::Less => self.attention.biases[0],
                Ordering::Equal => self.attention.biases[1],
                Ordering::Greater => self.mlp.biases,
            };
            list.push((format!("{path}.weight"), vec![outputs, inputs]));
            list.extend(biased.then(|| (format!("{path}.bias"), vec![outputs])));
        }
        let norms = names.norms.iter().chain(names.out_norms.iter().flatten());
        for below in norms {
            list.extend(self.norm(&names.in_block(index, below), self.width));
        }
        for below in names
            .head_norms
            .iter()
            .filter(|_| self.attention.head_norms)
        {
            list.extend(self.norm(&names.in_block(index, below), self.head_width));
        }
    }

    /// The parameters of a norm.
    fn norm(&self, path: &str, width: usize) -> Vec<(String, Vec<usize>)> {
        let mut list = vec![(format!("{path}.weight"), vec![width])];
        let biased = self.norm.kind == NormKind::Layer;
        list.extend(biased.then(|| (format!("{path}.bias"), vec![width])));
        list
    }
}
