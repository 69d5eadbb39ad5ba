//! Whether adapters and a head fit a model.

use super::{Adapters, Head, Lora, ModelSpec, Place};
use crate::{Error, Result};

/// Adapters and a head for every part of the model.
pub(crate) fn check_adapters(spec: &ModelSpec, lora: Lora, adapters: &Adapters) -> Result<()> {
    let (got, depth) = (adapters.blocks.len(), spec.depth);
    if got != depth {
        let reason = format!("must be for {depth} blocks, got {got}");
        return Err(Error::argument("adapters", reason));
    }
    check_embedding(spec, lora, &adapters.embedding)?;
    check_blocks(spec, lora, 0, &adapters.blocks)?;
    check_head(spec, Some(lora), &adapters.head)
}

/// Adapters of the right length before the blocks.
pub(crate) fn check_embedding(spec: &ModelSpec, lora: Lora, embedding: &[f32]) -> Result<()> {
    let (got, length) = (embedding.len(), lora.embedding_parameters(spec));
    if got != length {
        let reason = format!("must have {length} values before the blocks, got {got}");
        return Err(Error::argument("adapters", reason));
    }
    Ok(())
}

/// Adapters for the blocks from the one with index `first` on, at most all, each of the right
/// length.
pub(crate) fn check_blocks(
    spec: &ModelSpec,
    lora: Lora,
    first: usize,
    blocks: &[Vec<f32>],
) -> Result<()> {
    let (depth, length) = (spec.depth, lora.block_parameters(spec));
    let wrong = |(block, index): (&Vec<f32>, usize)| {
        block.len() != lora.in_block(index).block_parameters(spec)
    };
    if blocks.len() > depth || blocks.iter().zip(first..).any(wrong) {
        let got: Vec<_> = blocks.iter().map(Vec::len).collect();
        let frozen = match lora.frozen_blocks() {
            0 => String::new(),
            frozen => format!(", of none in the first {frozen} blocks"),
        };
        let want = format!("must be at most {depth} vectors of {length} values{frozen}");
        let reason = format!("{want}, got lengths {got:?}");
        return Err(Error::argument("adapters", reason));
    }
    Ok(())
}

/// Frozen blocks that leave a model of `depth` blocks something to train, and then no target before
/// the blocks.
pub(crate) fn check_frozen(lora: Lora, depth: usize) -> Result<()> {
    let frozen = lora.frozen_blocks();
    if frozen == 0 {
        return Ok(());
    }
    let accepted = format!("below {depth}, the model's blocks");
    Error::require(frozen < depth, "frozen_blocks", frozen, &accepted)?;
    if lora.targets().are_before_blocks() {
        let reason = "must name no layer before the blocks where a device has no adapters";
        return Err(Error::argument("targets", reason));
    }
    Ok(())
}

/// A head of at least one class and the model's width, with a bias where the model's heads have one,
/// with an adapter where `lora` has it among its targets, and without one where there is no `lora`;
/// or none, for the language model's.
pub(crate) fn check_head(spec: &ModelSpec, lora: Option<Lora>, head: &Head) -> Result<()> {
    let (classes, width) = (head.classes, spec.width);
    if head.is_none() && head.adapter.is_empty() {
        let adapted = lora.is_some_and(|lora| lora.targets().contains(Place::Head));
        let reason = "must not name the head of a language model, which is frozen";
        return if adapted {
            Err(Error::argument("targets", reason))
        } else {
            Ok(())
        };
    }
    let biases = if spec.head_bias { classes } else { 0 };
    if head.bias.len() != biases {
        let got = head.bias.len();
        let reason = format!("must have {biases} biases, got {got}");
        return Err(Error::argument("head", reason));
    }
    if classes == 0 || head.weight.len() != classes * width {
        let weights = head.weight.len();
        let want = format!("must have at least one class and width {width}");
        let reason = format!("{want}, got {classes} classes and {weights} weights");
        return Err(Error::argument("head", reason));
    }
    let length = lora.map_or(0, |lora| lora.head_parameters(spec, classes));
    let got = head.adapter.len();
    if got != length {
        let reason = format!("must have an adapter of {length} values, got {got}");
        return Err(Error::argument("head", reason));
    }
    Ok(())
}
