//! Language modelling from a configuration: what is learnt, what crosses, and what is refused.

mod common;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use candle_core::{Device, Tensor};
use common::{Folder, plan};
use sft_compress::{Codec, TensorView};
use sft_core::Result;
use sft_core::adapter::{Adapters, Head, Lora, load_peft};
use sft_core::data::{Inputs as Ids, Labels, Partition, Sequence, Sequences, Told};
use sft_core::model::{Backend, Model, Pooling, Pretrained, PretrainedText, TextModel};
use sft_core::run::{
    DeviceAdaptersKind, Inputs, RoundRecord, RunConfig, Scheme, SchemeRun, Session, evaluate,
    generate, logits,
};
use sft_core::split::message::{Activation, Hello, Message};
use sft_core::split::{
    Bases, CutCodec, LabelSide, RoundPlan, Serve, ServerCodecs, ServerSide, Work,
};

/// A tokenizer for words between spaces; `<end>` ends a text.
const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 2, "content": "<end>", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null,
    "decoder": null, "model": {"type": "WordLevel", "unk_token": "?",
    "vocab": {"?": 0, "<end>": 2, "user:": 3, "bot:": 4, "yes": 5, "no": 9, "the": 40, "a": 41,
        "far": 48}}}"#;
const TEMPLATE: &str = "{% for message in messages %}{{ 'bot' if message.role == 'assistant' else message.role }}: {{ message.content }} \
    {{ eos_token }} {% endfor %}{% if add_generation_prompt %}bot: {% endif %}";

/// Questions whose answer is the other word, in many lengths.
fn pairs(count: usize) -> String {
    let line = |i: usize| {
        let (word, other) = [("yes", "no"), ("no", "yes")][i % 2];
        let more = " the".repeat(i * i % 7);
        format!("{{\"prompt\": \"a{more} {word}\", \"completion\": \" {other} {other}\"}}\n")
    };
    (0..count).map(line).collect()
}

/// A model's files, with a tokenizer and texts.
fn config(folder: &Folder, model: &str) -> RunConfig {
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

fn run(config: &RunConfig) -> Result<Vec<SchemeRun>> {
    let inputs = Inputs::open(config)?;
    let mut runs = Session::new(config, &inputs)?.run(&(), &AtomicBool::new(false))?;
    for round in runs.iter_mut().flat_map(|run| &mut run.rounds) {
        round.wall_s = 0.0;
    }
    Ok(runs)
}

/// Tied to the embedding, and a matrix of its own.
const MODELS: [&str; 2] = ["qwen2", "llama_shards"];

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
            let told = |round: &RoundRecord| (round.loss, round.token_loss.unwrap());
            let (first, last) = (told(&rounds[0]), told(&rounds[11]));
            assert!(
                last.0 < 0.5 * first.0,
                "{model} {codec}: {first:?} {last:?}"
            );
            assert!(
                last.1 < 0.5 * first.1,
                "{model} {codec}: {first:?} {last:?}"
            );
            let perplexity = rounds[11].perplexity().unwrap();
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
            assert!(frozen.token_loss.unwrap().is_finite());
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
            let through = device.token_loss_through_cut.unwrap();
            assert!((server.token_loss.unwrap() - device.token_loss.unwrap()).abs() < 1e-5);
            assert!(through.is_finite() && through > 0.0);
            let rows = 4 * width * counted as u64;
            let down = device.bytes_down - server.bytes_down;
            assert!((rows..rows + 6 * 40).contains(&down), "{down} {rows}");
        }
        let coded = with(LabelSide::Device, Scheme::Sft, "transform:0.3");
        assert!(coded[2].token_loss < coded[0].token_loss);
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
        let wanted = run(&config).unwrap()[0].rounds[2].token_loss.unwrap();
        let again = RunConfig {
            model: Some(folder.0.join("out/merged-sft")),
            merged: false,
            lr: 1e-12,
            rounds: 1,
            out: None,
            ..config.clone()
        };
        let found = run(&again).unwrap()[0].rounds[0].token_loss.unwrap();
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
    let with = |threads: usize, change: &dyn Fn(&mut RunConfig)| {
        let mut config = RunConfig {
            activation: "transform:0.3".parse().unwrap(),
            gradient: "transform:1.5".parse().unwrap(),
            threads: Some(threads),
            ..config(&folder, "qwen2")
        };
        change(&mut config);
        run(&config).unwrap()
    };
    let whole = with(1, &|_| ());
    assert_eq!(with(3, &|_| ()), whole);
    let out = folder.0.join("run");
    with(2, &|config| {
        (config.out, config.rounds) = (Some(out.clone()), 1);
        config.checkpoint_every = Some(1);
    });
    let rest = with(2, &|config| config.resume = Some(out.clone()));
    assert_eq!(rest[0].rounds, whole[0].rounds);
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
            run.rounds
                .iter()
                .map(|r| (r.loss, r.token_loss.unwrap()))
                .collect()
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

#[test]
fn conversations_and_plain_text_are_told_apart() {
    let folder = Folder::new("language-data");
    let config = config(&folder, "qwen2");
    folder.write("chat_template.jinja", TEMPLATE.as_bytes());
    let chat = r#"{"messages": [{"role": "user", "content": "the yes"}, {"role": "bot", "content": "no"}]}"#;
    let chat = chat.replace("\"bot\"", "\"assistant\"");
    folder.write("train.jsonl", format!("{chat}\n\n{chat}\n").as_bytes());
    let inputs = Inputs::open(&config).unwrap();
    let (ids, targets) = sample(&inputs, 0);
    assert_eq!((ids, targets), (vec![3, 40, 5, 2, 4, 9], vec![9, 2]));

    folder.write("texts/b.txt", b"yes no\n\nthe the yes no no a\n");
    folder.write("texts/a.txt", b"a\nno");
    folder.write("texts/c.md", b"far");
    let plain = |pack: bool, most: usize| {
        let path = |name: &str| Some(format!("text:{}", folder.0.join(name).display()));
        let config = RunConfig {
            data: path("texts"),
            test: path("texts/b.txt"),
            pack,
            max_tokens: Some(most),
            ..config.clone()
        };
        let inputs = Inputs::open(&config).unwrap();
        let samples = (0..inputs.train.len()).map(|i| sample(&inputs, i));
        let samples: Vec<_> = samples.collect();
        (samples, inputs.train.told().unwrap(), inputs.train.groups())
    };
    let (lines, told, groups) = plain(false, 4);
    let wanted = [
        (vec![41], vec![2]),
        (vec![9], vec![2]),
        (vec![5, 9], vec![9, 2]),
        (vec![40, 40, 5, 9], vec![40, 5, 9, 9]),
    ];
    assert_eq!((lines.as_slice(), groups), (wanted.as_slice(), 2));
    assert_eq!(
        told,
        "4 samples of 2 files, 2.0 tokens each, of which 100 % are to be told, 1 of them cut to 4"
    );
    let (packed, _, _) = plain(true, 4);
    let wanted = [
        (vec![41, 9], vec![9, 2]),
        (vec![5, 9, 40, 40], vec![9, 40, 40, 5]),
        (vec![5, 9, 9, 41], vec![9, 9, 41, 2]),
    ];
    assert_eq!(packed, wanted);
}

/// The inputs of a training sample, and the next tokens that count.
fn sample(inputs: &Inputs, index: usize) -> (Vec<u32>, Vec<u32>) {
    let batch = inputs.train.batch(&[index]).unwrap();
    let (Ids::Tokens { ids, .. }, Labels::Tokens(targets)) = (batch.inputs, batch.labels) else {
        panic!("texts are token ids")
    };
    let counted = targets.into_iter().filter(|&id| id != Labels::IGNORED);
    (
        ids.flatten_all().unwrap().to_vec1().unwrap(),
        counted.collect(),
    )
}

#[test]
fn files_are_what_a_partition_tells_texts_apart_by() {
    let folder = Folder::new("language-partition");
    folder.write("texts/a.txt", "a\n".repeat(20).as_bytes());
    folder.write("texts/b.txt", "no\n".repeat(20).as_bytes());
    let path = |name: &str| Some(format!("text:{}", folder.0.join(name).display()));
    let config = RunConfig {
        data: path("texts"),
        test: path("texts/a.txt"),
        partition: Partition::Shards(1),
        ..config(&folder, "qwen2")
    };
    let inputs = Inputs::open(&config).unwrap();
    let parts = config.partition.split(inputs.train.as_ref(), 2, 1).unwrap();
    for part in parts {
        let first = inputs.train.group(part[0]);
        assert!(part.iter().all(|&i| inputs.train.group(i) == first));
    }
    let one = RunConfig {
        data: path("texts/a.txt"),
        ..config
    };
    let error = run(&one).unwrap_err().to_string();
    assert_eq!(
        error,
        "partition must be iid for texts of one file without classes, got shards:1"
    );
}

type Change<'a> = &'a dyn Fn(&mut RunConfig);

#[test]
fn what_next_tokens_do_not_take_is_refused_by_name() {
    let folder = Folder::new("language-refused");
    let cases: [(Change<'_>, &str); 12] = [
        (
            &|c| c.test = Some("classify:a.tsv".into()),
            "test must be chat:FILE beside data chat:FILE",
        ),
        (
            &|c| c.target_accuracy = Some(0.5),
            "target_accuracy must be left out",
        ),
        (
            &|c| c.pooling = Some(Pooling::Last),
            "pooling must be left out",
        ),
        (
            &|c| c.class_words = Some(vec!["a".into()]),
            "class_words must be left out",
        ),
        (
            &|c| c.prompt = Some("{text}".into()),
            "prompt must be left out",
        ),
        (&|c| c.pack = true, "pack must be off but for text:PATH"),
        (
            &|c| c.scheme = vec![Scheme::FlFull],
            "scheme must not be fl-full",
        ),
        (
            &|c| c.targets = "score".parse().unwrap(),
            "must not name the head of a language model",
        ),
        (
            &|c| c.max_tokens = Some(2),
            "line 2: no token of the assistant is among the first 2",
        ),
        (&|c| c.max_tokens = Some(0), "max_tokens must be in 1..="),
        (
            &|c| c.partition = Partition::Dirichlet(1.0),
            "partition must be iid",
        ),
        (&|c| c.augment = true, "augment must be off"),
    ];
    for (change, part) in cases {
        let mut config = config(&folder, "qwen2");
        change(&mut config);
        let error = run(&config).unwrap_err().to_string();
        assert!(error.contains(part), "{error}, expected {part}");
    }
    let files: [(&[u8], &str); 6] = [
        (b"", "holds no samples"),
        (
            b"{\"prompt\": \"a\", \"completion\": \" no\"}\n{\"prompt\": \n",
            "line 2: EOF",
        ),
        (b"{\"messages\": []}\n", "messages need a chat template"),
        (
            b"{\"prompt\": \"a\"}\n",
            "line 1: must have messages, a list, or prompt and completion",
        ),
        (b"\n\xff\n", "line 2 is not UTF-8"),
        (
            b"{\"prompt\": \"far\", \"completion\": \" no\"}\n",
            "tokenizer must be for 48 tokens",
        ),
    ];
    for (text, part) in files {
        let config = config(&folder, "qwen2");
        folder.write("train.jsonl", text);
        let error = run(&config).unwrap_err().to_string();
        assert!(
            error.contains("train.jsonl") && error.contains(part),
            "{error}"
        );
    }
    let config = config(&folder, "qwen2");
    folder.write("chat_template.jinja", TEMPLATE.as_bytes());
    folder.write(
        "train.jsonl",
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n",
    );
    let error = run(&config).unwrap_err().to_string();
    assert!(
        error.contains("line 1: has no turn of the assistant"),
        "{error}"
    );
    folder.write("empty/a.md", b"");
    let empty = folder.0.join("empty");
    let empty = RunConfig {
        data: Some(format!("text:{}", empty.display())),
        test: Some(format!("text:{}", empty.display())),
        ..config
    };
    let error = run(&empty).unwrap_err().to_string();
    assert!(error.contains("holds no file that ends in .txt"), "{error}");
}

/// A classifier's files have no head over the vocabulary.
#[test]
fn a_model_that_says_nothing_is_refused() {
    let folder = Folder::new("language-none");
    let error = run(&config(&folder, "llama")).unwrap_err().to_string();
    assert!(error.contains("model must be a language model"), "{error}");
}

/// What a device says of the next tokens is held to the samples and the vocabulary, before room is made for them.
#[test]
fn targets_that_lie_are_refused() {
    let folder = Folder::new("language-hostile");
    let inputs = Inputs::open(&config(&folder, "qwen2")).unwrap();
    let (model, width) = (inputs.model.as_ref(), inputs.model.spec().width);
    let plan = RoundPlan {
        work: Work::Split { cut: 1 },
        tokens: Some(5),
        activation: CutCodec::raw(),
        gradient: CutCodec::raw(),
        ..plan()
    };
    let lora = plan.lora(model.spec()).unwrap();
    let start = Adapters::new(model.spec(), lora, Head::none(), 1);
    let values = vec![0.5; 3 * width];
    let frame = Codec::raw()
        .encode(TensorView::new(&values, &[3, width]).unwrap(), 0)
        .unwrap();
    let activation = |labels: Labels| {
        Message::Activation(Activation {
            step: 0,
            samples: vec![1, 2],
            lengths: Some(vec![2, 1]),
            labels: Some(labels),
            frame: frame.clone(),
        })
    };
    let said = |labels: Labels| {
        let codecs = ServerCodecs::new(&plan, Bases::default()).unwrap();
        let mut server = ServerSide::new(0, plan.clone(), 0.1, model, &start, codecs).unwrap();
        let hello = Hello {
            device: 0,
            samples: 8,
            model: model.spec().fingerprint(),
            bases: 0,
            held: None,
        };
        server.handle(Message::Hello(hello)).unwrap();
        let handled = server.handle(activation(labels));
        handled.map_or_else(|error| error.to_string(), |_| "accepted".into())
    };
    let ignored = Labels::IGNORED;
    assert_eq!(said(Labels::Tokens(vec![47, ignored, 0])), "accepted");
    for (labels, part) in [
        (
            Labels::Tokens(vec![48, 1, 2]),
            "sent the next token 48, the head has 48",
        ),
        (
            Labels::Tokens(vec![ignored; 3]),
            "sent 3 labels of which 0 count, expected 3",
        ),
        (
            Labels::Tokens(vec![1; 4]),
            "sent 4 labels of which 4 count, expected 3",
        ),
        (
            Labels::Tokens(vec![1; 2]),
            "sent 2 labels of which 2 count, expected 3",
        ),
        (
            Labels::Classes(vec![0, 1]),
            "labels of another kind, expected next tokens",
        ),
    ] {
        let error = said(labels);
        assert!(error.contains(part), "{error}, expected {part}");
    }
    let bytes = activation(Labels::Tokens(vec![47, ignored, 0]))
        .encode()
        .unwrap();
    assert!(Message::decode(&bytes).is_ok());
    // Four bytes of the step, the number of samples, two of these, that there are lengths: the first is next.
    let at = 10 + 4 + 1 + 2 + 1;
    let mut long = bytes[..bytes.len() - 4].to_vec();
    long.splice(at..=at, [0xff, 0xff, 0xff, 0xff, 0x0f]);
    let length = long.len() as u32 - 10;
    long[6..10].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32fast::hash(&long);
    long.extend(checksum.to_le_bytes());
    let error = Message::decode(&long).unwrap_err().to_string();
    assert!(
        error.contains("too short for 4294967296 entries"),
        "{error}"
    );
}

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
const DECODERS: [&str; 6] = [
    "llama_shards",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
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
