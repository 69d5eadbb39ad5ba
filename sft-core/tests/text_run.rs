//! Runs on texts from their configuration: what crosses, what is learnt, and what is refused.

mod common;

use std::path::PathBuf;

use common::texts::{assert_threads_and_stops_change_nothing, run, welcomed};
use common::{Folder, plan};
use sft_compress::{Codec, TensorView};
use sft_core::adapter::{Adapters, Head};
use sft_core::data::{Inputs as Ids, Labels};
use sft_core::model::Pooling;
use sft_core::run::{
    DeviceAdaptersKind, Inputs, RoundRecord, RunConfig, Scheme, SchemeRun, Session,
};
use sft_core::split::message::{Activation, Message};
use sft_core::split::{CutCodec, LabelSide, RoundPlan, Serve, Work};

/// Two classes that a word tells apart, in texts of many lengths.
fn lines(count: usize) -> String {
    let line = |i: usize| {
        let word = ["yes", "no"][i % 2];
        let more = " the".repeat(i * i % 7);
        format!("{word}\t{more} {word} the {word}\n")
    };
    (0..count).map(line).collect()
}

/// A tokenizer for words between spaces.
const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
    "decoder": null, "model": {"type": "WordLevel", "unk_token": "?",
    "vocab": {"?": 0, "yes": 5, "no": 9, "the": 40, "far": 48}}}"#;

fn config(folder: &Folder) -> RunConfig {
    let model = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text/qwen2");
    for name in ["config.json", "model.safetensors"] {
        folder.write(name, &std::fs::read(model.join(name)).unwrap());
    }
    folder.write("tokenizer.json", TOKENIZER.as_bytes());
    folder.write("train.tsv", lines(48).as_bytes());
    folder.write("test.tsv", lines(14).as_bytes());
    let named = |name: &str| Some(format!("classify:{}", folder.0.join(name).display()));
    RunConfig {
        scheme: vec![Scheme::Sft],
        model: Some(folder.0.clone()),
        data: named("train.tsv"),
        test: named("test.tsv"),
        devices: 2,
        rounds: 3,
        batch: 8,
        cut: 1,
        rank: 2,
        lr: 1e-2,
        activation: CutCodec::raw(),
        gradient: CutCodec::raw(),
        ..RunConfig::default()
    }
}

#[test]
fn a_decoder_learns_to_tell_texts_apart() {
    let folder = Folder::new("text-run-learns");
    for codec in ["raw", "transform:0.3", "error:0.01"] {
        let config = RunConfig {
            activation: codec.parse().unwrap(),
            gradient: codec.parse().unwrap(),
            rounds: 6,
            ..config(&folder)
        };
        let runs = run(&config).unwrap();
        let rounds = &runs[0].rounds;
        let losses: Vec<_> = rounds.iter().map(|round| round.loss).collect();
        assert!(losses[5] < 0.7 * losses[0], "{codec}: {losses:?}");
        assert!(rounds[5].accuracy > 0.9, "{codec}: {}", rounds[5].accuracy);
    }
}

/// All parameters of an encoder are trained: its pooler where the head reads it, no other.
#[test]
fn all_parameters_of_an_encoder_are_trained() {
    let folder = Folder::new("text-run-encoder");
    let base = config(&folder);
    let bert = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text/bert");
    for name in ["config.json", "model.safetensors"] {
        folder.write(name, &std::fs::read(bert.join(name)).unwrap());
    }
    for pooling in [Pooling::First, Pooling::Mean] {
        let config = RunConfig {
            scheme: vec![Scheme::FlFull],
            pooling: Some(pooling),
            rounds: 4,
            ..base.clone()
        };
        let rounds = &run(&config).unwrap()[0].rounds;
        assert!(rounds[3].loss < rounds[0].loss, "{pooling:?}: {rounds:?}");
    }
}

/// Of each token the numbers of its hidden state cross, of padding none.
#[test]
fn only_real_tokens_cross_the_cut() {
    let folder = Folder::new("text-run-padding");
    let config = config(&folder);
    let inputs = Inputs::open(&config).unwrap();
    let train = &inputs.train;
    let tokens: usize = (0..train.len()).map(|i| train.tokens(i).unwrap()).sum();
    let all: Vec<usize> = (0..train.len()).collect();
    let Ids::Tokens { ids, lengths } = train.batch(&all).unwrap().inputs else {
        panic!("texts are token ids")
    };
    assert_eq!(lengths.iter().sum::<u32>() as usize, tokens);
    assert!(4 * ids.elem_count() > 5 * tokens, "there is padding");
    let spec = inputs.model.spec();
    let round = &run(&config).unwrap()[0].rounds[0];
    let numbers = (4 * tokens * spec.width) as u64;
    // Six messages each way, with the header of a raw frame and, up, a class for each sample.
    let beside = 6 * 40 + 4 * train.len() as u64;
    assert!(round.bytes_up >= numbers && round.bytes_up < numbers + beside);
    assert!(round.bytes_down >= numbers && round.bytes_down < numbers + 6 * 40);
}

#[test]
fn a_run_does_not_depend_on_threads_and_goes_on_from_a_checkpoint() {
    let folder = Folder::new("text-run-threads");
    let config = config(&folder);
    assert_threads_and_stops_change_nothing(&config, &folder.0.join("run"));
}

#[test]
fn every_scheme_runs() {
    let folder = Folder::new("text-run-schemes");
    let config = RunConfig {
        scheme: Scheme::ALL.to_vec(),
        rounds: 1,
        adapter_codec: Codec::raw(),
        ..config(&folder)
    };
    let runs = run(&config).unwrap();
    assert_eq!(runs.len(), 5);
    let loss = |run: &SchemeRun| run.rounds[0].loss.to_bits();
    assert_eq!(loss(&runs[0]), loss(&runs[1]), "both raw");
    assert_eq!(runs[3].rounds[0].bytes_up, 0, "nothing is cut");
    let frozen = RunConfig {
        scheme: vec![Scheme::Sft],
        device_adapters: DeviceAdaptersKind::None,
        ..config
    };
    assert_eq!(run(&frozen).unwrap()[0].rounds[0].bytes_down, 0);
}

/// Texts stay on the devices with their labels; of each the one row that the head reads comes down.
#[test]
fn labels_stay_on_the_devices() {
    let folder = Folder::new("text-run-ushape");
    let with = |labels, change: &dyn Fn(&mut RunConfig)| {
        let mut config = RunConfig {
            labels,
            rounds: 2,
            evaluate_through_cut: true,
            ..config(&folder)
        };
        change(&mut config);
        run(&config).unwrap().remove(0).rounds
    };
    let raw: Change<'_> = &|config| config.scheme = vec![Scheme::SftRaw];
    let (server, device) = (with(LabelSide::Server, raw), with(LabelSide::Device, raw));
    for (server, device) in server.iter().zip(&device) {
        assert!((server.loss - device.loss).abs() < 1e-6);
        assert_eq!(server.accuracy.to_bits(), device.accuracy.to_bits());
        assert_eq!(device.accuracy_through_cut, Some(device.accuracy));
        // A row of 48 samples, in six raw frames; up it has no classes.
        let width = Inputs::open(&config(&folder)).unwrap().model.spec().width as u64;
        let rows = 4 * 48 * width;
        let down = device.bytes_down - server.bytes_down;
        assert!((rows..rows + 6 * 40).contains(&down), "{down}");
        assert!((rows..rows + 6 * 40).contains(&(device.bytes_up + 4 * 48 - server.bytes_up)));
    }
    let coded: Change<'_> = &|config| config.activation = "transform:0.3".parse().unwrap();
    let coded = with(LabelSide::Device, coded);
    let accuracy = |round: &RoundRecord| (round.accuracy, round.accuracy_through_cut.unwrap());
    let (plain, through) = accuracy(&coded[1]);
    assert!(
        through > 0.6 && (plain - through).abs() < 0.3,
        "{plain} {through}"
    );
    assert!(coded[1].bytes_down < device[1].bytes_down);
}

type Change<'a> = &'a dyn Fn(&mut RunConfig);

#[test]
fn what_a_text_model_does_not_take_is_refused_by_name() {
    let folder = Folder::new("text-run-refused");
    let words = |words: &[&str]| Some(words.iter().map(ToString::to_string).collect());
    let missing: PathBuf = folder.0.join("none");
    let cases: [(Change<'_>, &str); 13] = [
        (&|c| c.test = None, "test must be classify:FILE"),
        (&|c| c.test = Some("test.tsv".into()), "got test.tsv"),
        (
            &|c| c.prompt = Some("Q:".into()),
            "prompt must contain {text}",
        ),
        (
            &|c| c.pooling = Some(Pooling::First),
            "pooling must be last or mean",
        ),
        (&|c| c.max_tokens = Some(0), "max_tokens must be in 1..="),
        (
            &|c| c.max_tokens = Some(1 << 20),
            "max_tokens must be in 1..=",
        ),
        (&|c| c.heads = Some(2), "heads must be left out"),
        (&|c| c.augment = true, "augment must be off"),
        (
            &|c| (c.merged, c.pooling) = (true, Some(Pooling::Mean)),
            "merged must be off: Transformers' classifiers of this family have pooling last, got mean",
        ),
        (
            &|c| {
                (c.scheme, c.pooling) = (vec![Scheme::FlFull], Some(Pooling::Mean));
                c.out = Some(PathBuf::from("none"));
            },
            "scheme must not be fl-full with a folder",
        ),
        (
            &|c| c.class_words = words(&["yes"]),
            "one for each of 2 classes",
        ),
        (&|c| c.data = Some("folder:x".into()), "data must be texts"),
        (&|c| c.model = Some(missing.clone()), "none"),
    ];
    for (change, part) in cases {
        let mut config = config(&folder);
        change(&mut config);
        let error = run(&config).unwrap_err().to_string();
        assert!(error.contains(part), "{error}, expected {part}");
    }
    let files = [
        ("", "holds no samples"),
        ("yes\ta\n", "at least two classes, got only yes"),
        ("yes\ta\nno b\n", "line 2 has no tab"),
    ];
    for (text, part) in files {
        let config = config(&folder);
        folder.write("train.tsv", text.as_bytes());
        let error = run(&config).unwrap_err().to_string();
        assert!(
            error.contains("train.tsv") && error.contains(part),
            "{error}"
        );
    }
    let config = config(&folder);
    for (text, part) in [
        ("maybe\ta\n", "which no training sample has"),
        (
            "yes\tfar\n",
            "tokenizer must be for 48 tokens, it gives the id 48",
        ),
    ] {
        folder.write("test.tsv", text.as_bytes());
        let error = run(&config).unwrap_err().to_string();
        assert!(
            error.contains("test.tsv") && error.contains(part),
            "{error}"
        );
    }
}

/// A head may begin with what the language model says the classes by.
#[test]
fn a_head_of_words_is_rows_of_the_models_own() {
    let folder = Folder::new("text-run-words");
    let config = RunConfig {
        class_words: Some(vec!["no".into(), "yes".into()]),
        ..config(&folder)
    };
    let inputs = Inputs::open(&config).unwrap();
    let setup = Session::new(&config, &inputs)
        .unwrap()
        .setup(Scheme::Sft)
        .unwrap();
    let words = inputs
        .pretrained
        .head_of_words(&["no".into(), "yes".into()])
        .unwrap();
    assert_eq!(setup.head, words);
    assert!(words.bias.is_empty(), "language heads have none");
    let head = inputs
        .pretrained
        .weight("model.embed_tokens.weight")
        .unwrap();
    let rows = head.to_vec2::<f32>().unwrap();
    let width = rows[0].len();
    for word in words.weight.chunks(width) {
        assert!(rows.iter().any(|row| row == word), "a row of the embedding");
    }
}

/// What a device says of its samples' lengths is held to the plan, before room is made for them.
#[test]
fn lengths_that_lie_are_refused() {
    let folder = Folder::new("text-run-lengths");
    let inputs = Inputs::open(&config(&folder)).unwrap();
    let (model, width) = (inputs.model.as_ref(), inputs.model.spec().width);
    let plan = RoundPlan {
        work: Work::Split { cut: 1 },
        tokens: Some(5),
        activation: CutCodec::raw(),
        gradient: CutCodec::raw(),
        ..plan()
    };
    let start = Adapters::new(
        model.spec(),
        plan.lora(model.spec()).unwrap(),
        Head::new(2, width, 1).without_bias(),
        1,
    );
    let said = |lengths: Option<Vec<u32>>, rows: usize| {
        let mut server = welcomed(&plan, model, &start);
        let (values, shape) = (vec![0.5; rows * width], [rows, width]);
        let view = TensorView::new(&values, &shape).unwrap();
        let handled = server.handle(Message::Activation(Activation {
            step: 0,
            samples: vec![1, 2],
            lengths,
            labels: Some(Labels::Classes(vec![0, 1])),
            frame: Codec::raw().encode(view, 0).unwrap(),
        }));
        handled.map_or_else(|error| error.to_string(), |_| "accepted".into())
    };
    assert_eq!(said(Some(vec![5, 1]), 6), "accepted");
    for (lengths, rows, part) in [
        (Some(vec![6, 1]), 7, "a sample of 6 tokens, expected 1 to 5"),
        (Some(vec![u32::MAX, 1]), 6, "expected 1 to 5"),
        (Some(vec![0, 5]), 5, "a sample of 0 tokens"),
        (Some(vec![5, 2]), 6, "shape"),
        (None, 6, "none for one of texts"),
    ] {
        let error = said(lengths, rows);
        assert!(error.contains(part), "{error}, expected {part}");
    }
}
