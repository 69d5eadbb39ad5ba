//! Language modelling from a configuration: which texts are told, and what is refused.

mod common;

use common::language::{TEMPLATE, config};
use common::texts::{run, welcomed};
use common::{Folder, plan};
use sft_compress::{Codec, TensorView};
use sft_core::adapter::{Adapters, Head};
use sft_core::data::{Inputs as Ids, Labels, Partition};
use sft_core::model::Pooling;
use sft_core::run::{Inputs, RunConfig, Scheme};
use sft_core::split::message::{Activation, Message};
use sft_core::split::{CutCodec, RoundPlan, Serve, Work};

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
        let mut server = welcomed(&plan, model, &start);
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
