//! PEFT's `adapter_config.json`: what is written, and which settings of others are understood.
//!
//! PEFT grows by settings that change what an adapter computes. A setting is therefore honoured, or
//! known not to change what given tensors compute, or it must be off; one that is not known here
//! must be off too.

use serde_json::{Map, Value, json};

use super::{Head, LinearSpec, Lora, ModelSpec, ModuleNames, Path, Place, block_layers};

/// Settings that change nothing, whatever their value, once the tensors are there.
const INERT: [&str; 15] = [
    // Where the folder comes from and how PEFT wraps the model.
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "revision",
    "runtime_config",
    "task_type",
    // How initial values were found, which the tensors replace: see `INITIAL`.
    "corda_config",
    "eva_config",
    "loftq_config",
    "lora_ga_config",
    // They say more of what must be off, or where blocks are (`layers_to_transform`).
    "layers_pattern",
    "megatron_core",
    "qalora_group_size",
    // Modules that are trained in full: those that have tensors.
    "modules_to_save",
];

/// Settings that are read by name.
const READ: [&str; 9] = [
    "bias",
    "exclude_modules",
    "init_lora_weights",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "peft_type",
    "r",
    "target_modules",
];

/// The initial values of adapters that leave the frozen weights as they are. Others (pissa, olora,
/// corda, loftq, `lora_ga`) subtract the initial adapter from them.
const INITIAL: [&str; 4] = ["gaussian", "eva", "orthogonal", "mica"];

/// What a configuration says of the adapters.
pub(super) struct Config {
    /// Rank, scale and dropout; the targets are read off the tensors.
    pub(super) lora: Lora,
    /// The only layers that PEFT looks for, if it names them.
    targets: Option<Vec<String>>,
    excluded: Vec<String>,
    /// The first block that PEFT looks at.
    first: usize,
}

impl Config {
    /// Whether PEFT would put an adapter on a layer; true where a regular expression decides.
    pub(super) fn is_target(&self, layer: &Path) -> bool {
        let ends = |names: &[String]| names.iter().any(|name| layer.ends_with(name));
        let named = self.targets.as_deref().is_none_or(ends) && !ends(&self.excluded);
        named && block_of(layer).is_none_or(|index| index >= self.first)
    }
}

/// The index of the block that a layer is in, the last number of its path as for PEFT.
fn block_of(layer: &Path) -> Option<usize> {
    layer.module.rsplit('.').find_map(|part| part.parse().ok())
}

/// Reads the configuration of plain LoRA of one rank and scale.
///
/// # Errors
/// The setting that says otherwise, with its value.
pub(super) fn read_config(text: &str, spec: &ModelSpec) -> Result<Config, String> {
    let json: Map<String, Value> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let get = |name: &str| json.get(name).unwrap_or(&Value::Null);
    if get("peft_type") != "LORA" {
        return Err(format!("peft_type must be LORA, got {}", get("peft_type")));
    }
    for (name, value) in &json {
        let known = INERT.contains(&name.as_str()) || READ.contains(&name.as_str());
        let is_true = name == "fan_in_fan_out" && spec.fan_in_fan_out && *value == true;
        if !known && !is_true && !is_off(value) {
            return Err(format!("{name} must not be used, got {}", short(value)));
        }
    }
    check_bias(get("bias"))?;
    check_initial(get("init_lora_weights"))?;
    Ok(Config {
        lora: read_lora(&json)?,
        targets: names(get("target_modules")),
        excluded: names(get("exclude_modules")).unwrap_or_default(),
        first: first_block(get("layers_to_transform"), spec.depth)?,
    })
}

/// Whether a setting is switched off: null, false, or an empty list, table or text.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// A value for a message, which may be a table with an entry for each layer.
fn short(value: &Value) -> String {
    let (text, most) = (value.to_string(), 120);
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn read_lora(json: &Map<String, Value>) -> Result<Lora, String> {
    let get = |name: &str| json.get(name).ok_or_else(|| format!("missing {name}"));
    let wrong = |name: &str, what: &str, value: &Value| {
        format!("{name} must be {what}, got {}", short(value))
    };
    let rank = get("r")?;
    let whole = rank.as_u64().and_then(|rank| rank.try_into().ok());
    let rank: usize = whole.ok_or_else(|| wrong("r", "a whole number", rank))?;
    let number = |name: &str, value: &Value| {
        let number = value.as_f64();
        number.ok_or_else(|| wrong(name, "a number", value))
    };
    let alpha = number("lora_alpha", get("lora_alpha")?)?;
    let dropout = json.get("lora_dropout");
    let dropout = dropout.map_or(Ok(0.0), |value| number("lora_dropout", value))?;
    let lora = Lora::new(rank, alpha).and_then(|lora| lora.with_dropout(dropout));
    lora.map_err(|e| e.to_string())
}

fn check_bias(value: &Value) -> Result<(), String> {
    match value {
        Value::Null => Ok(()),
        Value::String(text) if text == "none" => Ok(()),
        _ => Err(format!("bias must be \"none\", got {}", short(value))),
    }
}

fn check_initial(value: &Value) -> Result<(), String> {
    let is_known = match value {
        Value::Null | Value::Bool(_) => true,
        Value::String(text) => INITIAL.contains(&text.as_str()),
        _ => false,
    };
    let got = short(value);
    is_known.then_some(()).ok_or_else(|| {
        format!(
            "init_lora_weights must be true, false or one of {}, got {got}: other initial values \
             change the frozen weights, which the folder does not hold; PEFT's save_pretrained \
             converts them, given path_initial_model_for_weight_conversion",
            INITIAL.join(", "),
        )
    })
}

/// Adapters are on all blocks from one on: so must be the blocks that PEFT looks at. The first.
fn first_block(value: &Value, depth: usize) -> Result<usize, String> {
    if is_off(value) {
        return Ok(0);
    }
    let one = std::slice::from_ref(value);
    let layers = value.as_array().map_or(one, Vec::as_slice);
    let named = |index: &usize| layers.iter().any(|layer| *layer == *index);
    let first = (0..depth).find(named);
    let holds = |first: &usize| (*first..depth).all(|index| named(&index));
    first.filter(holds).ok_or_else(|| {
        let (last, got) = (depth - 1, short(value));
        format!("layers_to_transform must have all blocks from one to the last, {last}, got {got}")
    })
}

/// A list of names; none where it is a regular expression or `all-linear`.
fn names(value: &Value) -> Option<Vec<String>> {
    let names = value.as_array()?.iter();
    Some(
        names
            .filter_map(|name| name.as_str().map(str::to_string))
            .collect(),
    )
}

/// What [`read_config`] and PEFT read again.
pub(super) fn config(
    spec: &ModelSpec,
    lora: Lora,
    trained_head: &Head,
    names: ModuleNames,
) -> Value {
    let chosen = |place: Place| lora.targets().contains(place);
    let (mut modules, excluded) = match lora.frozen_blocks() {
        0 => block_targets(spec, lora, names),
        frozen => (tuned_layers(spec, lora, names, frozen), Vec::new()),
    };
    let embedding = spec.embedding.iter().enumerate();
    let embedding = embedding.filter(|(i, _)| chosen(Place::Embedding(*i)));
    modules.extend(embedding.map(|(_, layer)| layer.module().to_string()));
    let head = names.of(&spec.head);
    modules.extend(chosen(Place::Head).then(|| head.to_string()));
    // What is in the folder beside adapters.
    let mut saved: Vec<_> = spec.pooler.iter().map(|path| names.of(path)).collect();
    let own = !chosen(Place::Head) && !trained_head.is_none();
    saved.extend(own.then_some(head));
    json!({
        "peft_type": "LORA",
        "base_model_name_or_path": null,
        "bias": "none",
        "exclude_modules": (!excluded.is_empty()).then_some(excluded),
        "fan_in_fan_out": spec.fan_in_fan_out,
        "inference_mode": true,
        "lora_alpha": lora.alpha(),
        "lora_dropout": lora.dropout(),
        "modules_to_save": (!saved.is_empty()).then_some(saved),
        "r": lora.rank(),
        "target_modules": modules,
        "task_type": trained_head.is_none().then_some("CAUSAL_LM"),
        "use_dora": false,
        "use_rslora": false,
    })
}

/// Every layer that is tuned behind the `frozen` first blocks, by its whole path.
fn tuned_layers(spec: &ModelSpec, lora: Lora, names: ModuleNames, frozen: usize) -> Vec<String> {
    let layers = (frozen..spec.depth).flat_map(|i| block_layers(spec, i).into_iter().enumerate());
    let tuned = layers.filter(|(i, _)| lora.targets().contains(Place::Block(*i)));
    tuned
        .map(|(_, (path, _))| names.of(&path).to_string())
        .collect()
}

/// The names of the layers that are tuned in every block, and of those that end like them but are
/// not tuned.
fn block_targets(spec: &ModelSpec, lora: Lora, names: ModuleNames) -> (Vec<String>, Vec<String>) {
    let chosen = |place: Place| lora.targets().contains(place);
    let block = spec.block.iter().enumerate();
    let (targets, others): (Vec<_>, Vec<_>) = block.partition(|(i, _)| chosen(Place::Block(*i)));
    let modules: Vec<String> = targets
        .iter()
        .map(|(_, layer)| names.target(spec, layer).to_string())
        .collect();
    // PEFT compares ends of paths: `output.dense` is also the end of `attention.output.dense`.
    let is_meant = |layer: &LinearSpec| {
        let path = names.of(&layer.path);
        modules
            .iter()
            .any(|name| path == name || path.ends_with(&format!(".{name}")))
    };
    let excluded = others.iter().filter(|(_, layer)| is_meant(layer));
    let excluded = excluded.map(|(_, layer)| names.of(&layer.path).to_string());
    let excluded = excluded.collect();
    (modules, excluded)
}
