//! The forward pass of the adapted model and its two parts.

use candle_core::Tensor;

use crate::Result;
use crate::adapter::Lora;
use crate::data::Inputs;
use crate::model::{Hidden, Model};
use crate::task::Classifier;

/// The logits `[B, K]` of the whole model, given what is trained as tensors.
pub(crate) fn logits(
    model: &dyn Model,
    lora: Lora,
    vectors: &[Tensor],
    classifier: &Classifier,
    inputs: &Inputs,
) -> Result<Tensor> {
    let (device, head) = vectors.split_at(1 + model.spec().depth);
    let hidden = lower(model, lora, device, inputs)?;
    upper(model, lora, head, classifier, &hidden)
}

/// The hidden state after the embedding and as many blocks as there are vectors behind the first.
pub(crate) fn lower(
    model: &dyn Model,
    lora: Lora,
    vectors: &[Tensor],
    inputs: &Inputs,
) -> Result<Hidden> {
    let embedded = model.embed(inputs, Some((&vectors[0], lora)))?;
    blocks(model, lora, 0, &vectors[1..], embedded)
}

/// The logits `[B, K]` for a hidden state before the last blocks, as many as there are vectors
/// before the head's.
pub(crate) fn upper(
    model: &dyn Model,
    lora: Lora,
    vectors: &[Tensor],
    classifier: &Classifier,
    hidden: &Hidden,
) -> Result<Tensor> {
    let (adapters, head) = vectors.split_at(vectors.len() - classifier.trained());
    let features = features(model, lora, adapters, hidden)?;
    classifier.logits(&features, head, lora)
}

/// The features `[B, D]` for a hidden state before the last blocks, as many as there are vectors.
pub(crate) fn features(
    model: &dyn Model,
    lora: Lora,
    vectors: &[Tensor],
    hidden: &Hidden,
) -> Result<Tensor> {
    let start = model.spec().depth - vectors.len();
    let hidden = blocks(model, lora, start, vectors, hidden.clone())?;
    Ok(model.finish(&hidden)?)
}

/// Runs the blocks from `start` on, as many as there are adapters.
fn blocks(
    model: &dyn Model,
    lora: Lora,
    start: usize,
    adapters: &[Tensor],
    hidden: Hidden,
) -> Result<Hidden> {
    (adapters.iter().zip(start..)).try_fold(hidden, |hidden, (adapter, index)| {
        Ok(model.block(index, &hidden, adapter, lora.in_block(index))?)
    })
}
