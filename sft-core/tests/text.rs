//! Reading text models: agreement with Transformers, and refusals.
//!
//! `fixtures/make_text.py` wrote the models and the expected values with torch 2.15 and transformers
//! 5.24.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use sft_core::data::Inputs;
use sft_core::model::{Backend, Model, Pooling, PretrainedText, TextModel};

/// Folders and GGUF files, each with what Transformers makes of it.
const MODELS: [(&str, &str); 14] = [
    ("llama", "llama/expected.safetensors"),
    ("llama_shards", "llama_shards/expected.safetensors"),
    ("mistral", "mistral/expected.safetensors"),
    ("qwen2", "qwen2/expected.safetensors"),
    ("qwen3", "qwen3/expected.safetensors"),
    ("gemma2", "gemma2/expected.safetensors"),
    ("gemma3", "gemma3/expected.safetensors"),
    ("bert", "bert/expected.safetensors"),
    ("roberta", "roberta/expected.safetensors"),
    ("distilbert", "distilbert/expected.safetensors"),
    ("llama.gguf", "llama.gguf.safetensors"),
    ("qwen2.gguf", "qwen2.gguf.safetensors"),
    ("qwen3.gguf", "qwen3.gguf.safetensors"),
    ("gemma3.gguf", "gemma3.gguf.safetensors"),
];

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text");
    fixtures.join(name)
}

fn expected(name: &str) -> (HashMap<String, Tensor>, Inputs) {
    let tensors = candle_core::safetensors::load(fixture(name), &Device::Cpu).unwrap();
    let lengths = tensors["lengths"].to_dtype(DType::U32).unwrap();
    let inputs = Inputs::Tokens {
        ids: tensors["ids"].to_dtype(DType::U32).unwrap(),
        lengths: lengths.to_vec1().unwrap(),
    };
    (tensors, inputs)
}

/// The largest difference relative to the largest value.
fn error(got: &Tensor, want: &Tensor) -> f32 {
    let largest = |x: &Tensor| {
        x.abs()
            .unwrap()
            .max_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
    };
    largest(&(got - want).unwrap()) / largest(want)
}

fn assert_features(backend: &Backend) {
    let mut wrong = Vec::new();
    for (name, file) in MODELS {
        let (tensors, inputs) = expected(file);
        let model = PretrainedText::open(&fixture(name)).unwrap();
        for (pooling, want) in [
            (Pooling::First, "first"),
            (Pooling::Last, "last"),
            (Pooling::Mean, "mean"),
        ] {
            let backend = backend.clone();
            let made = TextModel::new(&model.config, &model.weights, pooling, backend).unwrap();
            let error = error(&made.features(&inputs).unwrap(), &tensors[want]);
            if error.is_nan() || error > 1e-4 {
                wrong.push(format!("{name} {want}: {error:e}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn features_agree_with_transformers_in_candle() {
    assert_features(&Backend::Candle(Device::Cpu));
}

#[test]
fn features_agree_with_transformers_in_the_engine() {
    assert_features(&Backend::default());
}
