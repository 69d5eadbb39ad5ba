//! The device's half of a model: the embedding and the first blocks.

use std::collections::HashMap;

use candle_core::{Result as TensorResult, Tensor, bail};
use serde_json::Value;

use super::Pretrained;
use crate::Result;
use crate::adapter::ModelSpec;

/// How many blocks the files hold, in the `config.json` of a half.
pub(super) const BLOCKS: &str = "sft_blocks";

/// The blocks that the files hold, as their `config.json` says: all where it says nothing.
///
/// # Errors
/// Another number than 1 to `depth`.
pub(super) fn sent_blocks(said: Option<&Value>, depth: usize) -> Result<usize, String> {
    let Some(said) = said else {
        return Ok(depth);
    };
    let blocks = said.as_u64().map(|blocks| blocks as usize);
    let blocks = blocks.filter(|blocks| (1..=depth).contains(blocks));
    blocks.ok_or_else(|| format!("config.json: {BLOCKS} must be in 1..={depth}, got {said}"))
}

/// The parameters that are not in a block after the first `blocks`.
pub(super) fn below(
    spec: &ModelSpec,
    blocks: usize,
    mut parameters: Vec<(String, Vec<usize>)>,
) -> Vec<(String, Vec<usize>)> {
    parameters.retain(|(name, _)| block(spec, name).is_none_or(|index| index < blocks));
    parameters
}

/// The block that a parameter belongs to.
fn block(spec: &ModelSpec, name: &str) -> Option<usize> {
    let rest = name.strip_prefix(&spec.blocks.checkpoint)?;
    rest.strip_prefix('.')?.split('.').next()?.parse().ok()
}

/// The tensors of the embedding, the first blocks and what little is behind the last.
pub(super) fn half(base: &dyn Pretrained, blocks: usize) -> Result<HashMap<String, Tensor>> {
    let parameters = below(&base.spec(), blocks, base.parameters()).into_iter();
    let tensors = parameters.map(|(name, _)| Ok((name.clone(), base.weight(&name)?)));
    tensors.collect()
}

/// How many blocks there are weights for, from the first on.
pub(super) fn held_blocks(spec: &ModelSpec, holds: impl Fn(&str) -> bool) -> usize {
    let first = |index: usize| {
        let path = &spec.block_path(index).checkpoint;
        holds(&format!("{path}.{}.weight", spec.block[0].path.checkpoint))
    };
    (0..spec.depth).take_while(|&index| first(index)).count()
}

/// A block that is here.
pub(super) fn held_block<B>(blocks: &[B], index: usize) -> TensorResult<&B> {
    match blocks.get(index) {
        Some(block) => Ok(block),
        None => bail!(
            "block {index} is not here: the model has its first {} blocks",
            blocks.len()
        ),
    }
}
