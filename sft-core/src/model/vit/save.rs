//! The tuned model as one model, for whoever knows no adapters.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::{Map, Value, json};

use super::config::{SCALED, block_path};
use super::{PretrainedVit, preprocessor};
use crate::adapter::{AdaptedLayer, Adapters, Lora, adapted_layers, check_adapters, check_head};
use crate::atomic_write::write_whole;
use crate::{Error, Result};

/// Writes the tuned model as Hugging Face's `ViTForImageClassification`, which scaled branches are
/// folded into: `model.safetensors`, `config.json`, and `preprocessor_config.json` with what
/// [`PretrainedVit::input`] says of images.
pub(super) fn save_merged(
    folder: &Path,
    base: &PretrainedVit,
    lora: Option<Lora>,
    adapters: &Adapters,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let path = folder.join("model.safetensors");
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let bytes = safetensors::serialize(merged(base, lora, adapters)?, Some(metadata));
    write_whole(&path, &bytes.map_err(|e| Error::file(&path, e))?)?;
    let files = [
        ("config.json", config(base, adapters.head.classes())),
        ("preprocessor_config.json", preprocessor::write(&base.input)),
    ];
    for (name, json) in files {
        write_whole(&folder.join(name), format!("{json:#}\n").as_bytes())?;
    }
    Ok(())
}

fn merged(
    base: &PretrainedVit,
    lora: Option<Lora>,
    adapters: &Adapters,
) -> Result<HashMap<String, Tensor>> {
    let (spec, parameters) = (base.config.spec(), base.config.parameters());
    let mut tensors = HashMap::with_capacity(parameters.len() + 2);
    if let Some(lora) = lora {
        check_adapters(&spec, lora, adapters)?;
        for (name, _) in parameters {
            let weight = base.weights.get(&name)?;
            tensors.insert(name, weight);
        }
    } else {
        check_head(&spec, None, &adapters.head)?;
        if adapters.blocks.len() != parameters.len() {
            let (want, got) = (parameters.len(), adapters.blocks.len());
            let reason = format!("must be {want} parameters, got {got}");
            return Err(Error::argument("adapters", reason));
        }
        for ((name, shape), values) in parameters.into_iter().zip(&adapters.blocks) {
            tensors.insert(name, Tensor::from_slice(values, shape, &Device::Cpu)?);
        }
    }
    let (head, classes) = (&adapters.head, adapters.head.classes());
    let weight = Tensor::from_slice(&head.weight, (classes, spec.width), &Device::Cpu)?;
    let bias = Tensor::from_slice(&head.bias, classes, &Device::Cpu)?;
    tensors.insert(format!("{}.weight", spec.head.checkpoint), weight);
    tensors.insert(format!("{}.bias", spec.head.checkpoint), bias);
    for layer in lora.map_or(Vec::new(), |lora| adapted_layers(&spec, lora, adapters)) {
        add(&mut tensors, &layer)?;
    }
    if base.config.layer_scale {
        fold_scales(base.config.num_hidden_layers, &mut tensors)?;
    }
    Ok(tensors)
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

/// Adds `s B A` to the weight that an adapter is on.
fn add(tensors: &mut HashMap<String, Tensor>, adapted: &AdaptedLayer<'_>) -> Result<()> {
    let (rank, layer) = (adapted.rank, &adapted.layer);
    let a = Tensor::from_slice(adapted.a, (rank, layer.inputs), &Device::Cpu)?;
    let b = Tensor::from_slice(adapted.b, (layer.outputs, rank), &Device::Cpu)?;
    let change = (b.matmul(&a)? * adapted.scale)?;
    let name = format!("{}.weight", adapted.path.checkpoint);
    let weight = (&tensors[&name] + change.reshape(tensors[&name].shape())?)?;
    tensors.insert(name, weight);
    Ok(())
}

fn config(base: &PretrainedVit, classes: usize) -> Value {
    let label = |i: usize| format!("LABEL_{i}");
    let id2label: Map<_, _> = (0..classes)
        .map(|i| (i.to_string(), label(i).into()))
        .collect();
    let label2id: Map<_, _> = (0..classes).map(|i| (label(i), i.into())).collect();
    let mut config = json!(base.config);
    config["model_type"] = "vit".into();
    config["architectures"] = json!(["ViTForImageClassification"]);
    config["id2label"] = id2label.into();
    config["label2id"] = label2id.into();
    config
}
