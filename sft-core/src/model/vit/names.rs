//! Other names of the same parameters: timm's, and those of modules in transformers 5.

use std::collections::HashMap;

use super::VitConfig;
use crate::model::checkpoint::Weight;

/// Renames parameters to those of Hugging Face's checkpoints and splits timm's fused qkv;
/// what has another name passes unchanged.
pub(super) fn as_checkpoint(
    tensors: Vec<(String, Weight)>,
) -> Result<HashMap<String, Weight>, String> {
    let mut renamed = HashMap::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let timm = name
            .strip_prefix("blocks.")
            .and_then(|rest| rest.split_once('.'));
        let modules = name
            .strip_prefix("vit.layers.")
            .and_then(|rest| rest.split_once('.'));
        match timm.or(modules) {
            Some((block, rest)) if rest.starts_with("attn.qkv.") => {
                let path = format!("vit.encoder.layer.{block}.attention.attention");
                let part = rest.trim_start_matches("attn.qkv.");
                for (i, third) in thirds(&name, &tensor)?.into_iter().enumerate() {
                    let linear = ["query", "key", "value"][i];
                    renamed.insert(format!("{path}.{linear}.{part}"), third);
                }
            }
            Some((block, rest)) => {
                renamed.insert(
                    format!("vit.encoder.layer.{block}.{}", in_block(rest)),
                    tensor,
                );
            }
            None => {
                renamed.insert(outside(&name), tensor);
            }
        }
    }
    Ok(renamed)
}

/// The sizes inferred from a timm model, with timm's epsilon.
///
/// timm's `config.json` names the architecture but neither heads nor epsilon:
/// its vision transformers use 1e-6.
pub(super) fn timm_config(
    json: &serde_json::Value,
    inferred: VitConfig,
) -> Result<VitConfig, String> {
    match json["architecture"].as_str() {
        Some(name) if name.starts_with("vit_") => Ok(VitConfig {
            layer_norm_eps: 1e-6,
            ..inferred
        }),
        _ => Err(format!(
            "config.json: architecture must be a vit, got {}",
            json["architecture"]
        )),
    }
}

fn thirds(name: &str, tensor: &Weight) -> Result<[Weight; 3], String> {
    let thirds = tensor.thirds().map_err(|e| format!("tensor {name}: {e}"))?;
    thirds.ok_or_else(|| {
        let shape = tensor.dims();
        format!("tensor {name} has shape {shape:?}, expected three stacked parts")
    })
}

fn in_block(name: &str) -> String {
    let pairs = [
        ("attention.q_proj", "attention.attention.query"),
        ("attention.k_proj", "attention.attention.key"),
        ("attention.v_proj", "attention.attention.value"),
        ("attention.o_proj", "attention.output.dense"),
        ("norm1", "layernorm_before"),
        ("norm2", "layernorm_after"),
        ("attn.proj", "attention.output.dense"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
    ];
    rename(name, &pairs)
}

fn outside(name: &str) -> String {
    let pairs = [
        ("cls_token", "vit.embeddings.cls_token"),
        ("pos_embed", "vit.embeddings.position_embeddings"),
        (
            "patch_embed.proj",
            "vit.embeddings.patch_embeddings.projection",
        ),
        ("norm", "vit.layernorm"),
        ("head", "classifier"),
    ];
    rename(name, &pairs)
}

/// Replaces the first of the prefixes that ends where a path component ends.
fn rename(name: &str, pairs: &[(&str, &str)]) -> String {
    for (from, to) in pairs {
        if let Some(rest) = name.strip_prefix(from)
            && (rest.is_empty() || rest.starts_with('.'))
        {
            return format!("{to}{rest}");
        }
    }
    name.to_string()
}
