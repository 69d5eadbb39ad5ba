//! The forward pass of the adapted model and its two parts.

use candle_core::Tensor;

use crate::adapter::{Head, Lora};
use crate::data::Inputs;
use crate::model::{Hidden, Model};
use crate::task::{Classifier, LanguageHead, TaskHead};
use crate::{Error, Result};

/// A head for classes, or where it is [none](Head::none) that of a language model.
///
/// # Errors
/// No classes, and a model that is no language model.
pub(crate) fn task_head(model: &dyn Model, head: &Head) -> Result<TaskHead> {
    let backend = model.backend();
    if !head.is_none() {
        return Ok(TaskHead::Classes(Classifier::new(head, backend)?));
    }
    let missing = || {
        let width = model.spec().width;
        let reason = format!("must have at least one class and width {width}, got none");
        Error::argument("head", reason)
    };
    let weight = model.language_head()?.ok_or_else(missing)?;
    Ok(TaskHead::Tokens(LanguageHead::new(weight, backend)))
}

/// What the head reads of the whole model, `[B, D]` or of tokens `[T, D]`, given all that is trained as
/// tensors.
pub(crate) fn features(
    model: &dyn Model,
    lora: Lora,
    vectors: &[Tensor],
    head: &TaskHead,
    inputs: &Inputs,
) -> Result<Tensor> {
    let embedded = model.embed(inputs, Some((&vectors[0], lora)))?;
    let blocks = &vectors[1..=model.spec().depth];
    upper(model, lora, blocks, head.reads_tokens(), &embedded)
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

/// What the head reads, of samples or of tokens, for a hidden state before the last blocks, as many as
/// there are adapters.
pub(crate) fn upper(
    model: &dyn Model,
    lora: Lora,
    adapters: &[Tensor],
    of_tokens: bool,
    hidden: &Hidden,
) -> Result<Tensor> {
    let start = model.spec().depth - adapters.len();
    if of_tokens {
        let hidden = blocks(model, lora, start, adapters, hidden.clone())?;
        return Ok(model.finish_tokens(&hidden)?);
    }
    let Some((last, before)) = adapters.split_last() else {
        return Ok(model.finish(hidden)?);
    };
    let hidden = blocks(model, lora, start, before, hidden.clone())?;
    let lora = lora.in_block(start + before.len());
    Ok(model.finish(&model.last_block(&hidden, last, lora)?)?)
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
