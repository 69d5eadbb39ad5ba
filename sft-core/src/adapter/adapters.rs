//! Everything that fine-tuning changes, as plain data.

use super::{Head, Lora, ModelSpec, Place};
use crate::seed;

/// Everything that fine-tuning changes: the adapters, and the head.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapters {
    /// The adapters before the blocks, `A` then `B` of each; empty where none is a target.
    pub embedding: Vec<f32>,
    /// One flat vector per block, `A` then `B` of each adapted linear, empty where the block is
    /// [frozen](Lora::with_frozen_blocks); of
    /// [`Scheme::FlFull`](crate::run::Scheme::FlFull), which tunes the weights themselves, one flat
    /// vector per parameter, in the model's order.
    pub blocks: Vec<Vec<f32>>,
    /// The head, or its adapter over a frozen head.
    pub head: Head,
}

impl Adapters {
    /// New adapters for every target in a model, with this head.
    pub fn new(spec: &ModelSpec, lora: Lora, head: Head, seed: u64) -> Self {
        let block = |i| {
            let mut rng = seed::rng(seed, &[seed::ADAPTER, i as u64]);
            let lora = lora.in_block(i);
            lora.initial(Place::Block, &spec.block, &mut rng)
        };
        let mut rng = seed::rng(seed, &[seed::EMBEDDING_ADAPTER]);
        Self {
            embedding: lora.initial(Place::Embedding, &spec.embedding, &mut rng),
            blocks: (0..spec.depth).map(block).collect(),
            head: head.with_new_adapter(lora, spec.width, seed),
        }
    }

    /// Every vector that is trained, in the order of messages: those before the blocks, the
    /// blocks', the head's.
    pub(crate) fn vectors(&self) -> impl Iterator<Item = &[f32]> {
        device_vectors(&self.embedding, &self.blocks).chain(self.head.trained())
    }

    /// The length of every vector.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        self.vectors().map(<[f32]>::len).collect()
    }

    /// The same with other values for [`Self::vectors`].
    pub(crate) fn with_vectors(&self, vectors: Vec<Vec<f32>>) -> Self {
        let mut vectors = vectors.into_iter();
        Self {
            embedding: vectors.next().unwrap_or_default(),
            blocks: vectors.by_ref().take(self.blocks.len()).collect(),
            head: self.head.with_trained(vectors),
        }
    }
}

/// Values cut into vectors of these lengths, which are theirs together.
pub(crate) fn cut_into(mut values: &[f32], lengths: &[usize]) -> Vec<Vec<f32>> {
    let mut part = |&length: &usize| {
        let (part, rest) = values.split_at(length);
        values = rest;
        part.to_vec()
    };
    lengths.iter().map(&mut part).collect()
}

/// What a device trains and sends: the adapters before the blocks, which may be empty, and the
/// first blocks'.
pub(crate) fn device_vectors<'a>(
    embedding: &'a [f32],
    blocks: &'a [Vec<f32>],
) -> impl Iterator<Item = &'a [f32]> {
    std::iter::once(embedding).chain(blocks.iter().map(Vec::as_slice))
}
