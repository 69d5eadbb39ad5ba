//! A tokenizer from the vocabulary that a GGUF file has: the `tokenizer.json` of the same model.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// How `LLaMA` 3 and Qwen 2 cut a text, but for the digits of a number.
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

/// What `SentencePiece` has for a space.
const SPACE: &str = "\u{2581}";

/// What `tokenizer.ggml.*` says.
struct Vocabulary<'a>(&'a Map<String, Value>);

/// The tokenizer that the settings of a GGUF file describe.
pub(super) fn tokenizer(settings: &Map<String, Value>) -> Result<tokenizers::Tokenizer, String> {
    let vocabulary = Vocabulary(settings);
    let json = match vocabulary.text("model")? {
        "gpt2" => vocabulary.byte_pairs()?,
        "llama" => vocabulary.sentence_pieces()?,
        _ => return Err(vocabulary.wrong("model", "gpt2 or llama")),
    };
    let bytes = serde_json::to_vec(&json).map_err(|e| e.to_string())?;
    tokenizers::Tokenizer::from_bytes(bytes)
        .map_err(|e| format!("tokenizer.ggml.tokens and merges: {e}"))
}

/// The id of each token.
fn ids<'t>(tokens: &[&'t str]) -> Result<HashMap<&'t str, usize>, String> {
    let mut ids = HashMap::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        if ids.insert(*token, id).is_some() {
            return Err(format!("tokenizer.ggml.tokens has {token:?} twice"));
        }
    }
    Ok(ids)
}

impl<'a> Vocabulary<'a> {
    /// Byte pairs that are merged in the order of a list.
    fn byte_pairs(&self) -> Result<Value, String> {
        let tokens = self.texts("tokens")?;
        let ids = ids(&tokens)?;
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

    /// `SentencePiece`'s byte pairs, which are merged in the order of their scores.
    fn sentence_pieces(&self) -> Result<Value, String> {
        let tokens = self.texts("tokens")?;
        let ids = ids(&tokens)?;
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let mut normalizers = vec![spaces];
        if self.flag("add_space_prefix", true) {
            normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
        }
        let unknown = self.0.get("tokenizer.ggml.unknown_token_id");
        let unknown = unknown
            .map(|_| self.token("unknown", &tokens))
            .transpose()?;
        Ok(json!({
            "version": "1.0",
            "added_tokens": self.added(&tokens)?,
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "post_processor": self.around(&tokens, true)?,
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": usize::from(normalizers.len() > 1), "stop": 0},
            ]},
            "model": {
                "type": "BPE", "vocab": ids, "merges": self.merges(&tokens, &ids)?,
                "unk_token": unknown.map(|(token, _)| token), "fuse_unk": true, "byte_fallback": true,
            },
        }))
    }

    /// All ways to make a token of two others, the tokens of the highest scores first.
    fn merges<'t>(
        &self,
        tokens: &[&'t str],
        ids: &HashMap<&str, usize>,
    ) -> Result<Vec<[&'t str; 2]>, String> {
        let scores = self
            .0
            .get("tokenizer.ggml.scores")
            .and_then(Value::as_array);
        let scores = scores.and_then(|list| list.iter().map(Value::as_f64).collect());
        let scores: Option<Vec<f64>> =
            scores.filter(|scores: &Vec<_>| scores.len() == tokens.len());
        let wrong = || {
            format!(
                "tokenizer.ggml.scores must be a list of {} numbers",
                tokens.len()
            )
        };
        let scores = scores.ok_or_else(wrong)?;
        let mut merges = Vec::new();
        for (token, score) in tokens.iter().zip(scores) {
            let mut pairs: Vec<_> = token
                .char_indices()
                .skip(1)
                .filter_map(|(at, _)| {
                    let pair = token.split_at(at);
                    Some((*ids.get(pair.0)?, *ids.get(pair.1)?, pair))
                })
                .collect();
            pairs.sort_unstable();
            merges.extend(pairs.into_iter().map(|(.., pair)| (score, pair)));
        }
        let size = |text: &str| text.chars().count();
        merges.sort_by(|(a, x), (b, y)| {
            let lengths = (size(y.0), size(y.1)).cmp(&(size(x.0), size(x.1)));
            b.total_cmp(a).then(lengths)
        });
        Ok(merges
            .into_iter()
            .map(|(_, (left, right))| [left, right])
            .collect())
    }

    /// How a text is cut and made uniform before its bytes are merged, by the name of it; and
    /// whether that is `LLaMA` 3's.
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

    /// The tokens before and after a text; whether there is one before where the file says nothing.
    fn around(&self, tokens: &[&str], begun: bool) -> Result<Value, String> {
        let [bos, eos] = [("bos", begun), ("eos", false)].map(|(name, default)| {
            let wanted = self.flag(&format!("add_{name}_token"), default);
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

    fn flag(&self, name: &str, default: bool) -> bool {
        let value = self.0.get(&format!("tokenizer.ggml.{name}"));
        value.and_then(Value::as_bool).unwrap_or(default)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use crate::model::checkpoint::Gguf;
    use crate::model::text::Tokenizer;

    fn fixture(name: &str) -> std::path::PathBuf {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text");
        fixtures.join(name)
    }

    #[test]
    fn ids_of_odd_texts_are_those_of_the_models_tokenizer() {
        let json = std::fs::read_to_string(fixture("vocabularies.json")).unwrap();
        let expected: Value = serde_json::from_str(&json).unwrap();
        for name in ["gpt-2", "smollm", "llama-bpe", "qwen2", "llama"] {
            let file = Gguf::open(&fixture(&format!("vocabulary_{name}.gguf"))).unwrap();
            let tokenizer = Tokenizer::from_gguf(&file.settings).unwrap();
            let texts = expected["texts"].as_array().unwrap();
            assert_eq!(texts.len(), expected["ids"][name].as_array().unwrap().len());
            for (i, text) in texts.iter().enumerate() {
                let text = text.as_str().unwrap();
                let ids = tokenizer.encode(text, true).unwrap();
                assert_eq!(json!(ids), expected["ids"][name][i], "{name}: {text:?}");
                if name != "qwen2" && !text.contains("<|") {
                    assert_eq!(tokenizer.decode(&ids).unwrap(), text, "{name}");
                }
            }
        }
    }

    #[test]
    fn what_a_vocabulary_says_is_kept() {
        let file = Gguf::open(&fixture("vocabulary_smollm.gguf")).unwrap();
        let tokenizer = Tokenizer::from_gguf(&file.settings).unwrap();
        let special = tokenizer.special();
        assert_eq!(
            (special.bos, special.eos, special.pad),
            (Some(1), Some(2), Some(0))
        );
        assert_eq!(tokenizer.chat_template(), Some("{{ messages }}"));
        assert_eq!(tokenizer.id("<|im_end|>"), Some(2));
    }

    #[test]
    fn vocabularies_that_are_not_read_are_refused_by_name() {
        let settings = Gguf::open(&fixture("vocabulary_smollm.gguf"))
            .unwrap()
            .settings;
        let refusal = |name: &str, value: Value| {
            let mut settings = settings.clone();
            settings.insert(format!("tokenizer.ggml.{name}"), value);
            Tokenizer::from_gguf(&settings).unwrap_err()
        };
        for (name, value, wanted) in [
            (
                "model",
                json!("t5"),
                "model must be gpt2 or llama, got \"t5\"",
            ),
            ("pre", json!("falcon"), "got \"falcon\""),
            ("tokens", json!(["a", "b", "a"]), "has \"a\" twice"),
            ("tokens", json!([1]), "must be a list of texts"),
            ("merges", Value::Null, "must be a list of texts"),
            ("merges", json!(["a zebra"]), "out of vocabulary"),
            ("token_type", json!([1]), "must be a list of 400"),
        ] {
            let error = refusal(name, value);
            assert!(error.contains(wanted) && error.contains(name), "{error}");
        }
        let settings = Gguf::open(&fixture("vocabulary_llama.gguf"));
        let mut settings = settings.unwrap().settings;
        settings.insert("tokenizer.ggml.bos_token_id".into(), json!(480));
        let error = Tokenizer::from_gguf(&settings).unwrap_err();
        let wanted = "bos_token_id must be the id of a token, got 480";
        assert!(error.contains(wanted), "{error}");
    }
}
