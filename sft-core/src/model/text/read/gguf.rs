//! What GGUF files say, as the `config.json` and the names of Hugging Face's files say it.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::super::{TextConfig, TextFamily};
use super::read_config;
use crate::model::checkpoint::{Gguf, Weight};

/// The values of `general.architecture` that are read, with Hugging Face's name for them.
const ARCHITECTURES: [(&str, &str); 4] = [
    ("llama", "llama"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
    ("gemma3", "gemma3_text"),
];

/// Settings below the architecture that are the same under another name.
const SAME: [(&str, &str); 10] = [
    ("embedding_length", "hidden_size"),
    ("block_count", "num_hidden_layers"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.key_length", "head_dim"),
    ("feed_forward_length", "intermediate_size"),
    ("context_length", "max_position_embeddings"),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("rope.freq_base", "rope_theta"),
    ("attention.sliding_window", "sliding_window"),
];

/// Settings that ask for what is not done.
const REFUSED: [&str; 7] = [
    "expert_count",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "attention.scale",
];

/// Tensors outside blocks: as GGUF names them, and as Hugging Face does.
const OUTSIDE: [(&str, &str); 3] = [
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
];

/// The same in a block.
const IN_BLOCK: [(&str, &str); 13] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

/// `LLaMA` 3.1's scaling of angles, as divisors.
const ANGLES: &str = "rope_freqs.weight";

/// A model as Hugging Face's files have it.
pub(in super::super) struct Translated {
    pub(in super::super) config: TextConfig,
    /// What `config.json` would say.
    pub(in super::super) json: Map<String, Value>,
    /// The tensors by Hugging Face's names.
    pub(in super::super) weights: HashMap<String, Weight>,
}

/// What a file holds, in Hugging Face's words.
///
/// # Errors
/// An architecture or a setting that is not read.
pub(in super::super) fn from_gguf(file: Gguf) -> Result<Translated, String> {
    let name = "general.architecture";
    let found = file.settings.get(name).and_then(Value::as_str);
    let Some((architecture, kind)) = ARCHITECTURES.iter().find(|(name, _)| Some(*name) == found)
    else {
        let names = ARCHITECTURES.map(|(name, _)| name).join(", ");
        let got = file.settings.get(name).unwrap_or(&Value::Null);
        return Err(format!("{name} must be one of {names}, got {got}"));
    };
    let mut weights: HashMap<String, Weight> = HashMap::with_capacity(file.weights.len());
    for (name, weight) in file.weights {
        let renamed = rename(&name, *kind == "gemma3_text");
        if weights.insert(renamed, weight).is_some() {
            return Err(format!("tensor {name} is there twice"));
        }
    }
    let json = config(&file.settings, architecture, kind, &weights)?;
    let mut config = read_config(&json).map_err(|e| in_their_words(&e, architecture))?;
    // The files have Gemma's gains as they are used.
    config.norm.plus_one = false;
    if config.family == TextFamily::Llama {
        let attention = [("q_proj", config.heads), ("k_proj", config.kv_heads)];
        weights = weights
            .into_iter()
            .map(|(name, weight)| {
                let rotated = attention
                    .iter()
                    .find(|(linear, _)| name.contains(&format!(".self_attn.{linear}.")));
                let weight = match rotated {
                    Some((_, heads)) => weight.interleaved(*heads),
                    None => weight,
                };
                (name, weight)
            })
            .collect();
    }
    Ok(Translated {
        config,
        json,
        weights,
    })
}

/// A refusal that names GGUF's setting beside Hugging Face's.
fn in_their_words(reason: &str, architecture: &str) -> String {
    let same = SAME
        .iter()
        .find(|(_, name)| reason.starts_with(&format!("{name} ")));
    match same {
        Some((name, _)) => format!("{architecture}.{name}, {reason}"),
        None => reason.into(),
    }
}

fn config(
    settings: &Map<String, Value>,
    architecture: &str,
    kind: &str,
    weights: &HashMap<String, Weight>,
) -> Result<Map<String, Value>, String> {
    let get = |name: &str| settings.get(&format!("{architecture}.{name}"));
    let off = |value: &Value| *value == false || *value == 0;
    if let Some(name) = REFUSED
        .iter()
        .find(|name| get(name).is_some_and(|value| !off(value)))
    {
        return Err(format!(
            "{architecture}.{name} must be off, got {}",
            settings[&format!("{architecture}.{name}")]
        ));
    }
    let mut json = Map::new();
    json.insert("model_type".into(), kind.into());
    for (name, same) in SAME {
        if let Some(value) = get(name) {
            json.insert(same.into(), value.clone());
        }
    }
    // A file without its own number of them has as many heads of keys as of queries.
    if json.get("num_key_value_heads").is_none()
        && let Some(heads) = get("attention.head_count")
    {
        json.insert("num_key_value_heads".into(), heads.clone());
    }
    if get("rope.freq_base").is_none() && kind != "gemma3_text" {
        json.insert("rope_theta".into(), 1e4.into());
    }
    let rows = |name: &str| {
        weights
            .get(name)
            .and_then(|weight| weight.dims().first().copied())
    };
    let vocabulary = rows("model.embed_tokens.weight").ok_or("missing tensor token_embd.weight")?;
    json.insert("vocab_size".into(), vocabulary.into());
    json.insert(
        "tie_word_embeddings".into(),
        (!weights.contains_key("lm_head.weight")).into(),
    );
    let biased = |linear: &str| weights.contains_key(&format!("model.layers.0.{linear}.bias"));
    if kind == "llama" {
        json.insert("attention_bias".into(), biased("self_attn.q_proj").into());
        json.insert("mlp_bias".into(), biased("mlp.up_proj").into());
    }
    let head = json.get("head_dim").cloned();
    let width = get("embedding_length").and_then(Value::as_u64);
    let heads = get("attention.head_count")
        .and_then(Value::as_u64)
        .filter(|heads| *heads > 0);
    let head = head.or_else(|| Some((width? / heads?).into()));
    for name in ["attention.value_length", "rope.dimension_count"] {
        if let (Some(got), Some(head)) = (get(name), &head)
            && got != head
        {
            return Err(format!(
                "{architecture}.{name} must be the width of a head, {head}, got {got}"
            ));
        }
    }
    if let (Some(head), "gemma3_text") = (&head, kind) {
        // The files do not say that the largest, of 62 blocks, divides by the root of D / A.
        let largest = get("block_count").and_then(Value::as_u64) == Some(62);
        let share = width.zip(heads).filter(|_| largest);
        let share = share.map(|(width, heads)| (width / heads).into());
        json.insert(
            "query_pre_attn_scalar".into(),
            share.unwrap_or_else(|| head.clone()),
        );
    }
    if let Some(scaling) = scaling(
        get("rope.scaling.type"),
        get("rope.scaling.factor"),
        architecture,
    )? {
        json.insert("rope_scaling".into(), scaling);
    }
    Ok(json)
}

fn scaling(
    kind: Option<&Value>,
    factor: Option<&Value>,
    architecture: &str,
) -> Result<Option<Value>, String> {
    match kind.map(|kind| kind.as_str().unwrap_or("")) {
        None | Some("none") => Ok(None),
        Some("linear") => Ok(Some(json!({"rope_type": "linear", "factor": factor}))),
        Some(_) => {
            let got = kind.unwrap_or(&Value::Null);
            let name = format!("{architecture}.rope.scaling.type");
            Err(format!("{name} must be none or linear, got {got}"))
        }
    }
}

fn rename(name: &str, gemma: bool) -> String {
    let find = |list: &[(&str, &'static str)], name: &str| {
        list.iter()
            .find(|(from, _)| *from == name)
            .map(|(_, to)| *to)
    };
    let Some((path, part)) = name.rsplit_once('.') else {
        return name.into();
    };
    let block = path
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'));
    let renamed = match block {
        None => find(&OUTSIDE, path).map(str::to_string),
        Some((block, "ffn_norm")) if gemma => {
            Some(format!("model.layers.{block}.pre_feedforward_layernorm"))
        }
        Some((block, below)) => {
            find(&IN_BLOCK, below).map(|below| format!("model.layers.{block}.{below}"))
        }
    };
    renamed.map_or_else(|| name.into(), |path| format!("{path}.{part}"))
}

/// Divides the angles of all blocks by those of the file, where it has any; and whether.
///
/// # Errors
/// A tensor of another shape, or that cannot be read.
pub(in super::super) fn scale_angles(
    config: &mut TextConfig,
    weights: &mut HashMap<String, Weight>,
) -> Result<bool, String> {
    let Some(weight) = weights.remove(ANGLES) else {
        return Ok(false);
    };
    let half = config.head_width / 2;
    if weight.dims() != [half] {
        let got = weight.dims();
        return Err(format!(
            "tensor {ANGLES} has shape {got:?}, expected [{half}]"
        ));
    }
    let divisors = weight.load().and_then(|tensor| tensor.to_vec1::<f32>());
    let divisors = divisors.map_err(|e| e.to_string())?;
    if let Some(wrong) = divisors
        .iter()
        .find(|divisor| divisor.is_nan() || **divisor <= 0.0)
    {
        return Err(format!("tensor {ANGLES} must be positive, got {wrong}"));
    }
    for rotary in config
        .attention
        .blocks
        .iter_mut()
        .filter_map(|(_, rotary)| rotary.as_mut())
    {
        for (angle, divisor) in rotary.inverse_frequencies.iter_mut().zip(&divisors) {
            *angle /= divisor;
        }
    }
    Ok(true)
}
