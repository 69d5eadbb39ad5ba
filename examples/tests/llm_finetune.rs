//! `llm_finetune` as its users run it: the embedded model, its files, and what bad input says.

mod common;

use std::path::Path;
use std::process::Output;

use common::{Folder, assert_pictures, finetune, refused_by};
use serde_json::Value;

const SHORT: [&str; 6] = ["--scheme", "sft", "--rounds", "1", "--devices", "2"];

fn run(out: &str, flags: &[&str]) -> Output {
    let output = finetune("llm_finetune", out, flags);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{flags:?}: {error}");
    output
}

fn json(out: &str) -> Value {
    let text = std::fs::read_to_string(Path::new(out).join("run.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_run_of_the_embedded_model_leaves_the_documented_files() {
    let folder = Folder::new("glosses");
    let out = folder.join("out");
    let output = run(&out, &["--rounds", "1", "--devices", "2"]);
    let told = String::from_utf8(output.stderr).unwrap();
    let classes = "10 classes (act, animal, artifact, attribute, body, communication, food, \
                   location, person, substance)";
    for (data, samples) in [("training", 3000), ("test", 1000)] {
        let line = format!("{data} data: {samples} texts of {classes}, ");
        assert!(told.contains(&line), "{told}");
    }
    let run = json(&out);
    for (field, value) in [
        ("data", Value::from("glosses")),
        ("model", Value::Null),
        ("pooling", "mean".into()),
        ("cut", 4.into()),
        ("rounds", 1.into()),
    ] {
        assert_eq!(run["settings"][field], value, "{field}");
    }
    let schemes = run["schemes"].as_array().unwrap();
    let names: Vec<_> = schemes.iter().map(|scheme| &scheme["name"]).collect();
    assert_eq!(names, ["sft", "sft-raw", "sl", "fl-lora"]);
    let bytes = |scheme: usize| schemes[scheme]["rounds"][0]["bytes_up"].as_u64().unwrap();
    assert!(8 * bytes(0) < bytes(1), "{} of {}", bytes(0), bytes(1));
    for scheme in schemes {
        // Ten classes of one size: a new head guesses one of ten.
        let accuracy = scheme["rounds"][0]["accuracy"].as_f64().unwrap();
        assert!(accuracy > 0.3, "{scheme}");
        let adapters = format!("adapters-{}", scheme["name"].as_str().unwrap());
        assert!(
            Path::new(&out)
                .join(adapters)
                .join("adapter_config.json")
                .exists()
        );
    }
    assert_pictures(&out);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.contains("| SFT ") && table.contains("| FL with LoRA"),
        "{table}"
    );
}

#[test]
fn what_is_said_stands_over_the_defaults_of_the_embedded_model() {
    let folder = Folder::new("glosses-config");
    let toml = folder.join("run.toml");
    // The learning rate is the default of other models.
    std::fs::write(&toml, "lr = 0.003\ncut = 5\n").unwrap();
    let out = folder.join("toml");
    run(
        &out,
        &[&SHORT[..], &["--config", &toml, "--cut", "2"]].concat(),
    );
    let settings = json(&out)["settings"].clone();
    assert_eq!(settings["lr"], 0.003);
    assert_eq!(settings["cut"], 2);
    assert_eq!(settings["pooling"], "mean");

    // What a run says of itself is a configuration.
    let file = folder.join("run.json");
    std::fs::write(&file, settings.to_string()).unwrap();
    let again = folder.join("json");
    run(&again, &["--config", &file]);
    assert_eq!(json(&again)["settings"], settings);
}

#[test]
fn a_model_in_files_takes_the_glosses_too() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/glosses");
    let folder = Folder::new("glosses-model");
    let (files, embedded) = (folder.join("files"), folder.join("embedded"));
    let named = ["--model", model.to_str().unwrap(), "--data", "glosses"];
    let same = ["--pooling", "mean", "--cut", "4", "--lr", "0.005"];
    run(&files, &[&SHORT[..], &named, &same].concat());
    run(&embedded, &SHORT);
    let [here, there] = [&files, &embedded].map(|out| {
        let round = json(out)["schemes"][0]["rounds"][0].clone();
        ["accuracy", "loss", "bytes_up", "bytes_down"].map(|field| round[field].clone())
    });
    assert_eq!(here, there);
}

/// Perplexity takes the place of accuracy, in the table and in the pictures, and something is said at the end.
#[test]
fn next_tokens_of_plain_text_are_told() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/glosses");
    let folder = Folder::new("glosses-lines");
    let (lines, out) = (folder.join("lines.txt"), folder.join("out"));
    let line = "a large animal that lives in water\nthe act of going from one place to another\n";
    std::fs::write(&lines, line.repeat(8)).unwrap();
    let named = format!("text:{lines}");
    let texts = [
        "--data",
        &named,
        "--test",
        &named,
        "--generate",
        "1",
        "--merged",
    ];
    let model = ["--model", model.to_str().unwrap(), "--evaluate-through-cut"];
    let output = run(&out, &[&SHORT[..], &model, &texts].concat());
    let told = String::from_utf8(output.stdout).unwrap();
    for part in ["test perplexity", "through the cut", "says"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    for file in ["perplexity_over_time.svg", "merged-sft/config.json"] {
        assert!(Path::new(&out).join(file).exists(), "{file}");
    }
    let run = json(&out);
    let scheme = &run["schemes"][0];
    assert!(scheme["rounds"][0]["perplexity"].as_f64().unwrap() > 0.0);
    assert_eq!(scheme["generated"].as_array().unwrap().len(), 1);
}

#[test]
fn bad_input_is_refused_in_one_line() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/glosses");
    let model = model.to_str().unwrap();
    let vit = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/digits_vit/model.safetensors");
    let vit = vit.to_str().unwrap();
    let cases: [(&[&str], &str); 10] = [
        (
            &["--model", model],
            "--data must be given with model: classify:FILE, text:FILE, chat:FILE or glosses, got none",
        ),
        (
            &["--data", "classify:a.tsv", "--test", "classify:b.tsv"],
            "--model must be given with data classify:a.tsv, got none",
        ),
        (
            &["--test", "classify:b.tsv"],
            "--test must be left out for data glosses",
        ),
        (
            &["--prompt", "{text}"],
            "--prompt must be left out for data glosses",
        ),
        (
            &["--max-tokens", "9"],
            "--max-tokens must be left out for data glosses",
        ),
        (&["--pack"], "--pack must be left out for data glosses"),
        (
            &["--generate", "2"],
            "--generate must be left out for data glosses",
        ),
        (
            &["--heads", "4"],
            "--heads must be left out for a text model, got 4",
        ),
        (&["--pooling", "first"], "--pooling must be last or mean"),
        (
            &["--model", vit, "--data", "glosses"],
            "--data must be images",
        ),
    ];
    for (flags, message) in cases {
        refused_by("llm_finetune", flags, message);
    }
}
