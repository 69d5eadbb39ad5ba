//! `accuracy_sweep` as its users run it, and `vit_finetune --auto` on what it writes.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{Folder, program};
use sft_compress::Codec;
use sft_examples::flags::LevelsFlag;
use sft_examples::surface::Surface;
use sft_opt::Accuracy;
use sft_opt::plan::KeepScale;

fn sweep(out: &str, flags: &[&str]) -> Output {
    Command::new(program("accuracy_sweep"))
        .args(["--out", out])
        .args(flags)
        .output()
        .unwrap()
}

fn finetune(out: &str, flags: &[&str]) -> Output {
    Command::new(program("vit_finetune"))
        .args(["--out", out, "--scheme", "sft", "--rounds", "1"])
        .args(["--devices", "2"])
        .args(flags)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// One line on standard error that holds `message`, exit code 1, no folder.
fn refused(output: &Output, out: &str, message: &str) {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(message), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(!Path::new(out).exists());
}

#[test]
fn a_tiny_grid_is_measured_fitted_drawn_and_used() {
    let folder = Folder::new("sweep");
    let out = folder.join("out");
    // The first 200 records are enough.
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/digits.bin");
    let digits = std::fs::read(digits).unwrap();
    std::fs::write(folder.0.join("few.bin"), &digits[..200 * 65]).unwrap();
    let data = format!("digits:{}", folder.join("few.bin"));
    let flags = [
        "--keeps=0.05,0.2,0.5,1",
        "--bits=1,2,3,4",
        "--rounds=1",
        "--devices=2",
    ];
    let output = sweep(&out, &[&flags[..], &["--data", &data]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("cubic: root mean square error"));

    let path = Path::new(&out).join("surface.json");
    let surface = Surface::open(Some(&path)).unwrap();
    assert_eq!(surface.points.len(), 16);
    assert_eq!(surface.settings["devices"], 2);
    assert!(surface.settings.get("activation").is_none());
    assert_eq!(surface.codec, LevelsFlag::Gradient);
    assert_eq!(surface.keep_range(), (0.05, 1.0));
    assert_eq!(surface.bits_range(), (1.0, 4.0));
    let refitted = Accuracy::fit(KeepScale::Log2Keep, &surface.points).unwrap();
    assert_eq!(refitted, surface.fit);

    let csv = std::fs::read_to_string(Path::new(&out).join("accuracy_sweep.csv")).unwrap();
    assert_eq!(csv.lines().count(), 18, "a head, a raw run, 16 settings");
    assert!(csv.starts_with("keep,bits,accuracy_seed_1\n,,0."), "{csv}");
    for picture in ["accuracy_over_keep.svg", "accuracy_surface.svg"] {
        let svg = std::fs::read_to_string(Path::new(&out).join(picture)).unwrap();
        assert!(
            svg.starts_with("<svg") && svg.contains("kept fraction"),
            "{picture}"
        );
    }

    let path = path.display().to_string();
    let output = finetune(
        &folder.join("run"),
        &["--auto", "--surface", &path, "--accuracy-drop", "0.1"],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("auto: cut "));
}

#[test]
fn grids_that_cannot_be_fitted_are_refused_before_training() {
    let folder = Folder::new("sweep-bad");
    let out = folder.join("out");
    for (flags, message) in [
        (
            ["--keeps", "0.1,0.2,0.5"],
            "points do not determine the fit",
        ),
        (["--bits", "1,2,4"], "points do not determine the fit"),
        (["--keeps", "0,0.1,0.2,0.5"], "points.keep[0] is 0"),
        (
            ["--activation", "raw"],
            "--activation has no place in a sweep",
        ),
        (["--seed", "3"], "--seed has no place in a sweep"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
    ] {
        refused(&sweep(&out, &flags), &out, message);
    }
    let output = sweep(&out, &["--bits", "9"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn auto_says_what_it_chose_and_why() {
    let folder = Folder::new("auto");
    let out = folder.join("out");
    let output = finetune(&out, &["--auto"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    for part in [
        "auto: cut ",
        "bound by ",
        "runner-up: cut ",
        "the paper's fixed setting: cut 2",
    ] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
    let run = std::fs::read_to_string(Path::new(&out).join("run.json")).unwrap();
    let run: serde_json::Value = serde_json::from_str(&run).unwrap();
    let settings = &run["settings"];
    let codec: Codec = settings["activation"].as_str().unwrap().parse().unwrap();
    let chosen = format!(
        "auto: cut {}, keep {:.3}, {} levels",
        settings["cut"],
        codec.keep(),
        codec.levels().unwrap()
    );
    assert!(said.starts_with(&chosen), "{said}");

    // A slow server wants more blocks on the devices; little memory rules them out.
    let tight = finetune(
        &folder.join("tight"),
        &["--auto", "--device-memory-mib", "2"],
    );
    let said = text(&tight.stdout);
    assert!(
        said.contains("memory, which rules out 2, 3, 4, 5"),
        "{said}"
    );
    assert!(said.contains("runner-up: none"), "{said}");
}

#[test]
fn auto_refuses_what_it_cannot_use() {
    let folder = Folder::new("auto-bad");
    let out = folder.join("out");
    for flag in [
        ["--cut", "2"],
        ["--device-cuts", "1,2"],
        ["--activation", "raw"],
    ] {
        let output = finetune(&out, &[&["--auto"], &flag[..]].concat());
        assert_eq!(output.status.code(), Some(2));
        let error = text(&output.stderr);
        let conflict = format!("'--auto' cannot be used with '{}", flag[0]);
        assert!(error.contains(&conflict), "{error}");
    }
    let empty = folder.join("empty.json");
    let surface = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/results/digits_surface.json"
    ));
    let mut surface: serde_json::Value = serde_json::from_str(&surface.unwrap()).unwrap();
    surface["points"] = serde_json::json!([]);
    std::fs::write(&empty, surface.to_string()).unwrap();
    for (flag, message) in [
        (
            ["--device-memory-mib", "1"],
            "--device-memory-mib must fit the model cut after block 1",
        ),
        (
            ["--device-memory-mib", "nan"],
            "--device-memory-mib must be positive, got NaN",
        ),
        (
            ["--accuracy-drop", "1"],
            "--accuracy-drop must be in [0, 1), got 1",
        ),
        (["--surface", "no/such.json"], "no/such.json: "),
        (["--surface", &empty], "points is empty"),
    ] {
        let output = finetune(&out, &[&["--auto"], &flag[..]].concat());
        refused(&output, &out, message);
    }
}
