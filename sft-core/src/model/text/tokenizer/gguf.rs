//! A tokenizer from the vocabulary that a GGUF file has.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// How LLaMA 3 and Qwen 2 cut a text, but for the digits of a number.
const WORDS: [&str; 2] = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];

/// How GPT-2 cuts a text, but for contractions at the end of a word.
const DEFAULT: [&str; 4] = [
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
];

/// The kinds of tokens that stand for no text, and of those that a text is cut at first.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// What `tokenizer.ggml.*` says.
struct Vocabulary<'a>(&'a Map<String, Value>);

/// The tokenizer that the settings of a GGUF file describe.
pub(super) fn tokenizer(settings: &Map<String, Value>) -> Result<tokenizers::Tokenizer, String> {
    let vocabulary = Vocabulary(settings);
    let model = vocabulary.text("model")?;
    if model != "gpt2" {
        return Err(vocabulary.wrong("model", "gpt2"));
    }
    let json = vocabulary.byte_pairs()?;
    let bytes = serde_json::to_vec(&json).map_err(|e| e.to_string())?;
    tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| format!("the vocabulary: {e}"))
}

impl<'a> Vocabulary<'a> {
    /// The `tokenizer.json` of byte pairs that are merged in the order of a list.
    fn byte_pairs(&self) -> Result<Value, String> {
        let tokens = self.texts("tokens")?;
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if ids.insert(*token, id).is_some() {
                return Err(format!("tokenizer.ggml.tokens has {token:?} twice"));
            }
        }
        let (splits, normalizer, llama) = self.splits()?;
        Ok(json!({
            "version": "1.0",
            "added_tokens": self.added(&tokens)?,
            "normalizer": normalizer,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits},
            "post_processor": self.around(&tokens, llama)?,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {
                "type": "BPE", "vocab": ids, "merges": self.texts("merges")?,
                "ignore_merges": llama, "fuse_unk": false, "byte_fallback": false,
            },
        }))
    }

    /// How a text is cut and made uniform before its bytes are merged, by the name of it; and
    /// whether that is LLaMA 3's.
    fn splits(&self) -> Result<(Vec<Value>, Value, bool), String> {
        let split = |pattern: &str| {
            json!({
                "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false,
            })
        };
        let words = |digits: &str| split(&format!("{}{digits}{}", WORDS[0], WORDS[1]));
        let byte_level = |cut: bool| {
            json!({
                "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": cut,
            })
        };
        let name = self
            .0
            .get("tokenizer.ggml.pre")
            .map_or(Some("default"), Value::as_str);
        let digits = json!({"type": "Digits", "individual_digits": true});
        let plain = Value::Null;
        Ok(match name {
            Some("gpt-2") => (vec![byte_level(true)], plain, false),
            Some("smollm") => (vec![digits, byte_level(true)], plain, false),
            Some("llama-bpe" | "llama3" | "llama-v3") => {
                (vec![words(r"\p{N}{1,3}"), byte_level(false)], plain, true)
            }
            Some("qwen2") => {
                let canonical = json!({"type": "NFC"});
                (vec![words(r"\p{N}"), byte_level(false)], canonical, false)
            }
            Some("default") => {
                let mut cuts: Vec<_> = DEFAULT.into_iter().map(split).collect();
                cuts.push(byte_level(false));
                (cuts, plain, false)
            }
            _ => return Err(self.wrong("pre", "one of default, gpt-2, llama-bpe, qwen2, smollm")),
        })
    }

    /// Tokens that a text is cut at before anything else.
    fn added(&self, tokens: &[&str]) -> Result<Vec<Value>, String> {
        let Some(kinds) = self.0.get("tokenizer.ggml.token_type") else {
            return Ok(Vec::new());
        };
        let kinds = kinds.as_array().filter(|kinds| kinds.len() == tokens.len());
        let kinds = kinds.ok_or_else(|| {
            format!(
                "tokenizer.ggml.token_type must be a list of {}",
                tokens.len()
            )
        })?;
        let added = kinds
            .iter()
            .zip(tokens)
            .enumerate()
            .filter_map(|(id, (kind, token))| {
                let special = kind.as_u64()? == CONTROL;
                (special || kind.as_u64()? == USER_DEFINED).then(|| {
                    json!({
                        "id": id, "content": token, "special": special, "single_word": false,
                        "lstrip": false, "rstrip": false, "normalized": false,
                    })
                })
            });
        Ok(added.collect())
    }

    /// The tokens before and after a text.
    fn around(&self, tokens: &[&str], llama: bool) -> Result<Value, String> {
        let [bos, eos] = [("bos", llama), ("eos", false)].map(|(name, default)| {
            let wanted = self.0.get(&format!("tokenizer.ggml.add_{name}_token"));
            let wanted = wanted.and_then(Value::as_bool).unwrap_or(default);
            wanted.then(|| self.token(name, tokens)).transpose()
        });
        let (bos, eos) = (bos?, eos?);
        let piece = |(token, _): &(&str, u64)| json!({"SpecialToken": {"id": token, "type_id": 0}});
        let text = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
        let around = |names: &[&str]| {
            let texts = names.iter().map(|name| text(name));
            bos.iter()
                .map(piece)
                .chain(texts)
                .chain(eos.iter().map(piece))
                .collect::<Vec<_>>()
        };
        let special = bos.iter().chain(&eos).map(|(token, id)| {
            (
                (*token).to_string(),
                json!({"id": token, "ids": [id], "tokens": [token]}),
            )
        });
        Ok(json!({
            "type": "TemplateProcessing",
            "single": around(&["A"]),
            "pair": around(&["A", "B"]),
            "special_tokens": special.collect::<Map<_, _>>(),
        }))
    }

    fn token<'t>(&self, name: &str, tokens: &[&'t str]) -> Result<(&'t str, u64), String> {
        let name = format!("{name}_token_id");
        let id = self
            .0
            .get(&format!("tokenizer.ggml.{name}"))
            .and_then(Value::as_u64);
        let token = id.and_then(|id| Some((*tokens.get(usize::try_from(id).ok()?)?, id)));
        token.ok_or_else(|| self.wrong(&name, "the id of a token"))
    }

    fn text(&self, name: &str) -> Result<&'a str, String> {
        let text = self
            .0
            .get(&format!("tokenizer.ggml.{name}"))
            .and_then(Value::as_str);
        text.ok_or_else(|| self.wrong(name, "a text"))
    }

    fn texts(&self, name: &str) -> Result<Vec<&'a str>, String> {
        let list = self
            .0
            .get(&format!("tokenizer.ggml.{name}"))
            .and_then(Value::as_array);
        let texts = list.and_then(|list| list.iter().map(Value::as_str).collect());
        texts.ok_or_else(|| format!("tokenizer.ggml.{name} must be a list of texts"))
    }

    fn wrong(&self, name: &str, accepted: &str) -> String {
        let name = format!("tokenizer.ggml.{name}");
        let got = self.0.get(&name).unwrap_or(&Value::Null);
        format!("{name} must be {accepted}, got {got}")
    }
}
