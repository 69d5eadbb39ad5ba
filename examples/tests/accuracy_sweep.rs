//! `accuracy_sweep` as its users run it, and `vit_finetune --auto` on what it writes.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{Folder, digits, program};
use sft_core::run::RunFile;
use sft_examples::flags::LevelsFlag;
use sft_examples::surface::{StepSurface, Surface};
use sft_opt::Accuracy;
use sft_opt::plan::{KeepScale, StepCurve};

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

/// What `run.json` says of the flags.
fn settings(out: &str) -> serde_json::Value {
    let run = std::fs::read_to_string(Path::new(out).join("run.json")).unwrap();
    let run: serde_json::Value = serde_json::from_str(&run).unwrap();
    run["settings"].clone()
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
        "--codec=gradient",
        "--keeps=0.05,0.2,0.5,1",
        "--bits=1,2,3,4",
        "--rounds=1",
        "--devices=2",
    ];
    let output = sweep(&out, &[&flags[..], &["--data", &data]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("cubic: root mean square error"));

    let path = Path::new(&out).join("surface.json");
    let Surface::Levels(surface) = Surface::open(Some(&path)).unwrap() else {
        panic!("a surface of kept fractions and bits");
    };
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
    let start = "keep,bits,accuracy_seed_1,bytes_up,bytes_down\n,,0.";
    assert!(csv.starts_with(start), "{csv}");
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
    let said = text(&output.stdout);
    assert!(said.starts_with("auto: cut "), "{said}");
    assert!(said.contains(" levels: "), "{said}");
}

#[test]
fn steps_are_measured_fitted_drawn_and_used() {
    let folder = Folder::new("steps");
    let (out, data) = (folder.join("out"), digits(&folder));
    let flags = [
        "--steps=0.3,1,4",
        "--seeds=1,2",
        "--rounds=2",
        "--devices=2",
        "--data",
        &data,
    ];
    let output = sweep(&out, &flags);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("curve: root mean square error"));

    let path = Path::new(&out).join("surface.json");
    let Surface::Steps(surface) = Surface::open(Some(&path)).unwrap() else {
        panic!("a surface of steps");
    };
    assert_eq!(surface.codec, "transform");
    let refitted = StepCurve::fit(&StepSurface::accuracies(&surface.points)).unwrap();
    assert_eq!(refitted, surface.fit);
    assert_eq!(surface.fit.curve.steps(), [0.3, 1.0, 4.0]);
    for pair in surface.points.windows(2) {
        assert!(pair[0].first.up > pair[1].first.up, "{pair:?}");
    }
    for point in &surface.points {
        // A sample that comes again takes less, and of gradients the bases are paid once.
        let later = point.later.unwrap();
        assert!(
            later.up < point.first.up && later.down < point.first.down,
            "{point:?}"
        );
    }

    let csv = std::fs::read_to_string(Path::new(&out).join("accuracy_sweep.csv")).unwrap();
    assert_eq!(csv.lines().count(), 5, "a head, a raw run, 3 steps");
    let start = "step,accuracy_seed_1,accuracy_seed_2,bytes_up,bytes_down\n,0.";
    assert!(csv.starts_with(start), "{csv}");
    let svg = std::fs::read_to_string(Path::new(&out).join("accuracy_over_step.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("transform:STEP"));

    let path = path.display().to_string();
    let drop = ["--auto", "--surface", &path, "--accuracy-drop", "0.5"];
    let output = finetune(
        &folder.join("run"),
        &[&drop[..], &["--data", &data]].concat(),
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("step 4.000: "), "{said}");
    assert!(
        said.contains("bound by the surface, measured from step 0.3 to 4"),
        "{said}"
    );
    assert!(
        said.contains("come again: the run has one round;"),
        "{said}"
    );

    // What rounds after the first cost is taken of runs in which samples come again as often.
    let again = "times what a round after the first takes of them";
    let unlike = |field, theirs, ours| {
        format!("come again: the surface was measured with {field} {theirs}, the run has {ours};")
    };
    for (flags, message) in [
        ("--devices=2", again.into()),
        (
            "--devices=2 --participation=0.5",
            unlike("participation", "1.0", "0.5"),
        ),
        ("--devices=3", unlike("devices", "2", "3")),
        (
            "--devices=2 --partition=shards:2",
            unlike("partition", "\"iid\"", "\"shards:2\""),
        ),
        (
            "--devices=2 --sample-memory-mb=0",
            unlike("sample_memory_mb", "64", "0"),
        ),
    ] {
        let flags: Vec<&str> = flags.split(' ').collect();
        let common = ["--rounds=2", "--scheme=sft", "--data", &data];
        let flags = [&drop[..], &common, &flags].concat();
        let output = common::vit_finetune(&folder.join(&flags.concat().replace('/', "")), &flags);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        assert!(said.contains(&message), "{said}");
        assert_eq!(said.contains(again), message == again, "{said}");
    }
}

#[test]
fn any_codec_with_one_knob_is_swept() {
    let folder = Folder::new("knob");
    let data = digits(&folder);
    for (codec, steps) in [
        ("dead-zone", "1,2"),
        ("error", "0.01,0.1"),
        ("unbiased", "1,4"),
    ] {
        let out = folder.join(codec);
        let flags = [
            "--codec",
            codec,
            "--steps",
            steps,
            "--rounds=1",
            "--devices=2",
        ];
        let output = sweep(&out, &[&flags[..], &["--data", &data]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let path = Path::new(&out).join("surface.json").display().to_string();
        let drop = ["--auto", "--surface", &path, "--accuracy-drop", "0.9"];
        let run = folder.join(&format!("run-{codec}"));
        let output = finetune(&run, &[&drop[..], &["--data", &data]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let last = format!("{codec}:{}", steps.split(',').next_back().unwrap());
        assert_eq!(settings(&run)["activation"], last);
    }
}

#[test]
fn grids_that_cannot_be_fitted_are_refused_before_training() {
    let folder = Folder::new("sweep-bad");
    let out = folder.join("out");
    for (flags, message) in [
        (
            "--codec gradient --keeps 0.1,0.2,0.5",
            "points do not determine the fit",
        ),
        (
            "--codec gradient --bits 1,2,4",
            "points do not determine the fit",
        ),
        (
            "--codec gradient --keeps 0,0.1,0.2,0.5",
            "points.keep[0] is 0",
        ),
        (
            "--codec gradient --steps 1,2",
            "--steps has no place with --codec gradient",
        ),
        (
            "--keeps 0.1,1",
            "--keeps has no place with --codec transform",
        ),
        ("--bits 1,2", "--bits has no place with --codec transform"),
        (
            "--scale keep",
            "--scale has no place with --codec transform",
        ),
        (
            "--codec raw",
            "--codec must be transform, dead-zone, unbiased or error",
        ),
        (
            "--codec nonsense --keeps 0.1",
            "--codec must be transform, dead-zone, unbiased or error with one step, or paper,",
        ),
        (
            "--codec dead-zone",
            "--steps must name at least two steps of dead-zone, got 0",
        ),
        (
            "--steps 0.3",
            "--steps must name at least two steps of transform, got 1",
        ),
        (
            "--steps 0.3,0.2",
            "--steps must be ascending, got 0.2 after 0.3",
        ),
        (
            "--steps 0.3,0.3",
            "--steps must be ascending, got 0.3 after 0.3",
        ),
        (
            "--steps 0,0.3",
            "--steps does not fit transform: step must be in 0.001..=1000, got 0",
        ),
        (
            "--steps=-1,0.3",
            "--steps does not fit transform: step must be in 0.001..=1000, got -1",
        ),
        ("--steps 0.3,nan", "--steps does not fit transform"),
        ("--activation raw", "--activation has no place in a sweep"),
        ("--seed 3", "--seed has no place in a sweep"),
        (
            "--device-adapters none",
            "--device-adapters must be lora in a sweep",
        ),
        ("--rounds 0", "--rounds must be at least 1, got 0"),
    ] {
        let flags: Vec<&str> = flags.split(' ').collect();
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
    let settings = settings(&out);
    let activation = settings["activation"].as_str().unwrap();
    let step: f64 = activation
        .strip_prefix("transform:")
        .unwrap()
        .parse()
        .unwrap();
    let chosen = format!("auto: cut {}, step {step:.3}", settings["cut"]);
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

/// Without fading the delay of every round after the first is what was predicted, but for what
/// training changes in the tensors.
#[test]
fn the_predicted_delay_is_reached() {
    let folder = Folder::new("auto-delay");
    let out = folder.join("out");
    let flags = ["--auto", "--scheme=sft", "--fading=none", "--rounds=3"];
    let output = common::vit_finetune(&out, &flags);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("a round after the first takes"), "{said}");
    let (_, rest) = said.split_once("auto: cut ").unwrap();
    let (_, rest) = rest.split_once(": ").unwrap();
    let predicted: f64 = rest.split(' ').next().unwrap().parse().unwrap();
    let run = std::fs::read(Path::new(&out).join(RunFile::NAME)).unwrap();
    let run: RunFile = serde_json::from_slice(&run).unwrap();
    for round in &run.schemes[0].rounds[1..] {
        let ratio = round.delay_s / predicted;
        assert!(
            (0.8..1.25).contains(&ratio),
            "{ratio} in round {}",
            round.round
        );
    }
}

#[test]
fn auto_refuses_surfaces_that_it_cannot_use() {
    let folder = Folder::new("auto-surface");
    let out = folder.join("out");
    let read = |name: &str| -> serde_json::Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("results")
            .join(name);
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let levels = read("digits_surface.json");
    let steps = read("digits_steps.json");
    let broken = [
        (&levels, "/points", serde_json::json!([]), "points is empty"),
        (&levels, "/codec", "raw".into(), "surface.json: "),
        (&levels, "/codec", "transform".into(), "surface.json: "),
        (&steps, "/codec", "gradient".into(), "surface.json: "),
        (&steps, "/codec", "raw".into(), "codec must be transform"),
        (&steps, "/codec", serde_json::Value::Null, "surface.json: "),
        (
            &steps,
            "/raw_accuracy",
            2.into(),
            "raw_accuracy must be in 0..=1, got 2",
        ),
        (
            &steps,
            "/points/0/step",
            0.25.into(),
            "points must have the steps of fit.curve",
        ),
        (
            &steps,
            "/points/1/later/up",
            0.into(),
            "points[1] must have finite and positive shares",
        ),
        (
            &steps,
            "/points",
            serde_json::json!([steps["points"][0].clone()]),
            "surface.json: points must have at least two, got 1",
        ),
        (
            &steps,
            "/points/1/accuracy",
            90.into(),
            "surface.json: points[1].accuracy must be in 0..=1, got 90",
        ),
        (
            &steps,
            "/fit/curve/value/0",
            90.into(),
            "surface.json: the values of fit.curve must be in 0..=1, got 90",
        ),
        (&steps, "/fit/curve/step/1", 0.1.into(), "step[1] is 0.1"),
        (
            &steps,
            "/settings/device_adapters",
            "none".into(),
            "--surface must have settings.device_adapters \"lora\", got \"none\"",
        ),
        (
            &steps,
            "/settings/cut",
            7.into(),
            "--surface has settings.cut 7",
        ),
    ];
    for (surface, place, value, message) in broken {
        let mut surface = surface.clone();
        *surface.pointer_mut(place).unwrap() = value;
        let path = folder.join("surface.json");
        std::fs::write(&path, surface.to_string()).unwrap();
        let flags = ["--auto", "--surface", &path, "--rounds", "2"];
        let output = common::vit_finetune(&out, &flags);
        refused(&output, &out, message);
    }
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
    let garbage = folder.join("garbage.json");
    std::fs::write(&garbage, "{\"codec\": ").unwrap();
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
        (["--surface", &garbage], "garbage.json: "),
    ] {
        let output = finetune(&out, &[&["--auto"], &flag[..]].concat());
        refused(&output, &out, message);
    }
}
