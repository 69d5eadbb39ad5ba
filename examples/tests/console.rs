//! What all programs have in common: help, version, flags given twice, an output that is full.
#![cfg(target_os = "linux")]

mod common;

use std::fs::File;
use std::process::{Command, Output, Stdio};

use common::{Folder, digits, program};

const PROGRAMS: [&str; 8] = [
    "vit_finetune",
    "llm_finetune",
    "accuracy_sweep",
    "pretrain_digits",
    "pretrain_glosses",
    "codec_report",
    "allocate",
    "paper_tables",
];

fn run(name: &str, flags: &[&str]) -> Output {
    Command::new(program(name)).args(flags).output().unwrap()
}

/// A file that `codec_report` or `allocate` reads.
fn input(folder: &Folder, name: &str) -> String {
    let path = folder.join(name);
    let instances =
        br#"{"p2": [{"id": "x", "a_s": [1.0], "c_bit_per_bpshz": [1.0], "B_hz": 1.0}]}"#;
    let mut array = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    array.extend(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }");
    array.resize(127, b' ');
    array.push(b'\n');
    array.extend([1.0f32, -2.0, 0.5, 0.25].map(f32::to_le_bytes).concat());
    std::fs::write(
        &path,
        if name.ends_with("npy") {
            &array
        } else {
            &instances[..]
        },
    )
    .unwrap();
    path
}

/// The shortest work of every program.
fn work(folder: &Folder) -> Vec<(&'static str, Vec<String>)> {
    let out = |name: &str| vec!["--out".to_string(), folder.join(name)];
    let with = |flags: &[&str], more: Vec<String>| {
        let flags = flags.iter().map(ToString::to_string);
        flags.chain(more).collect::<Vec<_>>()
    };
    let data = digits(folder);
    let few = ["--data", &data, "--devices", "2", "--rounds", "1"];
    let sweep = ["--steps", "0.3,1"];
    let sweep = [few.as_slice(), &sweep].concat();
    vec![
        (
            "vit_finetune",
            with(&[few.as_slice(), &["--scheme", "sft"]].concat(), out("run")),
        ),
        ("accuracy_sweep", with(&sweep, out("sweep"))),
        ("pretrain_digits", with(&["--epochs", "1"], out("digits"))),
        ("codec_report", vec![input(folder, "a.npy")]),
        (
            "codec_report",
            vec!["--json".into(), input(folder, "a.npy")],
        ),
        ("allocate", vec![input(folder, "a.json")]),
        ("paper_tables", vec![folder.join("tables")]),
        ("library", vec![]),
    ]
}

#[test]
fn every_program_tells_what_it_is() {
    for name in PROGRAMS {
        for (flag, expected) in [
            ("--help", "Usage: "),
            ("--version", env!("CARGO_PKG_VERSION")),
        ] {
            let output = run(name, &[flag]);
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{name} {flag}"
            );
            assert!(text.contains(expected), "{name} {flag}: {text}");
        }
        let output = run(name, &["--no-such-flag"]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(
            error.contains("unexpected argument '--no-such-flag'"),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_full_output_is_an_error_and_no_panic() {
    let folder = Folder::new("full");
    for (name, flags) in work(&folder) {
        let full = || File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(program(name));
        let output = command.args(&flags).stdout(full()).stderr(Stdio::piped());
        let output = output.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {error}");
        for part in ["standard output", "No space left"] {
            assert!(error.contains(part), "{name}: {error}");
        }
        assert_eq!(error.lines().count(), 1, "{name}: {error}");
        // Nor is there a panic where not even that can be written; these two take long.
        if ["pretrain_digits", "accuracy_sweep"].contains(&name) {
            continue;
        }
        let mut command = Command::new(program(name));
        let command = command.args(&flags).env("RUST_LOG", "debug");
        let status = command.stdout(full()).stderr(full()).status();
        assert_eq!(status.unwrap().code(), Some(1), "{name}");
    }
}

#[test]
fn of_a_flag_given_twice_the_last_one_counts() {
    let folder = Folder::new("twice");
    for (name, mut flags) in work(&folder) {
        let twice: &[&str] = match name {
            "vit_finetune" => &[
                "--rounds", "0", "--lr", "0", "--lr", "0.01", "--rounds", "1",
            ],
            "accuracy_sweep" => &["--steps", "2,1", "--steps", "0.5,1", "--rounds", "1"],
            "pretrain_digits" => &["--batch", "0", "--batch", "64"],
            "codec_report" => &["--keep", "7", "--keep", "0.5"],
            _ => continue,
        };
        flags.extend(twice.iter().map(ToString::to_string));
        let output = Command::new(program(name)).args(&flags).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{name}: {error}");
    }
}
