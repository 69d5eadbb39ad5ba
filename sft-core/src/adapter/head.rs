//! The head as plain data: trained in full, or frozen under an adapter.

use serde::{Deserialize, Serialize};

use super::lora::normal;
use super::{Lora, Place};
use crate::seed;

/// The classification head; without weights where a language model's own, which is frozen, is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Number of classes, K.
    pub classes: usize,
    /// `[K, D]`, row by row.
    pub weight: Vec<f32>,
    /// `[K]`; empty where the model's heads have none, as those of decoders.
    pub bias: Vec<f32>,
    /// LoRA's `A` `[r, D]`, then `B` `[K, r]`, where the head is among the targets: weight and bias
    /// are frozen then. Empty where they are trained themselves.
    pub adapter: Vec<f32>,
}

impl Head {
    /// A new head for `classes` classes, without adapter: weights from N(0, 0.02^2), bias 0.
    pub fn new(classes: usize, width: usize, seed: u64) -> Self {
        let mut rng = seed::rng(seed, &[seed::HEAD]);
        let weight = (0..classes * width)
            .map(|_| (0.02 * normal(&mut rng)) as f32)
            .collect();
        Self {
            classes,
            weight,
            bias: vec![0.0; classes],
            adapter: Vec::new(),
        }
    }

    /// No head of its own: the language model's, which is frozen, tells the next tokens.
    pub fn none() -> Self {
        Self {
            classes: 0,
            weight: Vec::new(),
            bias: Vec::new(),
            adapter: Vec::new(),
        }
    }

    /// Whether it is the language model's.
    pub fn is_none(&self) -> bool {
        self.classes == 0 && self.weight.is_empty()
    }

    /// The same head without its bias, for a model whose [`heads have none`](super::ModelSpec::head_bias).
    #[must_use]
    pub fn without_bias(self) -> Self {
        let bias = Vec::new();
        Self { bias, ..self }
    }

    /// The same head with a new adapter, where it is among the targets, else without one.
    #[must_use]
    pub(crate) fn with_new_adapter(self, lora: Lora, width: usize, seed: u64) -> Self {
        if self.is_none() {
            return self;
        }
        let mut rng = seed::rng(seed, &[seed::HEAD_ADAPTER]);
        let adapter = lora.initial_of(Place::Head, [width, self.classes], &mut rng);
        Self { adapter, ..self }
    }

    /// The vectors that are trained: weight and bias, which may be empty, or the adapter; none of the
    /// language model's.
    pub(crate) fn trained(&self) -> Vec<&[f32]> {
        if self.is_none() {
            return Vec::new();
        }
        match self.adapter.as_slice() {
            [] => vec![&self.weight, &self.bias],
            adapter => vec![adapter],
        }
    }

    /// The same head with other values for [`Self::trained`].
    pub(crate) fn with_trained(&self, vectors: impl IntoIterator<Item = Vec<f32>>) -> Self {
        let mut head = self.clone();
        let places = match head.adapter.as_slice() {
            [] => vec![&mut head.weight, &mut head.bias],
            _ => vec![&mut head.adapter],
        };
        for (place, values) in places.into_iter().zip(vectors) {
            *place = values;
        }
        head
    }
}
