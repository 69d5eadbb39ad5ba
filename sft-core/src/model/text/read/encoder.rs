//! BERT, `RoBERTa` and `DistilBERT`: all tokens see each other, and where one stands is a vector that
//! is added to its own.

use super::super::config::{AttentionForm, EmbeddingForm, MlpForm, NormForm};
use super::super::{TextConfig, TextFamily};
use super::settings::Settings;
use super::{activation, share};
use crate::layers::{Mask, NormKind, NormOrder};

/// What `DistilBERT` calls its sizes, and what the others do.
const DISTILBERT: Sizes = Sizes {
    width: "dim",
    depth: "n_layers",
    heads: "n_heads",
    mlp_width: "hidden_dim",
    activation: "activation",
};
const BERT: Sizes = Sizes {
    width: "hidden_size",
    depth: "num_hidden_layers",
    heads: "num_attention_heads",
    mlp_width: "intermediate_size",
    activation: "hidden_act",
};

struct Sizes {
    width: &'static str,
    depth: &'static str,
    heads: &'static str,
    mlp_width: &'static str,
    activation: &'static str,
}

pub(super) fn read(settings: Settings<'_>, family: TextFamily) -> Result<TextConfig, String> {
    settings.all_off(&["is_decoder", "add_cross_attention"])?;
    if settings.text("position_embedding_type", "absolute")? != "absolute" {
        return Err(settings.wrong("position_embedding_type", "absolute"));
    }
    let distil = family == TextFamily::DistilBert;
    let names = if distil { DISTILBERT } else { BERT };
    let width = settings.size(names.width, None)?;
    let heads = settings.size(names.heads, None)?;
    let depth = settings.small(names.depth, None)?;
    let positions = settings.tokens("max_position_embeddings", Some(512))?;
    let first = if family == TextFamily::Roberta {
        first_position(settings)?
    } else {
        0
    };
    if first >= positions {
        let accepted = format!("above {first}, where positions begin");
        return Err(settings.wrong("max_position_embeddings", &accepted));
    }
    Ok(TextConfig {
        family,
        depth,
        width,
        heads,
        kv_heads: heads,
        head_width: share(width, names.heads, heads)?,
        mlp_width: settings.size(names.mlp_width, None)?,
        vocabulary: settings.tokens("vocab_size", None)?,
        tokens: positions - first,
        tied_head: settings.flag("tie_word_embeddings", true)?,
        norm: NormForm {
            kind: NormKind::Layer,
            eps: if distil {
                1e-12
            } else {
                settings.number("layer_norm_eps", Some(1e-12))?
            },
            order: NormOrder::After,
            plus_one: false,
        },
        attention: AttentionForm {
            biases: [true; 2],
            head_norms: false,
            scale: (heads as f64 / width as f64).sqrt(),
            blocks: vec![(Mask::None, None); depth],
        },
        mlp: MlpForm {
            activation: activation(settings, names.activation, "gelu")?,
            biases: true,
        },
        embedding: EmbeddingForm {
            scale: None,
            positions,
            first,
            types: if distil {
                0
            } else {
                settings.size("type_vocab_size", Some(2))?
            },
        },
    })
}

/// `RoBERTa` numbers tokens from after the padding's id.
fn first_position(settings: Settings<'_>) -> Result<usize, String> {
    let Some(pad) = settings.get("pad_token_id") else {
        return Ok(2);
    };
    let pad = pad.as_u64().filter(|id| *id < 1 << 24);
    let pad = pad.ok_or_else(|| settings.wrong("pad_token_id", "the number of a token"))?;
    Ok(pad as usize + 1)
}
