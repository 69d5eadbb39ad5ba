//! `LLaMA`, Mistral, Qwen and Gemma: each token sees those before it, and where it stands is a
//! rotation of queries and keys.

use super::super::config::{AttentionForm, EmbeddingForm, MlpForm, NormForm};
use super::super::{TextConfig, TextFamily};
use super::rotary::rotary;
use super::settings::Settings;
use super::{activation, share};
use crate::layers::{Mask, NormKind, NormOrder, Rotary};

pub(super) fn read(settings: Settings<'_>, family: TextFamily) -> Result<TextConfig, String> {
    refuse(settings, family)?;
    let gemma = is_gemma(family);
    let width = settings.size("hidden_size", None)?;
    let heads = settings.size("num_attention_heads", None)?;
    // Only LLaMA 1's files may leave it out.
    let default = (family == TextFamily::Llama).then_some(heads);
    let kv_heads = settings.size("num_key_value_heads", default)?;
    if !heads.is_multiple_of(kv_heads) {
        let accepted = format!("a divisor of {heads} heads");
        return Err(settings.wrong("num_key_value_heads", &accepted));
    }
    let head_width = match settings.get("head_dim") {
        Some(_) => settings.small("head_dim", None)?,
        None => share(width, "num_attention_heads", heads)?,
    };
    let depth = settings.small("num_hidden_layers", None)?;
    let activation = if gemma {
        activation(settings, "hidden_activation", "gelu_pytorch_tanh")?
    } else {
        activation(settings, "hidden_act", "silu")?
    };
    let bias = settings.flag("attention_bias", false)?;
    let score = head_width as f64;
    let score = if gemma {
        settings.number("query_pre_attn_scalar", None)?
    } else {
        score
    };
    Ok(TextConfig {
        family,
        depth,
        width,
        heads,
        kv_heads,
        head_width,
        mlp_width: settings.size("intermediate_size", None)?,
        vocabulary: settings.tokens("vocab_size", None)?,
        tokens: settings.tokens("max_position_embeddings", Some(2048))?,
        tied_head: settings.flag("tie_word_embeddings", gemma)?,
        norm: NormForm {
            kind: NormKind::Rms,
            eps: settings.number("rms_norm_eps", Some(1e-6))?,
            order: NormOrder::Before,
            plus_one: gemma,
        },
        attention: AttentionForm {
            biases: [bias || family == TextFamily::Qwen2, bias],
            head_norms: matches!(family, TextFamily::Qwen3 | TextFamily::Gemma3),
            scale: score.sqrt().recip(),
            blocks: blocks(settings, family, depth, head_width)?,
        },
        mlp: MlpForm {
            activation,
            biases: settings.flag("mlp_bias", false)?,
        },
        embedding: EmbeddingForm {
            scale: gemma.then(|| (width as f64).sqrt()),
            positions: 0,
            first: 0,
            types: 0,
        },
    })
}

fn is_gemma(family: TextFamily) -> bool {
    matches!(family, TextFamily::Gemma2 | TextFamily::Gemma3)
}

/// What a file may ask for and is not done.
fn refuse(settings: Settings<'_>, family: TextFamily) -> Result<(), String> {
    settings.must_be_one("partial_rotary_factor")?;
    settings.all_off(match family {
        TextFamily::Llama => &["rope_interleave"],
        TextFamily::Qwen2 | TextFamily::Qwen3 => &["use_sliding_window", "use_mrope"],
        TextFamily::Gemma2 | TextFamily::Gemma3 => &[
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "use_bidirectional_attention",
        ],
        _ => &[],
    })?;
    let unread = match family {
        TextFamily::Llama => return Ok(()),
        TextFamily::Qwen2 | TextFamily::Mistral => &["attention_bias", "mlp_bias"][..],
        _ => &["mlp_bias"],
    };
    settings.all_off(unread)
}

/// What the tokens of each block see, and how its queries and keys are rotated.
fn blocks(
    settings: Settings<'_>,
    family: TextFamily,
    depth: usize,
    head_width: usize,
) -> Result<Vec<(Mask, Option<Rotary>)>, String> {
    let sliding = sliding(settings, family, depth)?;
    let window = match settings.0.get("sliding_window") {
        // What Mistral's configuration stands for where it says nothing.
        None if family == TextFamily::Mistral => Some(4096),
        Some(value) if !value.is_null() => Some(settings.tokens("sliding_window", None)?),
        _ => None,
    };
    if window.is_none() && family != TextFamily::Mistral && sliding.contains(&true) {
        return Err(settings.wrong("sliding_window", "the tokens of a window"));
    }
    let rotations = [false, true].map(|sliding| rotation(settings, family, sliding, head_width));
    let [full, near] = rotations;
    let (full, near) = (full?, near?);
    let block = |sliding: bool| {
        let window = window.filter(|_| sliding);
        let rotary = if sliding { &near } else { &full };
        (Mask::Causal { window }, Some(rotary.clone()))
    };
    Ok(sliding.into_iter().map(block).collect())
}

/// The blocks whose tokens see a window only.
fn sliding(settings: Settings<'_>, family: TextFamily, depth: usize) -> Result<Vec<bool>, String> {
    let Some(kinds) = settings.get("layer_types") else {
        let pattern = match family {
            TextFamily::Gemma2 => 2,
            TextFamily::Gemma3 => settings.small("sliding_window_pattern", Some(6))?,
            family => return Ok(vec![family == TextFamily::Mistral; depth]),
        };
        return Ok((1..=depth)
            .map(|block| !block.is_multiple_of(pattern))
            .collect());
    };
    let wrong = || {
        let accepted = format!("{depth} times full_attention or sliding_attention");
        settings.wrong("layer_types", &accepted)
    };
    let kinds = kinds.as_array().filter(|kinds| kinds.len() == depth);
    let kind = |kind: &serde_json::Value| match kind.as_str() {
        Some("full_attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => Err(wrong()),
    };
    kinds.ok_or_else(wrong)?.iter().map(kind).collect()
}

/// The rotation of blocks with or without a window, which Gemma 3 has two of.
fn rotation(
    settings: Settings<'_>,
    family: TextFamily,
    sliding: bool,
    head_width: usize,
) -> Result<Rotary, String> {
    let (own, name) = match (family, sliding) {
        (TextFamily::Gemma3, true) => (1e4, "rope_local_base_freq"),
        (TextFamily::Gemma3, false) => (1e6, "rope_theta"),
        _ => (1e4, "rope_theta"),
    };
    // The newest files have one table, perhaps for each kind of block.
    if let Some(table) = settings.table("rope_parameters")? {
        let kind = if sliding {
            "sliding_attention"
        } else {
            "full_attention"
        };
        let table = table.table(kind)?.unwrap_or(table);
        return rotary(
            table.number("rope_theta", Some(own))?,
            Some(table),
            head_width,
        );
    }
    let scaling = settings.table("rope_scaling")?;
    let scaling = scaling.filter(|_| family != TextFamily::Gemma3 || !sliding);
    rotary(settings.number(name, Some(own))?, scaling, head_width)
}
