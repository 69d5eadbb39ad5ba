//! From texts to token ids and back.

/// The vocabulary of a GGUF file.
mod gguf;
/// Conversations as texts.
mod template;

use std::ops::Range;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::{TruncationDirection, TruncationParams};

pub use template::ChatTemplate;

use super::pretrained::read_json;
use crate::{Error, Result};

const TOKENIZER: &str = "tokenizer.json";
const SETTINGS: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";

/// The tokenizer of a text model; cloning copies the vocabulary.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: SpecialTokens,
    chat_template: Option<String>,
    /// What `tokenizer_config.json` says.
    settings: Map<String, Value>,
}

/// The ids of tokens that stand for no text, where the model has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// What a text begins with.
    pub bos: Option<u32>,
    /// What a text ends with.
    pub eos: Option<u32>,
    /// What fills a batch.
    pub pad: Option<u32>,
}

impl Tokenizer {
    /// The tokenizer beside a `config.json`, where there is a `tokenizer.json`, without its cutting
    /// and padding.
    ///
    /// # Errors
    /// A file that cannot be read, or is no tokenizer.
    pub(super) fn open(folder: &Path, config: &Map<String, Value>) -> Result<Option<Self>> {
        let path = folder.join(TOKENIZER);
        if !path.exists() {
            return Ok(None);
        }
        let inner = tokenizers::Tokenizer::from_file(&path).map_err(|e| Error::file(&path, e))?;
        let inner = unlimited(inner).map_err(|reason| Error::file(&path, reason))?;
        let settings = folder.join(SETTINGS);
        let settings = settings
            .exists()
            .then(|| read_json(&settings))
            .transpose()?;
        let settings = settings.unwrap_or_default();
        Ok(Some(Self {
            special: special_tokens(&inner, &settings, config),
            chat_template: chat_template(folder, &settings)?,
            settings,
            inner,
        }))
    }

    /// The same of the contents of a `tokenizer.json` alone.
    ///
    /// # Errors
    /// What is wrong with the contents.
    pub(super) fn from_json(text: &str, config: &Map<String, Value>) -> Result<Self, String> {
        let inner = text.parse::<tokenizers::Tokenizer>();
        let inner = inner.map_err(|e| format!("{TOKENIZER}: {e}"))?;
        let inner = unlimited(inner)?;
        Ok(Self {
            special: special_tokens(&inner, &Map::new(), config),
            chat_template: None,
            settings: Map::new(),
            inner,
        })
    }

    /// The tokenizer that a GGUF file's settings describe.
    ///
    /// # Errors
    /// The setting that is missing or names what is not read, with its value.
    pub(super) fn from_gguf(settings: &Map<String, Value>) -> Result<Self, String> {
        let inner = gguf::tokenizer(settings)?;
        let id = |name: &str| {
            let id = settings.get(&format!("tokenizer.ggml.{name}_token_id"));
            id.and_then(Value::as_u64)
                .and_then(|id| u32::try_from(id).ok())
        };
        let template = settings
            .get("tokenizer.chat_template")
            .and_then(Value::as_str);
        Ok(Self {
            inner,
            special: SpecialTokens {
                bos: id("bos"),
                eos: id("eos"),
                pad: id("padding"),
            },
            chat_template: template.map(str::to_string),
            settings: Map::new(),
        })
    }

    /// The files that it is read from again, by name.
    ///
    /// # Errors
    /// A tokenizer that has no form in JSON.
    pub(super) fn files(&self) -> Result<[(&'static str, Value); 2]> {
        let refused = |e: &dyn std::fmt::Display| Error::argument("tokenizer", e.to_string());
        let text = self.inner.to_string(false).map_err(|e| refused(&e))?;
        let tokenizer = serde_json::from_str(&text).map_err(|e| refused(&e))?;
        let mut settings = self.settings.clone();
        let class = || "PreTrainedTokenizerFast".into();
        settings.entry("tokenizer_class").or_insert_with(class);
        let SpecialTokens { bos, eos, pad } = self.special;
        for (name, id) in [("bos_token", bos), ("eos_token", eos), ("pad_token", pad)] {
            let token = id.and_then(|id| self.inner.id_to_token(id));
            if let Some(token) = token {
                settings.entry(name).or_insert_with(|| token.into());
            }
        }
        if let Some(template) = &self.chat_template {
            settings.insert("chat_template".into(), template.as_str().into());
        }
        Ok([(TOKENIZER, tokenizer), (SETTINGS, settings.into())])
    }

    /// The ids of a text; with `special` also of those tokens that the model wants before and after
    /// it, such as BERT's class token.
    ///
    /// # Errors
    /// A text that the tokenizer has no ids for.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, special);
        let refused = |e: tokenizers::Error| Error::argument("text", format!("has no ids: {e}"));
        Ok(encoding.map_err(refused)?.get_ids().to_vec())
    }

    /// The same that gives at most so many ids, special ones among them, of a longer text those of
    /// its end where `keep_last` says so, else of its start.
    ///
    /// # Errors
    /// Fewer than the special ones and one more.
    pub fn limited(&self, most: usize, keep_last: bool) -> Result<Self> {
        let mut limited = self.clone();
        let direction = if keep_last {
            TruncationDirection::Left
        } else {
            TruncationDirection::Right
        };
        let special = self.encode("", true)?.len();
        let accepted = format!("more than {special}, the special tokens");
        Error::require(most > special, "max_tokens", most, &accepted)?;
        let cut = TruncationParams {
            max_length: most,
            direction,
            ..TruncationParams::default()
        };
        let refused = |e: tokenizers::Error| Error::argument("max_tokens", e.to_string());
        limited.inner.with_truncation(Some(cut)).map_err(refused)?;
        Ok(limited)
    }

    /// The ids of a text as [`Self::encode`] gives them with special ones, and whether it was cut.
    ///
    /// # Errors
    /// A text that the tokenizer has no ids for.
    pub fn encode_limited(&self, text: &str) -> Result<(Vec<u32>, bool)> {
        let refused = |e: tokenizers::Error| Error::argument("text", format!("has no ids: {e}"));
        let encoding = self.inner.encode(text, true).map_err(refused)?;
        let was_cut = !encoding.get_overflowing().is_empty();
        Ok((encoding.get_ids().to_vec(), was_cut))
    }

    /// The ids of a text, each with the bytes of the text that it stands for; with `special` also of the
    /// tokens before and after it, which stand for none.
    ///
    /// # Errors
    /// A text that the tokenizer has no ids for.
    pub fn encode_places(&self, text: &str, special: bool) -> Result<Vec<(u32, Range<usize>)>> {
        let refused = |e: tokenizers::Error| Error::argument("text", format!("has no ids: {e}"));
        let encoding = self.inner.encode(text, special).map_err(refused)?;
        let ids = encoding.get_ids().iter().zip(encoding.get_offsets());
        Ok(ids.map(|(&id, &(start, end))| (id, start..end)).collect())
    }

    /// The text of ids, without special tokens.
    ///
    /// # Errors
    /// Ids that have no text.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let refused = |e: tokenizers::Error| Error::argument("ids", format!("have no text: {e}"));
        self.inner.decode(ids, true).map_err(refused)
    }

    /// The id of a token of the vocabulary.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Tokens that stand for no text.
    pub fn special(&self) -> SpecialTokens {
        self.special
    }

    /// How a conversation is written as one text, in Jinja, where the files say so.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// The same, ready for conversations.
    ///
    /// # Errors
    /// What is no template.
    pub fn chat(&self) -> Result<Option<ChatTemplate>> {
        let text = |id: Option<u32>| id.and_then(|id| self.inner.id_to_token(id));
        let ends = [self.special.bos, self.special.eos].map(|id| text(id).unwrap_or_default());
        let template = self.chat_template.as_deref();
        template
            .map(|source| ChatTemplate::new(source, ends))
            .transpose()
    }
}

/// The same without cutting and padding.
fn unlimited(mut inner: tokenizers::Tokenizer) -> Result<tokenizers::Tokenizer, String> {
    inner.with_truncation(None).map_err(|e| e.to_string())?;
    inner.with_padding(None);
    Ok(inner)
}

/// Special tokens by their text in the tokenizer's settings, else by their id in the model's.
fn special_tokens(
    inner: &tokenizers::Tokenizer,
    settings: &Map<String, Value>,
    config: &Map<String, Value>,
) -> SpecialTokens {
    let find = |name: &str| {
        let token = settings.get(&format!("{name}_token"));
        let text =
            token.and_then(|token| token.as_str().or_else(|| token.get("content")?.as_str()));
        let id = || {
            // Several ends of a text are a list.
            let id = config.get(&format!("{name}_token_id"))?;
            u32::try_from(id.as_u64().or_else(|| id.get(0)?.as_u64())?).ok()
        };
        text.and_then(|text| inner.token_to_id(text)).or_else(id)
    };
    SpecialTokens {
        bos: find("bos"),
        eos: find("eos"),
        pad: find("pad"),
    }
}

fn chat_template(folder: &Path, settings: &Map<String, Value>) -> Result<Option<String>> {
    let path = folder.join(TEMPLATE);
    if path.exists() {
        return std::fs::read_to_string(&path)
            .map(Some)
            .map_err(|e| Error::file(&path, e));
    }
    let template = match settings.get("chat_template") {
        Some(Value::Array(named)) => {
            let default = named.iter().find(|template| template["name"] == "default");
            default.and_then(|template| template["template"].as_str())
        }
        template => template.and_then(Value::as_str),
    };
    Ok(template.map(str::to_string))
}
