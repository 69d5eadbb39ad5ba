//! The configuration of a run: read, written and refused.

use std::path::Path;

use sft_core::model::VitConfig;
use sft_core::run::{RunConfig, Scheme, Settings};

/// A configuration in which no field has its default, as JSON.
const OTHER: &str = r#"{
    "scheme": ["fl-full", "sft"], "model": "a/vit.safetensors", "heads": 3, "data": "folder:b",
    "test": "classify:f.tsv", "prompt": "{text}?", "max_tokens": 9, "pooling": "mean", "class_words": ["a", "b"],
    "augment": true, "devices": 5, "participation": 0.5, "deadline_s": 2.5, "rounds": 9, "target_accuracy": 0.75,
    "local_epochs": 2, "batch": 4, "cut": 3, "device_cuts": [1, 2, 3, 4, 5], "rank": 4,
    "alpha": 2.5, "targets": "q_proj,fc1", "lora_dropout": 0.1, "device_adapters": "none", "adapters": "c",
    "activation": "gradient:0.2:8", "gradient": "raw", "error_feedback": true,
    "adapter_codec": "raw", "sample_memory_mb": 3,
    "optimizer": "sgd", "lr": 0.01, "lr_server": 0.02, "momentum": 0.5, "weight_decay": 0.03,
    "clip_norm": 1.5, "schedule": "cosine", "lr_decay": 0.9, "warmup_rounds": 0.5,
    "partition": "dirichlet:0.5", "bandwidth_hz": 1e6, "snr_db": -3.5, "fading": "none",
    "seed": 7, "threads": 2, "backend": "metal", "gradient_checkpointing": true,
    "checkpoint_every": 3, "resume": "d", "merged": true, "peft_names": "transformers4",
    "out": "e"
}"#;

fn object(config: &RunConfig) -> serde_json::Map<String, serde_json::Value> {
    match serde_json::to_value(config).unwrap() {
        serde_json::Value::Object(fields) => fields,
        other => panic!("{other}"),
    }
}

#[test]
fn json_and_toml_give_back_what_was_written() {
    let other = RunConfig::from_json(OTHER).unwrap();
    let (fields, defaults) = (object(&other), object(&RunConfig::default()));
    for (name, default) in &defaults {
        assert_ne!(&fields[name], default, "{name} is not its default");
    }
    for config in [other, RunConfig::default()] {
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(RunConfig::from_json(&json).unwrap(), config);
        let toml = toml::to_string(&config).unwrap();
        assert_eq!(RunConfig::from_toml(&toml).unwrap(), config);
    }
    assert_eq!(RunConfig::from_json("{}").unwrap(), RunConfig::default());
    assert_eq!(RunConfig::from_toml("").unwrap(), RunConfig::default());
    let schemes = RunConfig::from_toml("scheme = 'sl,sft'").unwrap().scheme;
    assert_eq!(schemes, [Scheme::Sl, Scheme::Sft]);
}

#[test]
fn the_defaults_are_those_of_the_library() {
    let spec = VitConfig::default().spec();
    for scheme in Scheme::ALL {
        let config = RunConfig {
            threads: Some(1),
            ..RunConfig::default()
        };
        let (ours, theirs) = (config.settings(scheme, &spec), Settings::new(scheme, 2));
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    }
}

#[test]
fn what_changes_no_result_is_not_part_of_what_decides_it() {
    let one = RunConfig::default();
    let other = RunConfig {
        threads: Some(3),
        gradient_checkpointing: true,
        checkpoint_every: Some(1),
        resume: Some("a".into()),
        merged: true,
        out: Some("b".into()),
        ..one.clone()
    };
    assert_eq!(one.deciding(), other.deciding());
    let more = RunConfig {
        rounds: 9,
        target_accuracy: Some(0.5),
        scheme: vec![Scheme::Sl],
        ..one.clone()
    };
    assert_ne!(one.deciding(), more.deciding());
    assert_eq!(one.deciding_rounds(), more.deciding_rounds());
    let cosine = RunConfig::from_json(r#"{"schedule": "cosine"}"#).unwrap();
    assert_eq!(cosine.deciding_rounds()["rounds"], 8);
}

#[test]
fn an_unknown_key_is_told_with_the_nearest() {
    for (key, nearest) in [
        ("round", "rounds"),
        ("bandwith_hz", "bandwidth_hz"),
        ("learning_rate_server", "lr_server"),
        ("clipnorm", "clip_norm"),
    ] {
        for error in [
            RunConfig::from_json(&format!(r#"{{"{key}": 1}}"#)),
            RunConfig::from_toml(&format!("{key} = 1")),
        ] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains(&format!("{key:?}")), "{error}");
            assert!(error.contains(nearest), "{error}");
        }
    }
}

/// One error that starts with the field, says what is accepted and ends in the value.
fn refused(field: &str, value: &str, accepted: &str) {
    let spec = VitConfig::default().spec();
    let json = format!(r#"{{"{field}": {value}}}"#);
    let read = RunConfig::from_json(&json);
    let checked = read.and_then(|config| {
        config.channel()?;
        config.settings(Scheme::Sft, &spec)
    });
    let error = checked.map(|_| ()).unwrap_err().to_string();
    let rest = error
        .strip_prefix(field)
        .unwrap_or_else(|| panic!("{error}"));
    assert!(rest.contains(accepted), "{field} {value}: {error}");
    let got = value.trim_matches('"');
    assert!(rest.contains(got), "{field} {value}: {error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn every_field_refuses_a_value_of_another_kind() {
    let whole = "an integer of at least 0";
    for (field, value, accepted) in [
        ("scheme", r#""fl""#, "expected sft, sft-raw"),
        ("scheme", r#"["fl"]"#, "expected sft, sft-raw"),
        ("scheme", "3", "names of schemes"),
        ("model", "3", "a path"),
        ("heads", "-1", whole),
        ("data", "3", "text"),
        ("augment", "3", "true or false"),
        ("devices", "1.5", whole),
        ("participation", r#""all""#, "a number"),
        ("rounds", "null", whole),
        ("target_accuracy", r#""no""#, "a number"),
        ("local_epochs", r#""3""#, whole),
        ("batch", "[]", whole),
        ("cut", "-2", whole),
        ("device_cuts", "3", "a list"),
        ("device_cuts", "[1,-3]", whole),
        ("rank", "true", whole),
        ("alpha", "true", "a number"),
        ("targets", "3", "text"),
        ("targets", r#""q_proj,""#, "names of modules"),
        ("lora_dropout", "false", "a number"),
        ("device_adapters", r#""some""#, "lora or none"),
        ("adapters", "3", "a path"),
        ("activation", r#""top-k""#, "expected"),
        ("gradient", "0.5", "text"),
        ("error_feedback", "1", "true or false"),
        ("optimizer", r#""adam""#, "sgd or adamw"),
        ("lr", r#""fast""#, "a number"),
        ("lr_server", "true", "a number"),
        ("momentum", "[]", "a number"),
        ("weight_decay", "true", "a number"),
        ("clip_norm", "true", "a number"),
        ("schedule", r#""linear""#, "constant, exponential, cosine"),
        ("lr_decay", "true", "a number"),
        ("warmup_rounds", "true", "a number"),
        ("partition", r#""even""#, "expected iid"),
        ("bandwidth_hz", r#""30e6""#, "a number"),
        ("snr_db", "true", "a number"),
        ("fading", "true", "none or rayleigh"),
        ("seed", "-1", whole),
        ("threads", "-1", whole),
        ("backend", r#""tpu""#, "cpu, cuda, metal"),
        ("gradient_checkpointing", "0", "true or false"),
        ("checkpoint_every", "-1", whole),
        ("resume", "3", "a path"),
        ("merged", "0", "true or false"),
        (
            "peft_names",
            r#""transformers3""#,
            "transformers5 or transformers4",
        ),
        ("out", "3", "a path"),
    ] {
        refused(field, value, accepted);
    }
}

#[test]
fn every_number_is_checked_against_its_range() {
    for (field, value, accepted) in [
        ("participation", "0", "in (0, 1]"),
        ("rounds", "0", "at least 1"),
        ("target_accuracy", "1.5", "in (0, 1]"),
        ("local_epochs", "0", "at least 1"),
        ("batch", "0", "at least 1"),
        ("cut", "12", "in 1..=11"),
        ("rank", "0", "at least 1"),
        ("alpha", "-1", ""),
        ("targets", r#""wq""#, "all-linear or some of q_proj"),
        ("lora_dropout", "1", "in [0, 1)"),
        ("lr", "0", "positive"),
        ("lr_server", "-1", "positive"),
        ("weight_decay", "-1", "at least 0"),
        ("clip_norm", "0", "positive"),
        ("lr_decay", "1.5", "in (0, 1]"),
        ("warmup_rounds", "8", "in [0, 8)"),
        ("bandwidth_hz", "0", "finite and positive"),
        ("snr_db", "301", "in -300..=300"),
        ("threads", "0", "at least 1"),
        ("activation", r#""paper:0:4""#, "in (0, 1]"),
    ] {
        let spec = VitConfig::default().spec();
        let config = RunConfig::from_json(&format!(r#"{{"{field}": {value}}}"#));
        let settings = config.and_then(|config| {
            config.channel()?;
            config.settings(Scheme::Sft, &spec)
        });
        let error = settings.map(|_| ()).unwrap_err().to_string();
        assert!(
            error.starts_with(field) && error.contains(accepted),
            "{error}"
        );
        assert!(error.contains(", got "), "{error}");
    }
    let error = RunConfig::from_toml("snr_db = nan").unwrap().channel();
    assert!(error.unwrap_err().to_string().ends_with("got NaN"));
}

#[test]
fn files_are_known_by_their_ending_and_named_in_errors() {
    let folder = std::env::temp_dir().join(format!("sft-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let refused = |name: &str, text: &str, message: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        let error = RunConfig::open(&path).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(message), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    };
    refused("a.yaml", "", "must end in .json or .toml");
    refused("a.json", "{", "must be an object in JSON");
    refused("a.json", "3", "must be an object in JSON");
    refused("a.toml", "seed = 1\nlr = =", "in line 2");
    refused(
        "a.toml",
        "seed = 'x'",
        "seed must be an integer of at least 0, got \"x\"",
    );
    std::fs::write(folder.join("a.toml"), "seed = 3").unwrap();
    assert_eq!(RunConfig::open(&folder.join("a.toml")).unwrap().seed, 3);
    assert!(RunConfig::open(Path::new("no/such.toml")).is_err());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_file_stands_over_other_defaults() {
    let folder = std::env::temp_dir().join(format!("sft-config-over-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let other = RunConfig::from_json(OTHER).unwrap();
    // Where a file says what is the default elsewhere, it counts too.
    let lr = RunConfig::default().lr;
    for (name, text) in [
        ("a.toml", format!("lr = {lr}\nrounds = 1\n")),
        ("a.json", format!("{{\"lr\": {lr}, \"rounds\": 1}}")),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        let want = RunConfig {
            lr,
            rounds: 1,
            ..other.clone()
        };
        assert_eq!(RunConfig::open_over(&path, &other).unwrap(), want);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
