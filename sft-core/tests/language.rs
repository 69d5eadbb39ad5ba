//! Language modelling from a configuration: what is learnt, what crosses, and what is kept.

mod common;

use std::path::PathBuf;

use candle_core::Device;
use common::Folder;
use common::language::{MODELS, config};
use common::texts::{assert_threads_and_stops_change_nothing, run};
use sft_compress::Codec;
use sft_core::adapter::{Adapters, Head, load_peft};
use sft_core::data::Labels;
use sft_core::model::{Backend, Pretrained, PretrainedText};
use sft_core::run::{
    DeviceAdaptersKind, Inputs, RoundRecord, RunConfig, Scheme, SchemeRun, Session, evaluate,
    logits,
};
use sft_core::split::LabelSide;

#[test]
fn completions_are_learnt_with_and_without_codec() {
    for model in MODELS {
        let folder = Folder::new("language-learns");
        for codec in ["raw", "transform:0.3"] {
            let config = RunConfig {
                activation: codec.parse().unwrap(),
                gradient: codec.parse().unwrap(),
                rounds: 12,
                ..config(&folder, model)
            };
            let rounds = &run(&config).unwrap()[0].rounds;
            let told = |round: &RoundRecord| (round.loss, round.test_loss);
            let (first, last) = (told(&rounds[0]), told(&rounds[11]));
            assert!(
                last.0 < 0.5 * first.0,
                "{model} {codec}: {first:?} {last:?}"
            );
            assert!(
                last.1 < 0.5 * first.1,
                "{model} {codec}: {first:?} {last:?}"
            );
            let perplexity = rounds[11].perplexity.unwrap();
            assert!((perplexity.ln() - last.1).abs() < 1e-9);
            assert!(rounds[11].accuracy > 0.5);
        }
    }
}

/// Next tokens stay on the devices too: a row of features a token comes down, and its gradient goes up.
#[test]
fn next_tokens_stay_on_the_devices() {
    for model in MODELS {
        let folder = Folder::new("language-ushape");
        let with = |labels, scheme, activation: &str| {
            let config = RunConfig {
                labels,
                scheme: vec![scheme],
                activation: activation.parse().unwrap(),
                evaluate_through_cut: true,
                ..config(&folder, model)
            };
            let frozen = RunConfig {
                device_adapters: DeviceAdaptersKind::None,
                rounds: 1,
                ..config.clone()
            };
            let frozen = &run(&frozen).unwrap()[0].rounds[0];
            assert!(frozen.test_loss.is_finite());
            run(&config).unwrap().remove(0).rounds
        };
        let (server, device) = (
            with(LabelSide::Server, Scheme::SftRaw, "raw"),
            with(LabelSide::Device, Scheme::SftRaw, "raw"),
        );
        // All tokens of all samples but the last ones.
        let tokens: u64 = (0..48).map(|i| 5 + i * i % 7).sum();
        let inputs = Inputs::open(&config(&folder, model)).unwrap();
        let (width, data) = (inputs.model.spec().width as u64, inputs.train.as_ref());
        let counted: usize = (0..48).map(|i| data.tokens(i).unwrap()).sum();
        assert_eq!(counted as u64, tokens - 48);
        for (server, device) in server.iter().zip(&device) {
            assert!((server.loss - device.loss).abs() < 1e-5);
            let through = device.test_loss_through_cut.unwrap();
            assert!((server.test_loss - device.test_loss).abs() < 1e-5);
            assert!(through.is_finite() && through > 0.0);
            let rows = 4 * width * counted as u64;
            let down = device.bytes_down - server.bytes_down;
            assert!((rows..rows + 6 * 40).contains(&down), "{down} {rows}");
        }
        let coded = with(LabelSide::Device, Scheme::Sft, "transform:0.3");
        assert!(coded[2].test_loss < coded[0].test_loss);
    }
}

/// Merged, a tuned language model tells next tokens as it did with its adapters, and starts no other run.
#[test]
fn a_merged_language_model_is_one_again() {
    for model in MODELS {
        let folder = Folder::new("language-merged");
        let config = RunConfig {
            merged: true,
            out: Some(folder.0.join("out")),
            ..config(&folder, model)
        };
        let wanted = run(&config).unwrap()[0].rounds[2].test_loss;
        let again = RunConfig {
            model: Some(folder.0.join("out/merged-sft")),
            merged: false,
            lr: 1e-12,
            rounds: 1,
            out: None,
            ..config.clone()
        };
        let found = run(&again).unwrap()[0].rounds[0].test_loss;
        assert!(
            (found - wanted).abs() < 1e-4 * wanted,
            "{model}: {found} {wanted}"
        );
        if model == "llama_shards" {
            let digest = |path: PathBuf| {
                let mut digest = sft_core::Digest::default();
                let pretrained = PretrainedText::open(&path).unwrap();
                sft_core::model::digest(&pretrained, &mut digest).unwrap();
                (pretrained.language_head().unwrap(), digest.to_string())
            };
            let (head, _) = digest(folder.0.join("out/merged-sft"));
            assert!(head.is_some(), "it is not the embedding");
        }
    }
}

/// Without a step a run is that with the step of the kind of its model, and says so.
#[test]
fn a_decoder_gets_the_steps_of_decoders() {
    let folder = Folder::new("language-steps");
    let with = |activation: &str, gradient: &str| RunConfig {
        activation: activation.parse().unwrap(),
        gradient: gradient.parse().unwrap(),
        rounds: 2,
        ..config(&folder, "llama_shards")
    };
    let (open, named) = (
        with("transform", "transform"),
        with("transform:0.6", "transform:2"),
    );
    assert_eq!(run(&open).unwrap(), run(&named).unwrap());
    let inputs = Inputs::open(&open).unwrap();
    let session = Session::new(&open, &inputs).unwrap();
    assert_eq!(session.config().deciding(), named.deciding());
}

/// The loss that a round tells is that of logits of all tokens at once.
#[test]
fn a_rounds_loss_is_the_mean_over_the_tokens_that_count() {
    let folder = Folder::new("language-loss");
    let config = config(&folder, "llama_shards");
    let inputs = Inputs::open(&config).unwrap();
    let (model, test) = (inputs.model.as_ref(), inputs.test.as_ref());
    let session = Session::new(&config, &inputs).unwrap();
    let setup = session.setup(Scheme::Sft).unwrap();
    let lora = setup.settings.lora;
    let adapters = Adapters::new(model.spec(), lora, Head::none(), 1);
    let plain = inputs
        .pretrained
        .model(Backend::Candle(Device::Cpu))
        .unwrap();
    let score = |model, threads| evaluate(model, lora, &adapters, test, threads).unwrap();
    let (got, want) = (score(model, 2), score(plain.as_ref(), 1));
    assert_eq!((got.right, got.counted), (want.right, want.counted));
    assert_eq!(score(model, 1), got);
    assert!((got.mean_loss() - want.mean_loss()).abs() < 1e-5);
    let (mut loss, mut counted) = (0.0, 0);
    for index in 0..test.len() {
        let batch = test.batch(&[index]).unwrap();
        let Labels::Tokens(targets) = &batch.labels else {
            panic!("next tokens")
        };
        let logits = logits(plain.as_ref(), lora, &adapters, &batch.inputs).unwrap();
        let logits = candle_nn::ops::log_softmax(&logits, 1).unwrap();
        let logits: Vec<Vec<f32>> = logits.to_vec2().unwrap();
        for (row, &target) in logits.iter().zip(targets) {
            if target != Labels::IGNORED {
                (loss, counted) = (loss - f64::from(row[target as usize]), counted + 1);
            }
        }
    }
    assert_eq!(counted, got.counted);
    assert!((loss / counted as f64 - got.mean_loss()).abs() < 1e-5);
}

#[test]
fn a_run_does_not_depend_on_threads_and_goes_on_from_a_checkpoint() {
    let folder = Folder::new("language-threads");
    let config = config(&folder, "qwen2");
    assert_threads_and_stops_change_nothing(&config, &folder.0.join("run"));
}

#[test]
fn every_scheme_that_tunes_adapters_runs_and_one_device_is_plain_fine_tuning() {
    for model in MODELS {
        let folder = Folder::new("language-schemes");
        let config = RunConfig {
            scheme: vec![Scheme::Sft, Scheme::SftRaw, Scheme::Sl, Scheme::FlLora],
            rounds: 2,
            devices: 1,
            adapter_codec: Codec::raw(),
            ..config(&folder, model)
        };
        let runs = run(&config).unwrap();
        let losses = |run: &SchemeRun| -> Vec<_> {
            run.rounds.iter().map(|r| (r.loss, r.test_loss)).collect()
        };
        for split in &runs[..3] {
            for (split, whole) in losses(split).iter().zip(losses(&runs[3])) {
                assert!((split.0 - whole.0).abs() < 1e-6, "{split:?} {whole:?}");
                assert!((split.1 - whole.1).abs() < 1e-6, "{split:?} {whole:?}");
            }
        }
        assert_eq!(runs[3].rounds[0].bytes_up, 0, "nothing is cut");
        let frozen = RunConfig {
            scheme: vec![Scheme::Sft],
            device_adapters: DeviceAdaptersKind::None,
            ..config
        };
        assert_eq!(run(&frozen).unwrap()[0].rounds[0].bytes_down, 0);
    }
}

/// Of every real token the numbers of its hidden state cross and a byte or two of the next, and no head.
#[test]
fn targets_cross_and_no_head_does() {
    let folder = Folder::new("language-bytes");
    let config = RunConfig {
        adapter_codec: Codec::raw(),
        scheme: vec![Scheme::Sft, Scheme::FlLora],
        ..config(&folder, "llama_shards")
    };
    let inputs = Inputs::open(&config).unwrap();
    let (train, spec) = (&inputs.train, inputs.model.spec());
    let tokens: usize = (0..train.len()).map(|i| train.tokens(i).unwrap()).sum();
    let runs = run(&config).unwrap();
    let round = &runs[0].rounds[0];
    let numbers = (4 * tokens * spec.width) as u64;
    // Six messages with the header of a raw frame, and a byte for each token that follows another.
    let wanted = numbers + tokens as u64;
    assert!(
        (wanted..wanted + 6 * 40).contains(&round.bytes_up),
        "{}",
        round.bytes_up
    );
    let setup = Session::new(&config, &inputs)
        .unwrap()
        .setup(Scheme::FlLora)
        .unwrap();
    let parameters = spec.depth * setup.settings.lora.block_parameters(spec);
    let whole = &runs[1].rounds[0];
    let each = (4 * 2 * parameters) as u64;
    assert!(
        (each..each + 2 * 40).contains(&whole.adapter_bytes_up),
        "{}",
        whole.adapter_bytes_up
    );
}

#[test]
fn adapters_are_kept_without_a_head() {
    let folder = Folder::new("language-peft");
    let out = folder.0.join("run");
    let config = RunConfig {
        out: Some(out.clone()),
        rounds: 1,
        ..config(&folder, "qwen2")
    };
    run(&config).unwrap();
    let inputs = Inputs::open(&config).unwrap();
    let kept = out.join("adapters-sft");
    let (_, adapters) = load_peft(&kept, inputs.model.spec(), Some(&Head::none())).unwrap();
    assert!(adapters.head.is_none());
    let json = std::fs::read_to_string(kept.join("adapter_config.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["task_type"], "CAUSAL_LM");
    assert!(json["modules_to_save"].is_null());
    let again = RunConfig {
        adapters: Some(kept),
        out: None,
        ..config
    };
    let losses = run(&again).unwrap()[0].rounds[0].loss;
    assert!(
        losses
            < run(&RunConfig {
                adapters: None,
                ..again
            })
            .unwrap()[0]
                .rounds[0]
                .loss
    );
}
