//! The tuned model as one model, for whoever knows no adapters.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use serde_json::{Map, Value, json};

use super::weights::LANGUAGE_HEAD;
use super::{PretrainedText, TextFamily, Tokenizer};
use crate::Result;
use crate::adapter::{Adapters, Head, Lora};
use crate::model::Pretrained;
use crate::model::half::{BLOCKS, half};
use crate::model::merged::{classify, merged, write_folder};

/// Settings of the files that the model was read from and that do not hold of it any more.
const PASSED: [&str; 5] = [
    "auto_map",
    "num_labels",
    "problem_type",
    "quantization_config",
    "torch_dtype",
];

/// Writes the tuned model as Transformers' class of the family for sequence classification, or as a causal
/// language model where it has that head: `model.safetensors`, `config.json`, and the tokenizer's files
/// where the model has one.
pub(super) fn save_merged(
    folder: &Path,
    base: &PretrainedText,
    lora: Option<Lora>,
    adapters: &Adapters,
) -> Result<()> {
    let mut tensors = merged(base, lora, adapters)?;
    let is_gemma = matches!(base.config.family, TextFamily::Gemma2 | TextFamily::Gemma3);
    if is_gemma && !base.config.norm.plus_one {
        // Transformers adds one to the gains of every norm, of which GGUF files have the sum.
        for (_, tensor) in tensors
            .iter_mut()
            .filter(|(name, _)| name.contains("norm."))
        {
            *tensor = (&*tensor - 1.0)?;
        }
    }
    transpose(&mut tensors, base)?;
    if adapters.head.is_none() {
        let head = base.language_head()?;
        tensors.extend(head.map(|head| (LANGUAGE_HEAD.to_string(), head)));
    }
    let mut files = vec![("config.json", config(base, &adapters.head))];
    if let Some(tokenizer) = &base.tokenizer {
        files.extend(tokenizer.files()?);
    }
    write_folder(folder, tensors, &files)
}

/// Writes what a device needs of the model: the embedding, the first `blocks` blocks, the language model's head
/// and the tokenizer.
pub(super) fn save_half(folder: &Path, base: &PretrainedText, blocks: usize) -> Result<()> {
    let mut tensors = half(base, blocks)?;
    transpose(&mut tensors, base)?;
    let head = base.language_head()?;
    tensors.extend(head.map(|head| (LANGUAGE_HEAD.to_string(), head)));
    let mut config = named(base);
    config.insert("tie_word_embeddings".into(), base.config.tied_head.into());
    config.insert(BLOCKS.into(), blocks.into());
    config.remove("id2label");
    let mut files = vec![("config.json", config.into())];
    if let Some(tokenizer) = &base.tokenizer {
        files.extend(tokenizer.files()?);
    }
    write_folder(folder, tensors, &files)
}

/// Transposes what the family's files have transposed.
fn transpose(tensors: &mut HashMap<String, Tensor>, base: &PretrainedText) -> Result<()> {
    let names = base.config.family.names();
    let tensors = tensors.iter_mut();
    for (_, tensor) in tensors.filter(|(name, _)| names.is_transposed(name)) {
        *tensor = tensor.t()?.contiguous()?;
    }
    Ok(())
}

/// What the files that the model was read from say and that still holds.
fn named(base: &PretrainedText) -> Map<String, Value> {
    let mut config = base.json.clone();
    config.retain(|name, _| !PASSED.contains(&name.as_str()));
    config.insert("dtype".into(), "float32".into());
    config
}

fn config(base: &PretrainedText, head: &Head) -> Value {
    let mut config = named(base);
    let family = family(base);
    if head.is_none() {
        let class = match base.config.family {
            TextFamily::Gpt2 => "GPT2LMHeadModel".into(),
            _ => format!("{family}ForCausalLM"),
        };
        config.insert("architectures".into(), json!([class]));
        config.insert("tie_word_embeddings".into(), base.config.tied_head.into());
    } else {
        let class = match base.config.family {
            TextFamily::Gemma3 => "Gemma3Text",
            _ => family,
        };
        classify(
            &mut config,
            &format!("{class}ForSequenceClassification"),
            head.classes,
        );
    }
    let special = base.tokenizer.as_ref().map(Tokenizer::special);
    let pad = special.and_then(|special| special.pad.or(special.eos));
    if let Some(pad) = pad.filter(|_| base.config.family.is_decoder()) {
        // What Transformers finds the last token of a sample by.
        config.insert("pad_token_id".into(), pad.into());
    }
    config.into()
}

/// How Transformers begins the names of the family's classes.
fn family(base: &PretrainedText) -> &'static str {
    let kind = base.json.get("model_type");
    match base.config.family {
        TextFamily::Llama => "Llama",
        TextFamily::Mistral => "Mistral",
        TextFamily::Qwen2 => "Qwen2",
        TextFamily::Qwen3 => "Qwen3",
        TextFamily::Gemma2 => "Gemma2",
        TextFamily::Gemma3 => "Gemma3",
        TextFamily::Bert => "Bert",
        TextFamily::Roberta if kind.is_some_and(|kind| kind == "xlm-roberta") => "XLMRoberta",
        TextFamily::Roberta => "Roberta",
        TextFamily::DistilBert => "DistilBert",
        TextFamily::Gpt2 => "GPT2",
    }
}
