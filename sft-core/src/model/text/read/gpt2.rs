//! GPT-2: each token sees those before it, and where one stands is a vector that is added to its own.

use super::super::config::{AttentionForm, EmbeddingForm, MlpForm, NormForm};
use super::super::{TextConfig, TextFamily};
use super::settings::Settings;
use super::{activation, share};
use crate::layers::{Mask, NormKind, NormOrder};

pub(super) fn read(settings: Settings<'_>) -> Result<TextConfig, String> {
    settings.all_off(&["add_cross_attention", "scale_attn_by_inverse_layer_idx"])?;
    if !settings.flag("scale_attn_weights", true)? {
        return Err(settings.wrong("scale_attn_weights", "true"));
    }
    let width = settings.size("n_embd", None)?;
    let heads = settings.size("n_head", None)?;
    let head_width = share(width, "n_head", heads)?;
    let depth = settings.small("n_layer", None)?;
    let tokens = settings.tokens("n_positions", Some(1024))?;
    Ok(TextConfig {
        family: TextFamily::Gpt2,
        depth,
        width,
        heads,
        kv_heads: heads,
        head_width,
        mlp_width: settings.size("n_inner", Some(4 * width))?,
        vocabulary: settings.tokens("vocab_size", None)?,
        tokens,
        tied_head: settings.flag("tie_word_embeddings", true)?,
        norm: NormForm {
            kind: NormKind::Layer,
            eps: settings.number("layer_norm_epsilon", Some(1e-5))?,
            order: NormOrder::Before,
            plus_one: false,
        },
        attention: AttentionForm {
            biases: [true; 2],
            head_norms: false,
            scale: (head_width as f64).sqrt().recip(),
            blocks: vec![(Mask::Causal { window: None }, None); depth],
        },
        mlp: MlpForm {
            activation: activation(settings, "activation_function", "gelu_new")?,
            biases: true,
        },
        embedding: EmbeddingForm {
            scale: None,
            positions: tokens,
            first: 0,
            types: 0,
        },
    })
}
