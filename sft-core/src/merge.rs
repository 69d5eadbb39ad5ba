//! The tuned model as one model, for whoever knows no adapters.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::{Map, Value, json};

use crate::vit::block_path;
use crate::whole::write_whole;
use crate::{Adapters, Error, Lora, Pretrained, Result};

/// Writes `W + s B A` for every adapted weight, and everything else, as Hugging Face's
/// `ViTForImageClassification`: `model.safetensors`, `config.json`, `preprocessor_config.json`.
///
/// With `lora` the adapters are LoRA's; without it they are the weights themselves, as
/// [`Scheme::FlFull`](crate::Scheme::FlFull) leaves them. Each file appears whole or not at all.
///
/// # Errors
/// Adapters that do not fit the model, or a folder that cannot be written.
pub fn save_merged(
    folder: &Path,
    base: &Pretrained,
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
        ("preprocessor_config.json", preprocessor(base)),
    ];
    for (name, json) in files {
        write_whole(&folder.join(name), format!("{json:#}\n").as_bytes())?;
    }
    Ok(())
}

fn merged(
    base: &Pretrained,
    lora: Option<Lora>,
    adapters: &Adapters,
) -> Result<Vec<(String, Tensor)>> {
    let parameters = base.config.parameters();
    let mut vectors = match lora {
        Some(_) => base.weights.vectors(&base.config)?,
        None => adapters.blocks.clone(),
    };
    if let Some(lora) = lora {
        let places: HashMap<_, _> = (parameters.iter().enumerate())
            .map(|(place, (name, _))| (name.as_str(), place))
            .collect();
        add_adapters(base, lora, adapters, &places, &mut vectors)?;
    }
    if vectors.len() != parameters.len() {
        let (want, got) = (parameters.len(), vectors.len());
        let reason = format!("must be {want} parameters, got {got}");
        return Err(Error::argument("adapters", reason));
    }
    let mut tensors = Vec::with_capacity(parameters.len() + 2);
    for ((name, shape), values) in parameters.into_iter().zip(&vectors) {
        tensors.push((name, Tensor::from_slice(values, shape, &Device::Cpu)?));
    }
    let [weight, bias] = adapters.head.vars(&Device::Cpu)?;
    tensors.push(("classifier.weight".into(), weight.into_inner()));
    tensors.push(("classifier.bias".into(), bias.into_inner()));
    Ok(tensors)
}

/// Adds `s B A` to the adapted weights.
fn add_adapters(
    base: &Pretrained,
    lora: Lora,
    adapters: &Adapters,
    places: &HashMap<&str, usize>,
    vectors: &mut [Vec<f32>],
) -> Result<()> {
    let linears = base.config.linears();
    let (depth, length) = (base.config.num_hidden_layers, lora.parameters(&linears));
    if adapters.blocks.len() != depth || adapters.blocks.iter().any(|b| b.len() != length) {
        let reason = format!("must be {depth} vectors of {length} values");
        return Err(Error::argument("adapters", reason));
    }
    for (index, block) in adapters.blocks.iter().enumerate() {
        for (i, a, b) in lora.pairs(&linears, block) {
            let (rank, linear) = (lora.rank(), &linears[i]);
            let a = Tensor::from_slice(a, (rank, linear.inputs), &Device::Cpu)?;
            let b = Tensor::from_slice(b, (linear.outputs, rank), &Device::Cpu)?;
            let change = (b.matmul(&a)? * lora.scale())?.flatten_all()?;
            let name = format!("{}.{}.weight", block_path(index), linear.name);
            let weight = &mut vectors[places[name.as_str()]];
            for (weight, change) in weight.iter_mut().zip(change.to_vec1::<f32>()?) {
                *weight += change;
            }
        }
    }
    Ok(())
}

fn config(base: &Pretrained, classes: usize) -> Value {
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

fn preprocessor(base: &Pretrained) -> Value {
    let input = &base.input;
    json!({
        "image_processor_type": "ViTImageProcessor",
        "do_resize": true,
        "size": { "height": input.side, "width": input.side },
        "resample": 2,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": input.mean,
        "image_std": input.std,
    })
}
