//! What `vit_finetune` says of bad input.

mod common;

use std::path::Path;

use common::{Folder, refused, vit_finetune as run};

#[test]
fn absurd_sizes_are_refused_in_one_line() {
    for (flags, message) in [
        (
            ["--rank", "1000000000"],
            "--rank must be at most 65536, got 1000000000",
        ),
        (
            ["--rank", "65"],
            "--rank must be at most 64, the model's width, got 65",
        ),
        (
            ["--threads", "1000000"],
            "--threads must be at most 1024, got 1000000",
        ),
        (
            ["--rounds", "1000000000"],
            "--rounds must be at most 1000000, got 1000000000",
        ),
        (
            ["--batch", "1000000000"],
            "--batch must be at most 1000000, got 1000000000",
        ),
        (
            ["--local-epochs", "18446744073709551615"],
            "--local-epochs must be at most 1000000, got",
        ),
        (
            ["--devices", "18446744073709551615"],
            "--devices must be at most the 1438 training",
        ),
        (
            ["--partition", "shards:18446744073709551615"],
            "--partition needs 1 to 1438 shards in all",
        ),
        (["--heads", "18446744073709551615"], "head"),
    ] {
        refused(&flags, message);
    }
}

#[test]
fn flags_out_of_range_are_refused_in_one_line() {
    for (flags, message) in [
        (
            ["--cut", "0"],
            "--cut must be in 1..=5 for a model of 6 blocks, got 0",
        ),
        (
            ["--cut", "6"],
            "--cut must be in 1..=5 for a model of 6 blocks, got 6",
        ),
        (["--devices", "0"], "--devices must be at least 1, got 0"),
        (
            ["--devices", "1439"],
            "--devices must be at most the 1438 training samples, got 1439",
        ),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--batch", "0"], "--batch must be at least 1, got 0"),
        (["--rank", "0"], "--rank must be at least 1, got 0"),
        (["--lr", "nan"], "--lr must be positive, got NaN"),
        (
            ["--bandwidth-hz", "0"],
            "--bandwidth-hz must be finite and positive, got 0",
        ),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--heads", "5"], "heads must divide the width 64, got 5"),
        (
            ["--data", "mnist"],
            "--data must be digits, digits:FILE, cifar100:DIR, tiny-imagenet:DIR or folder:DIR, \
             got mnist",
        ),
        (
            ["--data", "cifar100:."],
            "cifar100 has 3 channels, the model 1",
        ),
        (["--data", "digits:no/such.bin"], "no/such.bin: "),
        (["--model", "no/such.safetensors"], "no/such.safetensors: "),
        (["--lr", "1e30"], "training diverged in round 1 on device "),
        (
            ["--weight-decay=-1", "--cut=2"],
            "--weight-decay must be at least 0, got -1",
        ),
        (["--clip-norm", "0"], "--clip-norm must be positive, got 0"),
        (
            ["--warmup-rounds", "8"],
            "--warmup-rounds must be in [0, 8), got 8",
        ),
        (
            ["--lora-dropout", "1"],
            "--lora-dropout must be in [0, 1), got 1",
        ),
        (
            ["--participation", "0"],
            "--participation must be in (0, 1], got 0",
        ),
        (
            ["--device-cuts", "1,2"],
            "--device-cuts must have one entry for each of 8 devices, got 2",
        ),
        (
            ["--scheme=fl-lora,fl-full", "--device-adapters=none"],
            "--device-adapters must be lora where no scheme splits the model, got none",
        ),
        (
            ["--targets=q_proj,projection", "--device-adapters=none"],
            "--targets must name no layer before the blocks where a device has no adapters",
        ),
        (
            ["--device-cuts=1,9,1,1,1,1,1,1", "--device-adapters=none"],
            "--device-cuts must be in 1..=5 for a model of 6 blocks, got 9",
        ),
        (
            ["--auto", "--device-adapters=none"],
            "--device-adapters must be lora with --auto, whose surface is measured with it",
        ),
        (
            ["--checkpoint-every", "0"],
            "--checkpoint-every must be at least 1, got 0",
        ),
        (
            ["--resume", "no/such"],
            "no/such: no checkpoint-*.safetensors to go on from",
        ),
        (["--adapters", "no/such"], "no/such/adapter_config.json: "),
        (
            ["--backend", "cuda"],
            "--backend cannot be used by this build on this machine",
        ),
        (
            ["--data", "tiny-imagenet:."],
            "the images have 3 channels, the model 1",
        ),
    ] {
        refused(&flags, message);
    }
    let flags = ["--gradient-checkpointing", "--backend", "cuda"];
    refused(&flags, "--gradient-checkpointing needs backend cpu");
}

#[test]
fn what_cannot_be_parsed_is_a_usage_error() {
    let folder = Folder::new("usage");
    for (flags, message) in [
        (["--cut", "two"], "invalid digit"),
        (["--scheme", "sgd"], "expected sft, sft-raw"),
        (["--partition", "dirichlet:0"], "positive"),
        (
            ["--activation", "paper:0:4"],
            "keep must be in (0, 1], got 0",
        ),
        (["--activation", "top-k"], "expected raw, dead-zone:STEP"),
        (
            ["--activation", "paper:0.5"],
            "expected raw, dead-zone:STEP",
        ),
        (["--gradient", "gradient:0.1:x"], "\"x\": invalid digit"),
        (
            ["--gradient", "gradient:0.1:1"],
            "levels must be in 2..=256, got 1",
        ),
        (
            ["--gradient", "dead-zone:0"],
            "step must be in 0.001..=1000, got 0",
        ),
        (["--adapter-codec", "top-k"], "expected raw, dead-zone:STEP"),
    ] {
        let output = run(&folder.join("out"), &flags);
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            error.contains(flags[0]) && error.contains(message),
            "{error}"
        );
    }
}

#[test]
fn damaged_files_are_named() {
    let folder = Folder::new("damaged");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let mut digits = std::fs::read(data.join("digits.bin")).unwrap();
    std::fs::write(folder.0.join("short.bin"), &digits[..1000]).unwrap();
    digits[65] = 10;
    std::fs::write(folder.0.join("label.bin"), &digits).unwrap();
    let model = std::fs::read(data.join("digits_vit/model.safetensors")).unwrap();
    std::fs::write(folder.0.join("short.safetensors"), &model[..1000]).unwrap();
    let flag = |name: &str| format!("digits:{}", folder.join(name));
    refused(&["--data", &flag("short.bin")], "short.bin: ");
    refused(
        &["--data", &flag("label.bin")],
        "label must be in 0..10, got 10 for image 1",
    );
    refused(
        &["--model", &folder.join("short.safetensors")],
        "short.safetensors: ",
    );
}

#[test]
fn an_output_folder_that_cannot_be_made_is_named() {
    let folder = Folder::new("unwritable");
    std::fs::write(folder.0.join("file"), b"").unwrap();
    let out = folder.join("file/out");
    let output = run(&out, &["--rounds", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains(&out) && error.lines().count() == 1,
        "{error}"
    );
}
