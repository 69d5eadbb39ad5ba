//! A small language model's files, with texts that it can learn.

use std::path::PathBuf;

use sft_core::run::{RunConfig, Scheme};
use sft_core::split::CutCodec;

use super::Folder;

/// A tokenizer for words between spaces; `<end>` ends a text.
pub const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 2, "content": "<end>", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null,
    "decoder": null, "model": {"type": "WordLevel", "unk_token": "?",
    "vocab": {"?": 0, "<end>": 2, "user:": 3, "bot:": 4, "yes": 5, "no": 9, "the": 40, "a": 41,
        "far": 48}}}"#;
pub const TEMPLATE: &str = "{% for message in messages %}{{ 'bot' if message.role == 'assistant' else message.role }}: {{ message.content }} \
    {{ eos_token }} {% endfor %}{% if add_generation_prompt %}bot: {% endif %}";

/// Questions whose answer is the other word, in many lengths.
pub fn pairs(count: usize) -> String {
    let line = |i: usize| {
        let (word, other) = [("yes", "no"), ("no", "yes")][i % 2];
        let more = " the".repeat(i * i % 7);
        format!("{{\"prompt\": \"a{more} {word}\", \"completion\": \" {other} {other}\"}}\n")
    };
    (0..count).map(line).collect()
}

/// A model's files, with a tokenizer and texts.
pub fn config(folder: &Folder, model: &str) -> RunConfig {
    let model = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/text")
        .join(model);
    for entry in std::fs::read_dir(model).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        folder.write(name, &std::fs::read(&path).unwrap());
    }
    folder.write("tokenizer.json", TOKENIZER.as_bytes());
    folder.write("tokenizer_config.json", br#"{"eos_token": "<end>"}"#);
    folder.write("train.jsonl", pairs(48).as_bytes());
    folder.write("test.jsonl", pairs(14).as_bytes());
    let named = |name: &str| Some(format!("chat:{}", folder.0.join(name).display()));
    RunConfig {
        scheme: vec![Scheme::Sft],
        model: Some(folder.0.clone()),
        data: named("train.jsonl"),
        test: named("test.jsonl"),
        devices: 2,
        rounds: 3,
        batch: 8,
        cut: 1,
        rank: 4,
        lr: 2e-2,
        activation: CutCodec::raw(),
        gradient: CutCodec::raw(),
        ..RunConfig::default()
    }
}

/// Tied to the embedding, and a matrix of its own.
pub const MODELS: [&str; 2] = ["qwen2", "llama_shards"];
