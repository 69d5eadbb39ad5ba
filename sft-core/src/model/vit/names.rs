//! Other names of the same parameters: timm's, and those of modules in transformers 5.

use std::collections::HashMap;

use super::VitConfig;
use super::config::block_path;
use super::infer::infer_config;
use crate::model::checkpoint::Weight;

/// Renames parameters to those of Hugging Face's checkpoints and splits timm's fused qkv;
/// what has another name passes unchanged. A model without a head may leave out `vit.`.
pub(super) fn as_checkpoint(
    tensors: Vec<(String, Weight)>,
) -> Result<HashMap<String, Weight>, String> {
    let mut renamed = HashMap::with_capacity(tensors.len());
    let mut put = |name: String, tensor: Weight, as_stored: &str| {
        let twice = format!("tensor {as_stored} is a second {name}");
        let before = renamed.insert(name, tensor);
        before.map_or(Ok(()), |_| Err(twice))
    };
    for (name, tensor) in tensors {
        let prefixes = [
            "blocks.",
            "vit.layers.",
            "layers.",
            "encoder.layer.",
            "dinov2.encoder.layer.",
        ];
        let rest = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix));
        match rest.and_then(|rest| rest.split_once('.')) {
            Some((block, rest)) if rest.starts_with("attn.qkv.") => {
                let path = format!("{}.attention.attention", block_path(block));
                let part = rest.trim_start_matches("attn.qkv.");
                let linears = ["query", "key", "value"].into_iter();
                for (linear, third) in linears.zip(thirds(&name, &tensor)?) {
                    put(format!("{path}.{linear}.{part}"), third, &name)?;
                }
            }
            Some((block, rest)) => match in_block(rest) {
                // A name that timm's blocks are not known by stays as it is.
                same if same == rest && name.starts_with("blocks.") => {
                    put(name.clone(), tensor, &name)?;
                }
                known => put(format!("{}.{known}", block_path(block)), tensor, &name)?,
            },
            None => put(outside(&name), tensor, &name)?,
        }
    }
    Ok(renamed)
}

/// Whether these are the names of a timm model.
pub(super) fn are_timm<'n>(mut names: impl Iterator<Item = &'n str>) -> bool {
    names.any(|name| name.starts_with("blocks."))
}

/// The epsilon of timm's vision transformers, which its `config.json` does not name.
pub(super) const TIMM_EPS: f64 = 1e-6;

/// The sizes inferred from a timm model, with timm's epsilon, and heads as the architecture's name
/// tells where they are not given.
pub(super) fn timm_config(
    json: &serde_json::Value,
    heads: Option<usize>,
    tensors: &HashMap<String, Weight>,
) -> Result<VitConfig, String> {
    let Some(name) = json["architecture"].as_str() else {
        let got = &json["architecture"];
        return Err(format!(
            "config.json: architecture must be a vit, got {got}"
        ));
    };
    let Some(size) = name.strip_prefix("vit_") else {
        return Err(format!(
            "config.json: architecture must be a vit, got {name:?}"
        ));
    };
    let heads = heads.or(match size.split('_').next() {
        Some("tiny") => Some(3),
        Some("small") => Some(6),
        Some("base") => Some(12),
        Some("large" | "huge" | "giant" | "gigantic") => Some(16),
        _ => None,
    });
    let Some(heads) = heads else {
        return Err(format!(
            "config.json: the number of heads of {name:?} is not known: give it"
        ));
    };
    Ok(VitConfig {
        layer_norm_eps: TIMM_EPS,
        ..infer_config(tensors, Some(heads))?
    })
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
        ("ls1.gamma", "layer_scale1.lambda1"),
        ("ls2.gamma", "layer_scale2.lambda1"),
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
        ("embeddings", "vit.embeddings"),
        ("dinov2.embeddings", "vit.embeddings"),
        ("dinov2.layernorm", "vit.layernorm"),
        ("layernorm", "vit.layernorm"),
        ("pooler", "vit.pooler"),
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
