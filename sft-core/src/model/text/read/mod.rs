//! From Hugging Face's `config.json`, or what a GGUF file says instead, to a [`TextConfig`].

/// `LLaMA` and its kin.
mod decoder;
/// BERT and its kin.
mod encoder;
/// The settings and names of GGUF files.
mod gguf;
/// GPT-2.
mod gpt2;
/// Angles of rotated queries and keys.
mod rotary;
/// Settings by name.
mod settings;

use serde_json::{Map, Value};

pub(super) use self::gguf::{Translated, from_gguf, scale_angles};
use self::settings::Settings;
use super::{TextConfig, TextFamily};
use crate::layers::Activation;

/// The values of `model_type` that are read.
const FAMILIES: [(&str, TextFamily); 11] = [
    ("llama", TextFamily::Llama),
    ("mistral", TextFamily::Mistral),
    ("qwen2", TextFamily::Qwen2),
    ("qwen3", TextFamily::Qwen3),
    ("gemma2", TextFamily::Gemma2),
    ("gemma3_text", TextFamily::Gemma3),
    ("gpt2", TextFamily::Gpt2),
    ("bert", TextFamily::Bert),
    ("roberta", TextFamily::Roberta),
    ("xlm-roberta", TextFamily::Roberta),
    ("distilbert", TextFamily::DistilBert),
];

/// Reads the settings of a model.
///
/// # Errors
/// The setting that is missing, out of range, or asks for what is not done, with its value.
pub(super) fn read_config(json: &Map<String, Value>) -> Result<TextConfig, String> {
    let settings = Settings(json);
    let kind = settings.text("model_type", "")?;
    let family = FAMILIES.iter().find(|(name, _)| *name == kind);
    let Some((_, family)) = family else {
        let names: Vec<_> = FAMILIES.iter().map(|(name, _)| *name).collect();
        return Err(settings.wrong("model_type", &format!("one of {}", names.join(", "))));
    };
    settings.all_off(&["quantization_config", "is_encoder_decoder"])?;
    match family {
        TextFamily::Gpt2 => gpt2::read(settings),
        family if family.is_decoder() => decoder::read(settings, *family),
        family => encoder::read(settings, *family),
    }
}

/// The activation of an MLP, by any of its names.
fn activation(settings: Settings<'_>, name: &str, default: &str) -> Result<Activation, String> {
    match settings.text(name, default)? {
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        _ => {
            let accepted = "one of gelu, gelu_new, gelu_pytorch_tanh, relu, silu";
            Err(settings.wrong(name, accepted))
        }
    }
}

/// The features of a head where no setting tells them.
fn share(width: usize, name: &str, heads: usize) -> Result<usize, String> {
    if width.is_multiple_of(heads) {
        return Ok(width / heads);
    }
    Err(format!("{name} must divide the width {width}, got {heads}"))
}
