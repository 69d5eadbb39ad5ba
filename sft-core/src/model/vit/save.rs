//! The tuned model as one model, for whoever knows no adapters.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use serde_json::{Map, Value, json};

use super::config::{SCALED, block_path};
use super::{PretrainedVit, preprocessor};
use crate::Result;
use crate::adapter::{Adapters, Lora};
use crate::model::half::{BLOCKS, half};
use crate::model::merged::{classify, merged, write_folder};

/// Writes the tuned model as Hugging Face's `ViTForImageClassification`, which scaled branches are
/// folded into: `model.safetensors`, `config.json`, and `preprocessor_config.json` with what
/// [`PretrainedVit::input`] says of images.
pub(super) fn save_merged(
    folder: &Path,
    base: &PretrainedVit,
    lora: Option<Lora>,
    adapters: &Adapters,
) -> Result<()> {
    let mut tensors = merged(base, lora, adapters)?;
    if base.config.layer_scale {
        fold_scales(base.config.num_hidden_layers, &mut tensors)?;
    }
    let files = [
        ("config.json", config(base, adapters.head.classes)),
        ("preprocessor_config.json", preprocessor::write(&base.input)),
    ];
    write_folder(folder, tensors, &files)
}

/// Writes what a device needs of the model: the embedding and the first `blocks` blocks.
pub(super) fn save_half(folder: &Path, base: &PretrainedVit, blocks: usize) -> Result<()> {
    let mut config = named(base);
    config.insert(BLOCKS.into(), blocks.into());
    let files = [
        ("config.json", config.into()),
        ("preprocessor_config.json", preprocessor::write(&base.input)),
    ];
    write_folder(folder, half(base, blocks)?, &files)
}

/// Multiplies the factors of scaled branches into the linears before them, which
/// `ViTForImageClassification` has instead.
fn fold_scales(blocks: usize, tensors: &mut HashMap<String, Tensor>) -> Result<()> {
    for (path, (linear, scale)) in
        (0..blocks).flat_map(|i| SCALED.map(|scaled| (block_path(i), scaled)))
    {
        let Some(scale) = tensors.remove(&format!("{path}.{scale}")) else {
            continue;
        };
        for (part, factors) in [("weight", scale.unsqueeze(1)?), ("bias", scale)] {
            let name = format!("{path}.{linear}.{part}");
            let folded = tensors[&name].broadcast_mul(&factors)?;
            tensors.insert(name, folded);
        }
    }
    Ok(())
}

/// The sizes as a `config.json` has them.
fn named(base: &PretrainedVit) -> Map<String, Value> {
    let mut config = match json!(base.config) {
        Value::Object(config) => config,
        _ => Map::new(),
    };
    config.insert("model_type".into(), "vit".into());
    config
}

fn config(base: &PretrainedVit, classes: usize) -> Value {
    let mut config = named(base);
    classify(&mut config, "ViTForImageClassification", classes);
    config.into()
}
