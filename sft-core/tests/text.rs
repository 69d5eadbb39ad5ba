//! Reading text models: agreement with Transformers, and refusals.
//!
//! `fixtures/make_text.py` wrote the models and the expected values with torch 2.15 and transformers
//! 5.24.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, Var};
use serde_json::Value;
use sft_core::adapter::{Adapters, Head, Lora, ModuleNames, TargetModules, load_peft, save_peft};
use sft_core::data::Inputs;
use sft_core::model::{
    Backend, Model, Pooling, Pretrained, PretrainedText, TextConfig, TextFamily, TextModel,
};

/// Folders and GGUF files, each with what Transformers makes of it.
const MODELS: [(&str, &str); 15] = [
    ("llama", "llama/expected.safetensors"),
    ("llama_shards", "llama_shards/expected.safetensors"),
    ("mistral", "mistral/expected.safetensors"),
    ("qwen2", "qwen2/expected.safetensors"),
    ("qwen3", "qwen3/expected.safetensors"),
    ("gemma2", "gemma2/expected.safetensors"),
    ("gemma3", "gemma3/expected.safetensors"),
    ("gpt2", "gpt2/expected.safetensors"),
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
            let mut want = tensors[want].clone();
            if let (Pooling::First, Some([weight, bias])) = (pooling, model.pooler().unwrap()) {
                let rows = want.matmul(&weight.t().unwrap()).unwrap();
                let rows = rows.broadcast_add(&bias).unwrap();
                want = match model.config.family {
                    TextFamily::DistilBert => rows.relu().unwrap(),
                    _ => rows.tanh().unwrap(),
                };
            }
            let error = error(&made.features(&inputs).unwrap(), &want);
            if error.is_nan() || error > 1e-4 {
                wrong.push(format!("{name} {pooling:?}: {error:e}"));
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

#[test]
fn features_of_tokens_are_those_that_heads_read() {
    for backend in [Backend::Candle(Device::Cpu), Backend::default()] {
        let (tensors, inputs) = expected("llama/expected.safetensors");
        let Inputs::Tokens { lengths, .. } = &inputs else {
            panic!("the fixture has texts")
        };
        let model = PretrainedText::open(&fixture("llama")).unwrap();
        let made = TextModel::new(&model.config, &model.weights, Pooling::Last, backend).unwrap();
        let rows = made.token_features(&inputs).unwrap();
        let all: u32 = lengths.iter().sum();
        assert_eq!(rows.dims(), [all as usize, model.config.width]);
        let mut start = 0;
        for (sample, &length) in lengths.iter().enumerate() {
            let own = rows.narrow(0, start, length as usize).unwrap();
            start += length as usize;
            let last = own.get(length as usize - 1).unwrap();
            let want = |name: &str| tensors[name].get(sample).unwrap();
            assert!(error(&last, &want("last")) < 1e-4);
            assert!(error(&own.mean(0).unwrap(), &want("mean")) < 1e-4);
        }
    }
}

#[test]
fn a_model_in_memory_is_that_of_its_files() {
    let folder = fixture("llama");
    let [weights, config] =
        ["model.safetensors", "config.json"].map(|name| std::fs::read(folder.join(name)).unwrap());
    let config = String::from_utf8(config).unwrap();
    let tokenizer = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "decoder": null, "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}}"#;
    let model = PretrainedText::from_bytes(&weights, &config, tokenizer).unwrap();
    let same = PretrainedText::open(&folder).unwrap();
    assert_eq!(model.config, same.config);
    assert_eq!(model.config, TextConfig::from_json(&config).unwrap());
    for (name, _) in model.parameters() {
        let [here, there] = [&model, &same].map(|model| {
            let weight = model.weight(&name).unwrap().flatten_all().unwrap();
            weight.to_vec1::<f32>().unwrap()
        });
        assert_eq!(here, there, "{name}");
    }
    let ids = model.tokenizer.unwrap().encode("b a", false).unwrap();
    assert_eq!(ids, [1, 0]);
    let refused = |weights: &[u8], config: &str, tokenizer: &str| {
        PretrainedText::from_bytes(weights, config, tokenizer).unwrap_err()
    };
    assert!(refused(&weights, &config, "{}").starts_with("tokenizer.json: "));
    assert!(refused(&weights, "{", tokenizer).starts_with("config.json: "));
    assert!(refused(&weights[..9], &config, tokenizer).contains("not a complete safetensors file"));
}

#[test]
fn heads_of_decoders_give_the_logits_of_transformers() {
    for name in ["llama", "qwen3"] {
        let (tensors, inputs) = expected(&format!("{name}/expected.safetensors"));
        let model = PretrainedText::open(&fixture(name)).unwrap();
        let backend = Backend::default();
        let made = TextModel::new(&model.config, &model.weights, Pooling::Last, backend).unwrap();
        let (head, width) = (model.head.unwrap(), model.config.width);
        let weight = Tensor::from_vec(head.weight.clone(), (head.classes, width), &Device::Cpu);
        let features = made.features(&inputs).unwrap();
        let logits = features.matmul(&weight.unwrap().t().unwrap()).unwrap();
        assert!(head.bias.is_empty(), "score has none");
        assert!(error(&logits, &tensors["logits"]) < 1e-4, "{name}");
    }
    for name in ["llama_shards", "bert", "roberta", "qwen2.gguf"] {
        assert!(
            PretrainedText::open(&fixture(name)).unwrap().head.is_none(),
            "{name}"
        );
    }
}

#[test]
fn language_heads_are_the_embedding_where_they_are_tied() {
    for (name, tied) in [
        ("llama_shards", false),
        ("qwen2", true),
        ("gpt2", true),
        ("llama.gguf", true),
        ("qwen3.gguf", false),
    ] {
        let model = PretrainedText::open(&fixture(name)).unwrap();
        assert_eq!(model.config.tied_head, tied, "{name}");
        let head = model.weights.language_head(&model.config).unwrap().unwrap();
        assert_eq!(
            head.dims(),
            [model.config.vocabulary, model.config.width],
            "{name}"
        );
    }
    let classifier = PretrainedText::open(&fixture("llama")).unwrap();
    assert!(
        classifier
            .weights
            .language_head(&classifier.config)
            .unwrap()
            .is_none()
    );
}

#[test]
fn layers_have_the_names_that_peft_knows() {
    for (name, targets, block, head) in [
        ("llama", "q_proj,v_proj", "model.layers.1", "score"),
        ("gemma3", "gate_proj,o_proj", "model.layers.1", "score"),
        (
            "llama.gguf",
            "self_attn.q_proj,down_proj",
            "model.layers.1",
            "score",
        ),
        ("gpt2", "c_attn,mlp.c_proj", "transformer.h.1", "score"),
        ("bert", "query,value", "bert.encoder.layer.1", "classifier"),
        (
            "roberta",
            "attention.output.dense,key",
            "roberta.encoder.layer.1",
            "classifier.out_proj",
        ),
        (
            "distilbert",
            "q_lin,lin2",
            "distilbert.transformer.layer.1",
            "classifier",
        ),
    ] {
        let model = PretrainedText::open(&fixture(name)).unwrap();
        let spec = model.spec();
        let resolved = |targets: &str| targets.parse::<TargetModules>().unwrap().resolve(&spec);
        let found = resolved(targets).unwrap();
        let named = found.modules(&spec).to_string();
        assert_eq!(named.split(',').count(), 2, "{name}: {named}");
        assert_eq!(resolved(&named).unwrap(), found, "{name}: {named}");
        let folder =
            std::env::temp_dir().join(format!("sft-text-peft-{name}-{}", std::process::id()));
        let lora = Lora::new(2, 4.0).unwrap().with_targets(found);
        let mut new = Head::new(2, spec.width, 1);
        if !spec.head_bias {
            new = new.without_bias();
        }
        let adapters = Adapters::new(&spec, lora, new, 1);
        let (pooler, names) = (model.pooler().unwrap(), ModuleNames::default());
        save_peft(&folder, &spec, lora, &adapters, pooler, names).unwrap();
        let read = load_peft(&folder, &spec, None).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(read, (lora, adapters), "{name}");
        assert_eq!(spec.block_path(1).module, block, "{name}");
        assert_eq!(
            (spec.head.module.as_str(), spec.depth, spec.width),
            (head, 2, if name == "llama.gguf" { 32 } else { 16 })
        );
    }
}

#[test]
fn any_file_of_a_model_opens_it() {
    let whole = PretrainedText::open(&fixture("qwen2")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        let same = PretrainedText::open(&fixture("qwen2").join(file)).unwrap();
        assert_eq!(same.config, whole.config, "{file}");
    }
    let index = fixture("llama_shards").join("model.safetensors.index.json");
    assert_eq!(
        PretrainedText::open(&index).unwrap().config.family,
        TextFamily::Llama
    );
    assert!(whole.tokenizer.is_none());
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let model = PretrainedText::open(&fixture("roberta")).unwrap();
    let backend = Backend::default();
    let made = TextModel::new(&model.config, &model.weights, Pooling::First, backend).unwrap();
    assert_eq!(made.spec().tokens, 18);
    let refusal = |id: u32, tokens: usize, lengths: &[u32]| {
        let ids = Tensor::full(id, (2, tokens), &Device::Cpu).unwrap();
        let lengths = lengths.to_vec();
        made.features(&Inputs::Tokens { ids, lengths })
            .unwrap_err()
            .to_string()
    };
    for (error, wanted) in [
        (
            refusal(48, 3, &[3, 3]),
            "the vocabulary has 48 tokens, got the id 48",
        ),
        (refusal(1, 19, &[3, 3]), "at most 18 tokens, got 19"),
        (
            refusal(1, 3, &[3]),
            "2 samples must have 1 to 3 tokens each, got [3]",
        ),
        (
            refusal(1, 3, &[0, 3]),
            "2 samples must have 1 to 3 tokens each, got [0, 3]",
        ),
        (
            refusal(1, 3, &[4, 3]),
            "2 samples must have 1 to 3 tokens each, got [4, 3]",
        ),
    ] {
        assert!(error.contains(wanted), "{error}");
    }
    let pixels = Tensor::zeros((1, 3, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let error = made
        .features(&Inputs::Pixels(pixels))
        .unwrap_err()
        .to_string();
    assert!(error.contains("token ids, got images"), "{error}");
}

/// Features and the gradient of one vector that both blocks are adapted by; of the last block all tokens,
/// or possibly those alone that are needed.
fn gradient(name: &str, pooling: Pooling, backend: &Backend, all: bool) -> [Tensor; 2] {
    let model = PretrainedText::open(&fixture(name)).unwrap();
    let file = format!("{name}/expected.safetensors");
    let (_, inputs) = expected(&file);
    let made = TextModel::new(&model.config, &model.weights, pooling, backend.clone()).unwrap();
    let lora = Lora::new(2, 4.0).unwrap();
    let len = lora.block_parameters(made.spec());
    let wave = |len: usize| {
        let values: Vec<f32> = (0..len).map(|i| 0.2 * (i as f32).sin()).collect();
        Tensor::from_vec(values, len, &Device::Cpu).unwrap()
    };
    let adapter = Var::from_tensor(&wave(len)).unwrap();
    let mut hidden = made.embed(&inputs, None).unwrap();
    for index in 0..made.spec().depth {
        let block = if all || index + 1 < made.spec().depth {
            made.block(index, &hidden, adapter.as_tensor(), lora)
        } else {
            made.last_block(&hidden, adapter.as_tensor(), lora)
        };
        hidden = block.unwrap();
    }
    let features = made.finish(&hidden).unwrap().flatten_all().unwrap();
    let loss = (wave(features.elem_count()) * &features)
        .unwrap()
        .sum_all()
        .unwrap();
    let gradient = loss.backward().unwrap().remove(adapter.as_tensor());
    [features.detach(), gradient.unwrap()]
}

#[test]
fn gradients_reach_adapters_in_the_engine_as_in_candle() {
    for name in ["llama", "mistral", "gemma3", "gpt2", "bert"] {
        for pooling in [Pooling::First, Pooling::Last, Pooling::Mean] {
            let [_, candle] = gradient(name, pooling, &Backend::Candle(Device::Cpu), true);
            let [_, engine] = gradient(name, pooling, &Backend::default(), true);
            let error = error(&engine, &candle);
            assert!(error < 1e-4, "{name} {pooling:?}: {error:e}");
        }
    }
}

/// Whoever computes the last block; the mini-batch has samples of several lengths.
#[test]
fn what_the_last_block_leaves_out_changes_nothing() {
    for name in ["llama", "mistral", "gemma3", "gpt2", "bert"] {
        for pooling in [Pooling::First, Pooling::Last, Pooling::Mean] {
            for backend in [Backend::default(), Backend::Candle(Device::Cpu)] {
                let [alone, whole] =
                    [false, true].map(|all| gradient(name, pooling, &backend, all));
                for (alone, whole) in alone.iter().zip(&whole) {
                    let error = error(alone, whole);
                    assert!(error < 1e-6, "{name} {pooling:?} {backend:?}: {error:e}");
                }
            }
        }
    }
}

/// What a model makes of texts, against what Transformers does.
fn assert_real(path: &Path, name: &str, pooling: Pooling, pooled: &str, step: usize) {
    let json = std::fs::read_to_string(fixture("real.json")).unwrap();
    let expected: Value = serde_json::from_str(&json).unwrap();
    let model = PretrainedText::open(path).unwrap();
    let tokenizer = model.tokenizer.as_ref().unwrap();
    let made = TextModel::new(&model.config, &model.weights, pooling, Backend::default()).unwrap();
    for (i, text) in expected["texts"].as_array().unwrap().iter().enumerate() {
        let ids = tokenizer.encode(text.as_str().unwrap(), true).unwrap();
        let list = |value: &Value| serde_json::from_value::<Vec<f32>>(value.clone()).unwrap();
        let wanted: Vec<u32> = serde_json::from_value(expected[name]["ids"][i].clone()).unwrap();
        assert_eq!(ids, wanted, "{text}");
        let lengths = vec![ids.len() as u32];
        let ids = Tensor::new(ids, &Device::Cpu)
            .unwrap()
            .unsqueeze(0)
            .unwrap();
        let features = made.features(&Inputs::Tokens { ids, lengths }).unwrap();
        let features = features.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let features: Vec<_> = features.into_iter().step_by(step).collect();
        let wanted = list(&expected[name][pooled][i]);
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let error = error(&tensor(&features), &tensor(&wanted));
        assert!(error < 1e-4, "{text}: {error:e}");
    }
}

#[test]
fn smollm2_is_that_of_transformers() {
    match std::env::var_os("SFT_SMOLLM2") {
        Some(path) => assert_real(Path::new(&path), "smollm2", Pooling::Last, "last", 24),
        None => eprintln!("skipped: SFT_SMOLLM2 is not set to the model's path"),
    }
}

#[test]
fn minilm_is_that_of_transformers() {
    match std::env::var_os("SFT_MINILM") {
        Some(path) => assert_real(Path::new(&path), "minilm", Pooling::Mean, "mean", 16),
        None => eprintln!("skipped: SFT_MINILM is not set to the model's path"),
    }
}
