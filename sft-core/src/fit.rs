//! Whether adapters and a head fit a model.

use crate::{Adapters, Error, Head, Lora, Model, Result};

/// Adapters and a head for every part of the model.
pub(crate) fn check_adapters(model: &dyn Model, lora: Lora, adapters: &Adapters) -> Result<()> {
    let (got, depth) = (adapters.blocks.len(), model.depth());
    if got != depth {
        let reason = format!("must be for {depth} blocks, got {got}");
        return Err(Error::argument("adapters", reason));
    }
    check_patch(model, lora, &adapters.patch)?;
    check_blocks(model, lora, &adapters.blocks)?;
    check_head(model, Some(lora), &adapters.head)
}

/// An adapter of the right length for the patch embedding.
pub(crate) fn check_patch(model: &dyn Model, lora: Lora, patch: &[f32]) -> Result<()> {
    let (got, length) = (patch.len(), lora.patch_parameters(model.patch()));
    if got != length {
        let reason = format!("must have {length} values for the patch embedding, got {got}");
        return Err(Error::argument("adapters", reason));
    }
    Ok(())
}

/// Adapters for at most all blocks, each of the right length.
pub(crate) fn check_blocks(model: &dyn Model, lora: Lora, blocks: &[Vec<f32>]) -> Result<()> {
    let (depth, length) = (model.depth(), lora.parameters(model.linears()));
    if blocks.len() > depth || blocks.iter().any(|block| block.len() != length) {
        let got: Vec<_> = blocks.iter().map(Vec::len).collect();
        let want = format!("must be at most {depth} vectors of {length} values");
        let reason = format!("{want}, got lengths {got:?}");
        return Err(Error::argument("adapters", reason));
    }
    Ok(())
}

/// A head of at least one class and the model's width, with an adapter where `lora` has it
/// among its targets, and without one where there is no `lora`.
pub(crate) fn check_head(model: &dyn Model, lora: Option<Lora>, head: &Head) -> Result<()> {
    let (classes, width) = (head.classes(), model.width());
    if classes == 0 || head.weight.len() != classes * width {
        let weights = head.weight.len();
        let want = format!("must have at least one class and width {width}");
        let reason = format!("{want}, got {classes} classes and {weights} weights");
        return Err(Error::argument("head", reason));
    }
    let length = lora.map_or(0, |lora| lora.head_parameters(width, classes));
    let got = head.adapter.len();
    if got != length {
        let reason = format!("must have an adapter of {length} values, got {got}");
        return Err(Error::argument("head", reason));
    }
    Ok(())
}
