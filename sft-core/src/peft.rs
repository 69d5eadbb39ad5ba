//! Adapters as PEFT's folder: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};

use crate::vit::as_checkpoint;
use crate::whole::write_whole;
use crate::{Adapters, Error, Head, Lora, Model, Result, Targets};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
/// What PEFT puts before every name.
const PREFIX: &str = "base_model.model.";

/// How the modules are named that PEFT looks for in the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModuleNames {
    /// `vit.layers.0.attention.q_proj`: transformers 5.
    #[default]
    Transformers5,
    /// `vit.encoder.layer.0.attention.attention.query`: transformers 4, and all checkpoints.
    Transformers4,
}

impl ModuleNames {
    /// The name of a linear in configurations.
    fn linear(self, linear: usize, name: &'static str) -> &'static str {
        match self {
            Self::Transformers4 => name,
            Self::Transformers5 => ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"][linear],
        }
    }

    /// The path of a linear in a block, given the block's path in the checkpoint.
    fn path(self, block: &str, linear: usize, name: &str) -> String {
        match self {
            Self::Transformers4 => format!("{block}.{name}"),
            Self::Transformers5 => {
                let block = block.replace("vit.encoder.layer.", "vit.layers.");
                let part = if linear < 4 { "attention" } else { "mlp" };
                format!("{block}.{part}.{}", self.linear(linear, ""))
            }
        }
    }
}

/// Writes adapters and head as PEFT reads them: `PeftModel.from_pretrained(model, folder)`.
///
/// `A` is `[r, inputs]` and `B` `[outputs, r]`; the head is among `modules_to_save`. Each of the
/// two files appears whole or not at all, the tensors first.
///
/// # Errors
/// Adapters that do not fit the model, or a folder that cannot be written.
pub fn save_peft(
    folder: &Path,
    model: &dyn Model,
    lora: Lora,
    adapters: &Adapters,
    names: ModuleNames,
) -> Result<()> {
    crate::split::check_adapters(model, lora, &adapters.blocks)?;
    crate::split::check_head(model, &adapters.head)?;
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let path = folder.join(TENSORS);
    let tensors = named_tensors(model, lora, adapters, names)?;
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let bytes = safetensors::serialize(&tensors, Some(metadata));
    write_whole(&path, &bytes.map_err(|e| Error::file(&path, e))?)?;
    let config = config(model, lora, names);
    write_whole(&folder.join(CONFIG), format!("{config:#}\n").as_bytes())
}

/// The linears with adapters, each with its place in the model's list.
fn targets(model: &dyn Model, lora: Lora) -> impl Iterator<Item = (usize, &'static str)> {
    let linears = model.linears().iter().enumerate();
    linears
        .filter(move |(i, _)| lora.targets().contains(*i))
        .map(|(i, linear)| (i, linear.name))
        .collect::<Vec<_>>()
        .into_iter()
}

fn config(model: &dyn Model, lora: Lora, names: ModuleNames) -> Value {
    let targets: Vec<_> = targets(model, lora)
        .map(|(i, name)| names.linear(i, name))
        .collect();
    // PEFT compares ends of paths: `output.dense` is also the end of `attention.output.dense`.
    let [.., o, _, fc2] = [0, 1, 2, 3, 4, 5].map(|i| lora.targets().contains(i));
    let excluded = names == ModuleNames::Transformers4 && fc2 && !o;
    json!({
        "peft_type": "LORA",
        "base_model_name_or_path": null,
        "bias": "none",
        "exclude_modules": excluded.then_some(["attention.output.dense"]),
        "fan_in_fan_out": false,
        "inference_mode": true,
        "lora_alpha": lora.alpha(),
        "lora_dropout": lora.dropout(),
        "modules_to_save": [model.head_path()],
        "r": lora.rank(),
        "target_modules": targets,
        "task_type": null,
        "use_dora": false,
        "use_rslora": false,
    })
}

fn named_tensors(
    model: &dyn Model,
    lora: Lora,
    adapters: &Adapters,
    names: ModuleNames,
) -> Result<HashMap<String, Tensor>> {
    let mut tensors = HashMap::new();
    let mut put = |name: String, values: &[f32], shape: &[usize]| -> Result<()> {
        let tensor = Tensor::from_slice(values, shape, &Device::Cpu)?;
        tensors.insert(format!("{PREFIX}{name}"), tensor);
        Ok(())
    };
    for (index, block) in adapters.blocks.iter().enumerate() {
        for (i, a, b) in lora.pairs(model.linears(), block) {
            let linear = &model.linears()[i];
            let path = names.path(&model.block_path(index), i, linear.name);
            let (rank, inputs, outputs) = (lora.rank(), linear.inputs, linear.outputs);
            put(format!("{path}.lora_A.weight"), a, &[rank, inputs])?;
            put(format!("{path}.lora_B.weight"), b, &[outputs, rank])?;
        }
    }
    let (head, path) = (&adapters.head, model.head_path());
    let shape = [head.classes(), model.width()];
    put(format!("{path}.weight"), &head.weight, &shape)?;
    put(format!("{path}.bias"), &head.bias, &shape[..1])?;
    Ok(tensors)
}

/// Reads a folder that PEFT or [`save_peft`] wrote for `model`, with either naming of modules.
///
/// Which linears have adapters is read off the tensors; every block must have the same. `head` is
/// what the adapters were trained under, for folders without one.
///
/// # Errors
/// A file that cannot be read, another kind of adapter than plain LoRA of one rank, or tensors
/// that do not fit the model; the message names the file and the setting or tensor.
pub fn load_peft(
    folder: &Path,
    model: &dyn Model,
    head: Option<&Head>,
) -> Result<(Lora, Adapters)> {
    let path = folder.join(CONFIG);
    let text = std::fs::read_to_string(&path).map_err(|e| Error::file(&path, e))?;
    let lora = read_config(&text).map_err(|reason| Error::file(&path, reason))?;
    let path = folder.join(TENSORS);
    let bytes = std::fs::read(&path).map_err(|e| Error::file(&path, e))?;
    read_tensors(&bytes, model, lora, head).map_err(|reason| Error::file(&path, reason))
}

fn read_config(text: &str) -> Result<Lora, String> {
    let json: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let is_plain = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text == "none",
        _ => false,
    };
    if json["peft_type"] != "LORA" {
        return Err(format!("peft_type must be LORA, got {}", json["peft_type"]));
    }
    let unsupported = [
        "alpha_pattern",
        "bias",
        "fan_in_fan_out",
        "lora_bias",
        "rank_pattern",
        "use_dora",
        "use_rslora",
    ];
    for name in unsupported {
        if !is_plain(&json[name]) {
            return Err(format!("{name} must not be used, got {}", json[name]));
        }
    }
    let rank = json["r"].as_u64().unwrap_or(0) as usize;
    let alpha = json["lora_alpha"].as_f64().unwrap_or(f64::NAN);
    let dropout = json["lora_dropout"].as_f64().unwrap_or(0.0);
    let lora = Lora::new(rank, alpha).and_then(|lora| lora.with_dropout(dropout));
    lora.map_err(|e| e.to_string())
}

fn read_tensors(
    bytes: &[u8],
    model: &dyn Model,
    lora: Lora,
    head: Option<&Head>,
) -> Result<(Lora, Adapters), String> {
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)
        .map_err(|e| format!("not a complete safetensors file: {e}"))?;
    let named = tensors.into_iter().map(|(name, tensor)| {
        let short = name.strip_prefix(PREFIX).map(str::to_string);
        (short.unwrap_or(name), tensor)
    });
    let mut tensors = as_checkpoint(named.collect())?;
    let lora = lora.with_targets(found_targets(&tensors, model)?);
    let mut blocks = Vec::with_capacity(model.depth());
    for index in 0..model.depth() {
        let mut block = Vec::new();
        for (i, name) in targets(model, lora) {
            let path = format!("{}.{name}", model.block_path(index));
            let (rank, linear) = (lora.rank(), &model.linears()[i]);
            let parts = [
                ("lora_A", [rank, linear.inputs]),
                ("lora_B", [linear.outputs, rank]),
            ];
            for (part, shape) in parts {
                let name = format!("{path}.{part}.weight");
                block.extend(take(&mut tensors, &name, &shape)?);
            }
        }
        blocks.push(block);
    }
    let head = take_head(&mut tensors, model, head)?;
    if let Some(name) = tensors.keys().min() {
        return Err(format!("tensor {name} has no place in the model"));
    }
    Ok((lora, Adapters { blocks, head }))
}

/// The linears of block 0 that have an `A`.
fn found_targets(tensors: &HashMap<String, Tensor>, model: &dyn Model) -> Result<Targets, String> {
    let has =
        |name: &str| tensors.contains_key(&format!("{}.{name}.lora_A.weight", model.block_path(0)));
    let linears = model.linears().iter().zip(Targets::NAMES);
    let found: Vec<_> = linears
        .filter(|(linear, _)| has(linear.name))
        .map(|(_, short)| short)
        .collect();
    if found.is_empty() {
        return Err("no adapter on any linear layer of block 0".into());
    }
    found.join(",").parse()
}

/// The head of the file, else the given one.
fn take_head(
    tensors: &mut HashMap<String, Tensor>,
    model: &dyn Model,
    head: Option<&Head>,
) -> Result<Head, String> {
    let [weight, bias] = ["weight", "bias"].map(|part| format!("{}.{part}", model.head_path()));
    let Some(classes) = tensors
        .get(&weight)
        .map(|t| t.dims().first().copied().unwrap_or(0))
    else {
        let missing = || format!("missing tensor {weight}, and the model has no head");
        return head.cloned().ok_or_else(missing);
    };
    Ok(Head {
        weight: take(tensors, &weight, &[classes, model.width()])?,
        bias: take(tensors, &bias, &[classes])?,
    })
}

fn take(
    tensors: &mut HashMap<String, Tensor>,
    name: &str,
    shape: &[usize],
) -> Result<Vec<f32>, String> {
    let tensor = tensors.remove(name);
    let tensor = tensor.ok_or_else(|| format!("missing tensor {name}"))?;
    if tensor.dims() != shape {
        let got = tensor.dims();
        return Err(format!(
            "tensor {name} has shape {got:?}, expected {shape:?}"
        ));
    }
    let values = || tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1();
    values().map_err(|e| format!("tensor {name}: {e}"))
}
