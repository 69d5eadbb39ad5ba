//! The sizes of a vision transformer that has no configuration, from its tensors.

use std::collections::HashMap;

use super::VitConfig;
use super::config::block_path;
use crate::model::checkpoint::Weight;

/// The sizes that the tensors' shapes tell, with these heads or width / 64.
pub(super) fn infer_config(
    tensors: &HashMap<String, Weight>,
    heads: Option<usize>,
) -> Result<VitConfig, String> {
    let dims = |name: &str, rank: usize| match tensors.get(name) {
        Some(tensor) if tensor.dims().len() == rank => Ok(tensor.dims().to_vec()),
        Some(tensor) => Err(format!(
            "tensor {name} has shape {:?}, expected {rank} dimensions",
            tensor.dims()
        )),
        None => Err(format!(
            "missing tensor {name}: neither a Hugging Face nor a timm ViT"
        )),
    };
    let patch = dims("vit.embeddings.patch_embeddings.projection.weight", 4)?;
    let tokens = dims("vit.embeddings.position_embeddings", 3)?[1];
    let side = (tokens.saturating_sub(1) as f64).sqrt().round() as usize;
    let mlp = dims("vit.encoder.layer.0.intermediate.dense.weight", 2)?[0];
    Ok(VitConfig {
        hidden_size: patch[0],
        num_hidden_layers: blocks(tensors),
        num_attention_heads: heads.map_or_else(|| default_heads(patch[0]), Ok)?,
        intermediate_size: mlp,
        image_size: side * patch[2],
        patch_size: patch[2],
        num_channels: patch[1],
        qkv_bias: has_qkv_bias(tensors),
        layer_scale: has_layer_scale(tensors),
        ..VitConfig::default()
    })
}

fn layer_prefix(index: usize) -> String {
    format!("{}.", block_path(index))
}

/// Blocks that have tensors.
pub(super) fn blocks(tensors: &HashMap<String, Weight>) -> usize {
    let has_block = |i: &usize| tensors.keys().any(|k| k.starts_with(&layer_prefix(*i)));
    (0..tensors.len()).take_while(has_block).count()
}

pub(super) fn has_qkv_bias(tensors: &HashMap<String, Weight>) -> bool {
    tensors.contains_key("vit.encoder.layer.0.attention.attention.query.bias")
}

pub(super) fn has_layer_scale(tensors: &HashMap<String, Weight>) -> bool {
    tensors.contains_key("vit.encoder.layer.0.layer_scale1.lambda1")
}

/// One head for every 64 features, at least one; wider models are known to do otherwise.
fn default_heads(width: usize) -> Result<usize, String> {
    if width > 1024 || width > 64 && !width.is_multiple_of(64) {
        return Err(format!(
            "the number of heads at width {width} is not known: give it"
        ));
    }
    Ok((width / 64).max(1))
}
