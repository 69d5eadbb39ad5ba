//! The forward pass of the adapted model and its two parts.

use candle_core::Tensor;

use crate::head::Classifier;
use crate::{Lora, Model, Result};

/// The logits `[B, K]` of the whole model, given [`Adapters::vectors`] as tensors.
pub(crate) fn logits(
    model: &dyn Model,
    lora: Lora,
    vectors: &[Tensor],
    classifier: &Classifier,
    input: &Tensor,
) -> Result<Tensor> {
    let (device, head) = vectors.split_at(1 + model.depth());
    let hidden = lower(model, lora, device, input)?;
    upper(model, lora, head, classifier, &hidden)
}

/// The hidden state after the embedding and as many blocks as there are vectors behind the first.
pub(crate) fn lower(
    model: &dyn Model,
    lora: Lora,
    vectors: &[Tensor],
    input: &Tensor,
) -> Result<Tensor> {
    let embedded = model.embed(input, Some((&vectors[0], lora)))?;
    blocks(model, lora, 0, &vectors[1..], embedded)
}

/// The logits `[B, K]` for a hidden state before the last blocks, as many as there are vectors
/// before the head's.
pub(crate) fn upper(
    model: &dyn Model,
    lora: Lora,
    vectors: &[Tensor],
    classifier: &Classifier,
    hidden: &Tensor,
) -> Result<Tensor> {
    let (adapters, head) = vectors.split_at(vectors.len() - classifier.trained());
    let start = model.depth() - adapters.len();
    let hidden = blocks(model, lora, start, adapters, hidden.clone())?;
    classifier.logits(&model.features(&hidden)?, head, lora)
}

/// Runs the blocks from `start` on, as many as there are adapters.
fn blocks(
    model: &dyn Model,
    lora: Lora,
    start: usize,
    adapters: &[Tensor],
    hidden: Tensor,
) -> Result<Tensor> {
    (adapters.iter().zip(start..)).try_fold(hidden, |hidden, (adapter, index)| {
        Ok(model.block(index, &hidden, adapter, lora.in_block(index))?)
    })
}

/// The mean cross-entropy of a mini-batch.
pub(crate) fn cross_entropy(logits: &Tensor, labels: &[u32]) -> Result<Tensor> {
    let labels = Tensor::new(labels, logits.device())?;
    Ok(candle_nn::loss::cross_entropy(logits, &labels)?)
}
