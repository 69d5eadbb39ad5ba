//! The tuned model as one model, for whoever knows no adapters.

use std::path::Path;

use serde_json::Value;

use super::{PretrainedText, TextFamily, Tokenizer};
use crate::Result;
use crate::adapter::{Adapters, Lora};
use crate::model::merged::{classify, merged, write_folder};

/// Settings of the files that the model was read from and that do not hold of it any more.
const PASSED: [&str; 5] = [
    "auto_map",
    "num_labels",
    "problem_type",
    "quantization_config",
    "torch_dtype",
];

/// Writes the tuned model as Transformers' class of the family for sequence classification:
/// `model.safetensors`, `config.json`, and the tokenizer's files where the model has one.
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
    let mut files = vec![("config.json", config(base, adapters.head.classes))];
    if let Some(tokenizer) = &base.tokenizer {
        files.extend(tokenizer.files()?);
    }
    write_folder(folder, tensors, &files)
}

fn config(base: &PretrainedText, classes: usize) -> Value {
    let mut config = base.json.clone();
    config.retain(|name, _| !PASSED.contains(&name.as_str()));
    config.insert("dtype".into(), "float32".into());
    classify(&mut config, architecture(base), classes);
    let special = base.tokenizer.as_ref().map(Tokenizer::special);
    let pad = special.and_then(|special| special.pad.or(special.eos));
    if let Some(pad) = pad.filter(|_| base.config.family.is_decoder()) {
        // What Transformers finds the last token of a sample by.
        config.insert("pad_token_id".into(), pad.into());
    }
    config.into()
}

fn architecture(base: &PretrainedText) -> &'static str {
    match base.config.family {
        TextFamily::Llama => "LlamaForSequenceClassification",
        TextFamily::Mistral => "MistralForSequenceClassification",
        TextFamily::Qwen2 => "Qwen2ForSequenceClassification",
        TextFamily::Qwen3 => "Qwen3ForSequenceClassification",
        TextFamily::Gemma2 => "Gemma2ForSequenceClassification",
        TextFamily::Gemma3 => "Gemma3TextForSequenceClassification",
        TextFamily::Bert => "BertForSequenceClassification",
        TextFamily::Roberta
            if base
                .json
                .get("model_type")
                .is_some_and(|kind| kind == "xlm-roberta") =>
        {
            "XLMRobertaForSequenceClassification"
        }
        TextFamily::Roberta => "RobertaForSequenceClassification",
        TextFamily::DistilBert => "DistilBertForSequenceClassification",
    }
}
