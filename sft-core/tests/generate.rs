//! What a language model says, and its features and losses token by token.

mod common;

use std::path::PathBuf;

use candle_core::{Device, Tensor};
use common::Folder;
use common::language::config;
use common::texts::run;
use sft_core::adapter::{Adapters, Head, Lora};
use sft_core::data::{Inputs as Ids, Sequence, Sequences, Told};
use sft_core::model::{Backend, Model, Pooling, Pretrained, PretrainedText, TextModel};
use sft_core::run::{Inputs, RunConfig, evaluate, generate, logits};

/// Features of all tokens are those that the last token of each beginning has.
#[test]
fn features_of_tokens_are_those_of_the_last_of_every_beginning() {
    let folder = Folder::new("language-features");
    let inputs = Inputs::open(&config(&folder, "llama_shards")).unwrap();
    let model = inputs.model.as_ref();
    let features = |ids: &[u32], all: bool| {
        let count = ids.len();
        let inputs = Ids::Tokens {
            ids: Tensor::from_slice(ids, (1, count), &Device::Cpu).unwrap(),
            lengths: vec![count as u32],
        };
        let mut hidden = model.embed(&inputs, None).unwrap();
        let lora = Lora::new(1, 1.0).unwrap();
        let none = vec![0.0f32; lora.block_parameters(model.spec())];
        let none = Tensor::new(none, &Device::Cpu).unwrap();
        for index in 0..model.spec().depth {
            hidden = model.block(index, &hidden, &none, lora).unwrap();
        }
        let features = if all {
            model.finish_tokens(&hidden)
        } else {
            model.finish(&hidden)
        };
        features.unwrap().to_vec2::<f32>().unwrap()
    };
    let ids = [5, 9, 40, 41, 7];
    let all = features(&ids, true);
    for (i, row) in all.iter().enumerate() {
        let last = &features(&ids[..=i], false)[0];
        assert!(row.iter().zip(last).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

/// Decoders of every form: grouped heads, windows, norms of heads, norms behind branches, biases.
const DECODERS: [&str; 7] = [
    "llama_shards",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "gpt2",
];

/// Adapters that are not zero, for a model's default targets.
fn tuned(model: &dyn Model) -> (Lora, Adapters) {
    let lora = Lora::new(2, 4.0).unwrap();
    let mut adapters = Adapters::new(model.spec(), lora, Head::none(), 1);
    for (i, value) in adapters.blocks.iter_mut().flatten().enumerate() {
        *value = 0.2 * (i as f32).sin();
    }
    (lora, adapters)
}

fn open(name: &str, backend: Backend) -> TextModel {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/text")
        .join(name);
    let model = PretrainedText::open(&path).unwrap();
    TextModel::new(&model.config, &model.weights, Pooling::Last, backend).unwrap()
}

/// However a text comes, in whole or token by token, the features are those of the whole model at once.
#[test]
fn reading_token_by_token_is_reading_at_once() {
    let ids: Vec<u32> = (0..14).map(|i| (i * 13 + 5) % 40).collect();
    for name in DECODERS {
        let plain = open(name, Backend::Candle(Device::Cpu));
        let engine = open(name, Backend::default());
        let (lora, adapters) = tuned(&plain);
        let features = |ids: &[u32]| {
            let inputs = Ids::Tokens {
                ids: Tensor::from_slice(ids, (1, ids.len()), &Device::Cpu).unwrap(),
                lengths: vec![ids.len() as u32],
            };
            let mut hidden = plain.embed(&inputs, None).unwrap();
            for (index, adapter) in adapters.blocks.iter().enumerate() {
                let adapter = Tensor::from_slice(adapter, adapter.len(), &Device::Cpu).unwrap();
                hidden = plain.block(index, &hidden, &adapter, lora).unwrap();
            }
            plain
                .finish(&hidden)
                .unwrap()
                .squeeze(0)
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        };
        for model in [&engine, &plain] {
            let mut reader = model.reader(&adapters.blocks, lora, ids.len()).unwrap();
            for parts in [[14, 0, 0], [5, 1, 1], [1, 1, 8]] {
                reader.forget();
                let mut read = 0;
                for part in parts.into_iter().filter(|&part| part > 0) {
                    let got = reader.read(&ids[read..read + part]).unwrap();
                    let got = got.to_vec1::<f32>().unwrap();
                    read += part;
                    for (got, want) in got.iter().zip(features(&ids[..read])) {
                        let bound = 1e-4 * want.abs().max(1.0);
                        assert!((got - want).abs() < bound, "{name} {parts:?}: {got} {want}");
                    }
                }
            }
            reader.forget();
            assert!(reader.read(&[]).is_err() && reader.read(&[1; 15]).is_err());
        }
    }
}

#[test]
fn what_is_said_with_a_cache_is_what_is_said_without() {
    let prompts = [vec![5, 9, 40], vec![7], vec![1, 2, 3, 4, 5, 6]];
    let mut lengths = Vec::new();
    for name in DECODERS {
        let (engine, plain) = (
            open(name, Backend::default()),
            open(name, Backend::Candle(Device::Cpu)),
        );
        if engine.language_head().unwrap().is_none() {
            continue;
        }
        let (lora, adapters) = tuned(&engine);
        let said = |model: &TextModel, most: usize, end: Option<u32>| {
            generate(model, lora, &adapters, &prompts, most, end).unwrap()
        };
        let with = said(&engine, 6, None);
        assert_eq!(with, said(&plain, 6, None), "{name}");
        // The likeliest by the logits of the whole text, each time anew.
        for (prompt, said) in prompts.iter().zip(&with) {
            let mut ids = prompt.clone();
            for &token in said {
                let inputs = Ids::Tokens {
                    ids: Tensor::from_slice(&ids, (1, ids.len()), &Device::Cpu).unwrap(),
                    lengths: vec![ids.len() as u32],
                };
                let logits = logits(&engine, lora, &adapters, &inputs).unwrap();
                let likeliest = logits.argmax(1).unwrap().to_vec1::<u32>().unwrap();
                assert_eq!(likeliest.last(), Some(&token), "{name}");
                ids.push(token);
            }
        }
        let end = with[0][2];
        let ended = said(&engine, 6, Some(end));
        let first = with[0].iter().position(|&id| id == end).unwrap();
        assert_eq!(ended[0], with[0][..first], "{name}");
        lengths.push(said(&engine, 1000, None)[0].len() + prompts[0].len());
        assert_eq!(
            lengths.last(),
            Some(&engine.spec().tokens),
            "as much as the model takes"
        );
    }
    assert!(lengths.len() > 2, "{lengths:?}");
}

#[test]
fn a_run_tells_what_its_model_says() {
    let folder = Folder::new("language-generate");
    let config = RunConfig {
        rounds: 40,
        generate: 3,
        max_new_tokens: 5,
        ..config(&folder, "qwen2")
    };
    let generated = &run(&config).unwrap()[0].generated;
    assert_eq!(generated.len(), 3);
    assert_eq!(generated[0].prompt, "a yes");
    assert_eq!(generated[0].expected, "no no");
    assert!(
        generated
            .iter()
            .any(|generated| generated.said == generated.expected),
        "{generated:?}"
    );
    let model = open("qwen2", Backend::default());
    let (lora, adapters) = tuned(&model);
    for (prompts, part) in [
        (vec![vec![]], "prompts must be of 1 to"),
        (vec![vec![48]], "the vocabulary has 48 tokens"),
        (vec![vec![1; 1 << 16]], "prompts must be of 1 to"),
    ] {
        let error = generate(&model, lora, &adapters, &prompts, 2, None).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// The loss and the chat template of `SmolLM2`, against what Transformers makes of them:
/// `fixtures/make_text_real.py`.
#[test]
fn smollm2s_loss_is_that_of_transformers() {
    let Some(path) = std::env::var_os("SFT_SMOLLM2") else {
        eprintln!("skipped: SFT_SMOLLM2 is not set to the model's path");
        return;
    };
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text");
    let expected = std::fs::read_to_string(fixtures.join("real.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
    let pretrained = PretrainedText::open(path.as_ref()).unwrap();
    let model = pretrained.model(Backend::default()).unwrap();
    let tokenizer = pretrained.tokenizer.as_ref().unwrap();
    let lora = Lora::new(1, 1.0).unwrap();
    let adapters = Adapters::new(model.spec(), lora, Head::none(), 1);
    let chat = tokenizer.chat().unwrap().unwrap();
    let messages = serde_json::from_value::<Vec<_>>(expected["messages"].clone()).unwrap();
    let rendered = chat.render(&messages, true).unwrap();
    assert_eq!(rendered, expected["smollm2"]["rendered"].as_str().unwrap());
    for (i, text) in expected["texts"].as_array().unwrap().iter().enumerate() {
        let ids = tokenizer.encode(text.as_str().unwrap(), true).unwrap();
        let wanted = expected["smollm2"]["token_loss"][i].as_f64().unwrap();
        let sequence = Sequence {
            counts: vec![true; ids.len()],
            ids,
            source: 0,
        };
        let data = Sequences::new([sequence], Told::default()).unwrap();
        let score = evaluate(model.as_ref(), lora, &adapters, &data, 1).unwrap();
        let error = (score.mean_loss() - wanted).abs() / wanted;
        assert!(error < 1e-4, "{text}: {} {wanted}", score.mean_loss());
    }
}
