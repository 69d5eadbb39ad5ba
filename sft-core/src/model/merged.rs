//! A tuned model as one model, for whoever knows no adapters.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::{Map, Value, json};

use super::Pretrained;
use crate::adapter::{AdaptedLayer, Adapters, Lora, adapted_layers, check_adapters, check_head};
use crate::atomic_write::{write_tensors, write_whole};
use crate::{Error, Result};

/// Every weight by its name in the checkpoint, `W + s B A` where it is adapted, and the head, where it is
/// not a language model's own.
///
/// Without `lora` the adapters are the weights themselves.
pub(super) fn merged(
    base: &dyn Pretrained,
    lora: Option<Lora>,
    adapters: &Adapters,
) -> Result<HashMap<String, Tensor>> {
    let (spec, parameters) = (base.spec(), base.parameters());
    let mut tensors = HashMap::with_capacity(parameters.len() + 2);
    if let Some(lora) = lora {
        check_adapters(&spec, lora, adapters)?;
        for (name, _) in parameters {
            let weight = base.weight(&name)?;
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
    let (head, path) = (&adapters.head, &spec.head.checkpoint);
    if !head.is_none() {
        let weight = Tensor::from_slice(&head.weight, (head.classes, spec.width), &Device::Cpu)?;
        tensors.insert(format!("{path}.weight"), weight);
    }
    if !head.is_none() && spec.head_bias {
        let bias = Tensor::from_slice(&head.bias, head.classes, &Device::Cpu)?;
        tensors.insert(format!("{path}.bias"), bias);
    }
    for layer in lora.map_or(Vec::new(), |lora| adapted_layers(&spec, lora, adapters)) {
        add(&mut tensors, &layer)?;
    }
    Ok(tensors)
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

/// Writes a Hugging Face folder, each file whole or not at all: the tensors, then what is said of them.
pub(super) fn write_folder(
    folder: &Path,
    tensors: HashMap<String, Tensor>,
    files: &[(&str, Value)],
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let path = folder.join("model.safetensors");
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    write_tensors(&path, tensors, metadata)?;
    for (name, json) in files {
        write_whole(&folder.join(name), format!("{json:#}\n").as_bytes())?;
    }
    Ok(())
}

/// Says in a `config.json` which class of Transformers the model is, and what its classes are called.
pub(super) fn classify(config: &mut Map<String, Value>, architecture: &str, classes: usize) {
    let label = |i: usize| format!("LABEL_{i}");
    let id2label: Map<_, _> = (0..classes)
        .map(|i| (i.to_string(), label(i).into()))
        .collect();
    let label2id: Map<_, _> = (0..classes).map(|i| (label(i), i.into())).collect();
    config.insert("architectures".into(), json!([architecture]));
    config.insert("id2label".into(), id2label.into());
    config.insert("label2id".into(), label2id.into());
}
