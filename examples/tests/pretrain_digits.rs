//! `pretrain_digits` as its users run it.

mod common;

use std::process::Command;

use common::{Folder, program};
use sft_core::model::PretrainedVit;

#[test]
fn the_same_seed_gives_the_same_file() {
    let folder = Folder::new("pretrain");
    let files = ["a", "b"].map(|name| {
        let flags = [
            "--epochs",
            "1",
            "--batch",
            "256",
            "--out",
            &folder.join(name),
        ];
        let output = Command::new(program("pretrain_digits"))
            .args(flags)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            String::from_utf8(output.stdout)
                .unwrap()
                .contains("rotated test images: ")
        );
        std::fs::read(folder.0.join(name).join("model.safetensors")).unwrap()
    });
    assert!(files[0] == files[1], "two runs gave different files");
    let model = PretrainedVit::open(&folder.0.join("a/model.safetensors"), None).unwrap();
    assert_eq!(
        (model.config.hidden_size, model.config.num_attention_heads),
        (64, 4)
    );
}

#[test]
fn bad_flags_are_refused_in_one_line() {
    let folder = Folder::new("pretrain-bad");
    for (flags, message) in [
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--batch", "0"], "--batch must be at least 1, got 0"),
        (["--lr", "-1"], "--lr must be positive, got -1"),
    ] {
        let out = folder.join("out");
        let flags = [
            flags[0].to_string() + "=" + flags[1],
            format!("--out={out}"),
        ];
        let output = Command::new(program("pretrain_digits"))
            .args(flags)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.contains(message) && error.lines().count() == 1,
            "{error}"
        );
        assert!(!std::path::Path::new(&out).exists());
    }
}
