//! Adapters as PEFT's folder: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};

use crate::fit::check_adapters;
use crate::pairs::{Pair, pairs};
use crate::vit::as_checkpoint;
use crate::whole::write_whole;
use crate::{Adapters, Error, Head, LinearSpec, Lora, Model, PatchSpec, Result, Targets};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
/// What PEFT puts before every name.
const PREFIX: &str = "base_model.model.";
/// How PEFT calls the frozen layer under an adapter.
const BASE: &str = ".base_layer";

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
    /// The name of a target in configurations.
    fn target(self, model: &dyn Model, target: usize) -> String {
        const MODULES: [&str; 6] = ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"];
        match (self, target) {
            (_, Targets::HEAD) => model.head_path().to_string(),
            (_, Targets::PATCH) => {
                let path = model.patch().path;
                path.rsplit('.').next().unwrap_or(path).to_string()
            }
            (Self::Transformers4, linear) => model.linears()[linear].name.to_string(),
            (Self::Transformers5, linear) => MODULES[linear].to_string(),
        }
    }

    /// The path of the layer that an adapter is on.
    fn path(self, model: &dyn Model, pair: &Pair<'_>) -> String {
        match (self, pair.block) {
            (Self::Transformers5, Some(index)) => {
                let block = model.block_path(index);
                let block = block.replace("vit.encoder.layer.", "vit.layers.");
                let part = if pair.target < 4 { "attention" } else { "mlp" };
                format!("{block}.{part}.{}", self.target(model, pair.target))
            }
            _ => pair.path(model),
        }
    }
}

/// Writes adapters and head as PEFT reads them: `PeftModel.from_pretrained(model, folder)`.
///
/// `A` is `[r, inputs]` and `B` `[outputs, r]`, for the patch embedding as convolutions
/// `[r, C, P, P]` and `[D, r, 1, 1]`. A head that is trained in full is among `modules_to_save`.
/// The frozen head under an adapter may be new, and PEFT would save no more than its adapter: it
/// is written beside it, as `base_layer`, where PEFT puts it into the model again.
///
/// Each of the two files appears whole or not at all, the tensors first.
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
    check_adapters(model, lora, adapters)?;
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let path = folder.join(TENSORS);
    let tensors = named_tensors(model, lora, adapters, names)?;
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let bytes = safetensors::serialize(&tensors, Some(metadata));
    write_whole(&path, &bytes.map_err(|e| Error::file(&path, e))?)?;
    let config = config(model, lora, names);
    write_whole(&folder.join(CONFIG), format!("{config:#}\n").as_bytes())
}

fn config(model: &dyn Model, lora: Lora, names: ModuleNames) -> Value {
    let targets: Vec<_> = (0..Targets::NAMES.len())
        .filter(|&target| lora.targets().contains(target))
        .map(|target| names.target(model, target))
        .collect();
    let head = lora.targets().contains(Targets::HEAD);
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
        "modules_to_save": (!head).then_some([model.head_path()]),
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
    for pair in pairs(model, lora, adapters) {
        let path = names.path(model, &pair);
        let [a, b] = shapes(model, pair.target, pair.rank, [pair.inputs, pair.outputs]);
        put(format!("{path}.lora_A.weight"), pair.a, &a)?;
        put(format!("{path}.lora_B.weight"), pair.b, &b)?;
    }
    let (head, mut path) = (&adapters.head, model.head_path().to_string());
    if !head.adapter.is_empty() {
        path += BASE;
    }
    let shape = [head.classes(), model.width()];
    put(format!("{path}.weight"), &head.weight, &shape)?;
    put(format!("{path}.bias"), &head.bias, &shape[..1])?;
    Ok(tensors)
}

/// The shapes of a target's `A` and `B`.
fn shapes(
    model: &dyn Model,
    target: usize,
    rank: usize,
    [inputs, outputs]: [usize; 2],
) -> [Vec<usize>; 2] {
    if target == Targets::PATCH {
        let &PatchSpec { channels, side, .. } = model.patch();
        return [vec![rank, channels, side, side], vec![outputs, rank, 1, 1]];
    }
    [vec![rank, inputs], vec![outputs, rank]]
}

/// Reads a folder that PEFT or [`save_peft`] wrote for `model`, with either naming of modules.
///
/// Which layers have adapters is read off the tensors; every block must have the same. `head` is
/// what the adapters were trained under, or over where the head has one, for folders without it.
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
    let mut pair = |path: &str, target: usize, sizes: [usize; 2]| -> Result<_, String> {
        let mut values = Vec::new();
        if lora.targets().contains(target) {
            let shapes = shapes(model, target, lora.rank(), sizes);
            for (part, shape) in ["lora_A", "lora_B"].into_iter().zip(shapes) {
                values.extend(take(
                    &mut tensors,
                    &format!("{path}.{part}.weight"),
                    &shape,
                )?);
            }
        }
        Ok(values)
    };
    let spec = model.patch();
    let patch = pair(spec.path, Targets::PATCH, [spec.inputs(), spec.outputs])?;
    let mut blocks = Vec::with_capacity(model.depth());
    for index in 0..model.depth() {
        let mut block = Vec::new();
        for (i, linear) in model.linears().iter().enumerate() {
            let path = format!("{}.{}", model.block_path(index), linear.name);
            block.extend(pair(&path, i, [linear.inputs, linear.outputs])?);
        }
        blocks.push(block);
    }
    let head = take_head(&mut tensors, model, lora, head)?;
    if let Some(name) = tensors.keys().min() {
        return Err(format!("tensor {name} has no place in the model"));
    }
    let adapters = Adapters {
        patch,
        blocks,
        head,
    };
    Ok((lora, adapters))
}

/// The targets that have an `A`, the linears in block 0.
fn found_targets(tensors: &HashMap<String, Tensor>, model: &dyn Model) -> Result<Targets, String> {
    let linear = |linear: &LinearSpec| format!("{}.{}", model.block_path(0), linear.name);
    let outer = [model.patch().path, model.head_path()].map(str::to_string);
    let paths = model.linears().iter().map(linear).chain(outer);
    let has = |path: &String| tensors.contains_key(&format!("{path}.lora_A.weight"));
    let places = paths.enumerate().filter(|(_, path)| has(path));
    let places: Vec<_> = places.map(|(place, _)| place).collect();
    if places.is_empty() {
        return Err("no adapter on patch embedding, block 0 or head".into());
    }
    Ok(Targets::at(places))
}

/// The head of the file, else the given one; with its adapter where it has one.
fn take_head(
    tensors: &mut HashMap<String, Tensor>,
    model: &dyn Model,
    lora: Lora,
    head: Option<&Head>,
) -> Result<Head, String> {
    let (width, adapted) = (model.width(), lora.targets().contains(Targets::HEAD));
    let path = format!("{}{}", model.head_path(), if adapted { BASE } else { "" });
    let [weight, bias] = ["weight", "bias"].map(|part| format!("{path}.{part}"));
    let mut head = if let Some(classes) = rows(tensors, &weight) {
        Head {
            weight: take(tensors, &weight, &[classes, width])?,
            bias: take(tensors, &bias, &[classes])?,
            adapter: Vec::new(),
        }
    } else {
        let missing = || format!("missing tensor {weight}, and the model has no head");
        head.cloned().ok_or_else(missing)?
    };
    head.adapter.clear();
    if adapted {
        let (rank, classes) = (lora.rank(), head.classes());
        let [a, b] =
            ["lora_A", "lora_B"].map(|part| format!("{}.{part}.weight", model.head_path()));
        head.adapter = take(tensors, &a, &[rank, width])?;
        head.adapter.extend(take(tensors, &b, &[classes, rank])?);
    }
    Ok(head)
}

/// The first dimension of a tensor, where it is there.
fn rows(tensors: &HashMap<String, Tensor>, name: &str) -> Option<usize> {
    let tensor = tensors.get(name)?;
    Some(tensor.dims().first().copied().unwrap_or(0))
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
