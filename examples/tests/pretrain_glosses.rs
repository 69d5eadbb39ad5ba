//! `pretrain_glosses` as its users run it.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{Folder, program};
use sft_core::model::PretrainedText;

const FILES: [&str; 3] = ["model.safetensors", "config.json", "tokenizer.json"];

fn run(flags: &[&str]) -> Output {
    Command::new(program("pretrain_glosses"))
        .args(flags)
        .output()
        .unwrap()
}

/// The first glosses of the fine-tuning task.
fn text(folder: &Folder, lines: usize) -> String {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/glosses/train.tsv");
    let data = std::fs::read_to_string(data).unwrap();
    let glosses = data.lines().filter_map(|line| line.split_once('\t'));
    let glosses: Vec<_> = glosses.take(lines).map(|(_, gloss)| gloss).collect();
    let path = folder.join("text.txt");
    std::fs::write(&path, glosses.join("\n")).unwrap();
    path
}

#[test]
fn the_same_seed_gives_the_same_files() {
    let folder = Folder::new("pretrain-glosses");
    let text = text(&folder, 300);
    let files = ["a", "b"].map(|name| {
        let out = folder.join(name);
        let output = run(&["--text", &text, "--epochs", "1", "--out", &out]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(
            told.contains("loss per token of 3 held-out lines: "),
            "{told}"
        );
        FILES.map(|file| std::fs::read(folder.0.join(name).join(file)).unwrap())
    });
    assert!(files[0] == files[1], "two runs gave different files");
    let model = PretrainedText::open(&folder.0.join("a")).unwrap();
    let tokenizer = model.tokenizer.unwrap();
    let gloss = "a large café; \"nothing else\" 42";
    let ids = tokenizer.encode(gloss, true).unwrap();
    assert_eq!(ids[0], tokenizer.special().bos.unwrap());
    assert_eq!(tokenizer.decode(&ids).unwrap(), gloss);
    assert!(
        ids.iter()
            .all(|&id| (id as usize) < model.config.vocabulary)
    );
}

#[test]
fn bad_flags_are_refused_in_one_line() {
    let folder = Folder::new("pretrain-glosses-bad");
    let out = folder.join("out");
    let few = text(&folder, 99);
    let refused = |flags: &[&str], message: &str| {
        let output = run(&[flags, &["--out", &out]].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.contains(message) && error.lines().count() == 1,
            "{error}"
        );
        assert!(!Path::new(&out).exists());
    };
    refused(
        &["--text", &few],
        "text.txt: must have at least 100 lines, has 99",
    );
    refused(&["--text", "no/such.txt"], "no/such.txt: ");
    refused(
        &["--text", &few, "--epochs", "0"],
        "--epochs must be at least 1, got 0",
    );
    refused(
        &["--text", &few, "--lr=-1"],
        "--lr must be positive, got -1",
    );
}
