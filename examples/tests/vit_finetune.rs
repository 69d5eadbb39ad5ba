//! `vit_finetune` as its users run it: results, files, and what bad input says.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Folder, assert_pictures, program, refused, vit_finetune as run};
use serde_json::Value;

fn json(out: &str) -> Value {
    let text = std::fs::read_to_string(Path::new(out).join("run.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_run_leaves_the_documented_files() {
    let folder = Folder::new("files");
    let out = folder.join("a/b");
    let output = run(&out, &["--rounds", "2", "--devices", "3", "--seed", "5"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let run = json(&out);
    assert_eq!(run["settings"]["devices"], 3);
    if cfg!(unix) {
        assert!(run["peak_resident_bytes"].as_u64().unwrap() > 1 << 20);
    }
    let names: Vec<_> = run["schemes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["name"])
        .collect();
    assert_eq!(names, ["sft", "sft-raw", "sl", "fl-lora"]);
    for scheme in run["schemes"].as_array().unwrap() {
        assert!(scheme["device_memory_bytes"].as_f64().unwrap() > 0.0);
        let rounds = scheme["rounds"].as_array().unwrap();
        assert_eq!(rounds.len(), 2);
        for (i, round) in rounds.iter().enumerate() {
            assert_eq!(round["round"], i as u64 + 1);
            assert!((0.0..=1.0).contains(&round["accuracy"].as_f64().unwrap()));
            for field in [
                "bytes_up",
                "bytes_down",
                "adapter_bytes_up",
                "adapter_bytes_down",
            ] {
                assert!(round[field].is_u64(), "{field}");
            }
            for field in ["loss", "delay_s", "wall_s"] {
                assert!(round[field].as_f64().unwrap() > 0.0, "{field}");
            }
        }
        let folder = format!("adapters-{}", scheme["name"].as_str().unwrap());
        let folder = Path::new(&out).join(folder);
        assert!(folder.join("adapter_config.json").exists());
        let bytes = std::fs::read(folder.join("adapter_model.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let name = "base_model.model.vit.layers.0.attention.q_proj.lora_B.weight";
        let b = tensors.tensor(name).unwrap();
        assert!(b.data().iter().any(|&byte| byte != 0), "B was trained");
    }
    assert_pictures(&out);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.contains("| SFT ")
            && table.contains("| FL with LoRA")
            && (!cfg!(unix) || table.contains("peak memory of this process")),
        "{table}"
    );
}

#[test]
fn the_same_seed_gives_the_same_run_on_any_number_of_threads() {
    let folder = Folder::new("threads");
    // Eight devices: 16 threads are two for each step.
    let ways: [&[&str]; 3] = [&["1"], &["3"], &["16", "--gradient-checkpointing"]];
    let results = ways.map(|way| {
        let out = folder.join(way[0]);
        let common = ["--rounds", "1", "--partition", "dirichlet:0.5", "--threads"];
        assert!(run(&out, &[&common, way].concat()).status.success());
        let mut run = json(&out);
        run.as_object_mut().unwrap().remove("peak_resident_bytes");
        for scheme in run["schemes"].as_array_mut().unwrap() {
            for round in scheme["rounds"].as_array_mut().unwrap() {
                round.as_object_mut().unwrap().remove("wall_s");
            }
        }
        run
    });
    assert_eq!(results[0], results[1]);
    // Only what is modelled knows of checkpointing: less memory for more time.
    let [all, again] = [0, 2].map(|way| results[way].clone()).map(|mut run| {
        let mut modelled = Vec::new();
        for scheme in run["schemes"].as_array_mut().unwrap() {
            let memory = scheme
                .as_object_mut()
                .unwrap()
                .remove("device_memory_bytes");
            let rounds = scheme["rounds"].as_array_mut().unwrap().iter_mut();
            let delays = rounds.map(|round| round.as_object_mut().unwrap().remove("delay_s"));
            let delay: f64 = delays.map(|delay| delay.unwrap().as_f64().unwrap()).sum();
            modelled.push((memory.unwrap().as_f64().unwrap(), delay));
        }
        (run, modelled)
    });
    assert_eq!(all.0, again.0);
    for (all, again) in all.1.iter().zip(&again.1) {
        assert!(again.0 < all.0 && again.1 > all.1, "{all:?} {again:?}");
    }
}

#[test]
fn the_target_ends_a_scheme_and_the_table_says_when() {
    let folder = Folder::new("target");
    let out = folder.join("out");
    let flags = [
        "--scheme",
        "sft",
        "--rounds",
        "8",
        "--target-accuracy",
        "0.5",
    ];
    let output = run(&out, &flags);
    let rounds = json(&out)["schemes"][0]["rounds"]
        .as_array()
        .unwrap()
        .clone();
    assert!(rounds.len() < 8);
    assert!(rounds.last().unwrap()["accuracy"].as_f64().unwrap() >= 0.5);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("rounds to target"), "{table}");
}

#[test]
fn every_codec_is_a_choice_for_each_direction() {
    let folder = Folder::new("codecs");
    let traffic = |name: &str, activation: &str, gradient: &str| {
        let out = folder.join(name);
        let codecs = ["--activation", activation, "--gradient", gradient];
        let flags = [&codecs[..], &["--scheme", "sft", "--rounds", "1"]].concat();
        let output = run(&out, &flags);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let run = json(&out);
        assert_eq!(run["settings"]["activation"], activation);
        assert_eq!(run["settings"]["gradient"], gradient);
        let round = &run["schemes"][0]["rounds"][0];
        ["bytes_up", "bytes_down"].map(|way| round[way].as_u64().unwrap())
    };
    let [raw_up, raw_down] = traffic("raw", "raw", "raw");
    let [paper, context] = traffic("levels", "paper:0.2:8", "gradient:0.2:8");
    let [log, dead_zone] = traffic("others", "activation:0.2:8", "dead-zone:1");
    for up in [paper, log] {
        assert!(20 * up < raw_up, "{up} of {raw_up} bytes");
    }
    for down in [context, dead_zone] {
        assert!(20 * down < raw_down, "{down} of {raw_down} bytes");
    }
}

#[test]
fn adapters_cross_by_their_codec_in_sft_alone() {
    let folder = Folder::new("adapter-codecs");
    let rounds = |name: &str, flags: &[&str]| {
        let out = folder.join(name);
        let output = run(
            &out,
            &[flags, &["--rounds", "2", "--devices", "3"]].concat(),
        );
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let run = json(&out);
        let schemes = run["schemes"].as_array().unwrap();
        let ways = ["adapter_bytes_up", "adapter_bytes_down"];
        let second = |scheme: &Value| ways.map(|way| scheme["rounds"][1][way].as_u64().unwrap());
        let bytes: Vec<_> = schemes.iter().map(second).collect();
        (run["settings"]["adapter_codec"].clone(), bytes)
    };
    let both = ["--scheme", "sft,sft-raw"];
    let (name, coded) = rounds("coded", &both);
    assert_eq!(name, "unbiased:2");
    for (coded, raw) in coded[0].iter().zip(coded[1]) {
        assert!(15 * coded < raw, "{coded} of {raw} bytes");
    }
    let (name, raw) = rounds("raw", &[&both[..], &["--adapter-codec", "raw"]].concat());
    assert_eq!(name, "raw");
    assert_eq!(raw[0], coded[1]);
    assert_eq!(raw[1], coded[1]);
}

#[test]
fn a_file_configures_a_run_and_flags_overrule_it() {
    let folder = Folder::new("config");
    let toml = folder.join("run.toml");
    let text = "scheme = ['sft']\nrounds = 5\ndevices = 3\nactivation = 'dead-zone:2'\n\
                augment = true\n";
    std::fs::write(&toml, text).unwrap();
    let out = folder.join("toml");
    let flags = ["--config", &toml, "--rounds", "9", "--rounds", "1"];
    assert!(run(&out, &flags).status.success());
    let settings = json(&out)["settings"].clone();
    assert_eq!(settings["rounds"], 1, "the last flag counts");
    assert_eq!(settings["devices"], 3);
    assert_eq!(settings["activation"], "dead-zone:2");
    assert_eq!(settings["augment"], true);
    assert_eq!(settings["gradient"], "transform:1.5", "a default");

    // What a run says of itself is a configuration.
    let json_file = folder.join("run.json");
    std::fs::write(&json_file, settings.to_string()).unwrap();
    let again = folder.join("json");
    assert!(run(&again, &["--config", &json_file]).status.success());
    assert_eq!(json(&again)["settings"], settings);

    std::fs::write(&toml, "round = 1\n").unwrap();
    let flags: [&str; 2] = ["--config", &toml];
    refused(
        &flags,
        "run.toml: configuration has no key \"round\"; the nearest are rounds",
    );
    std::fs::write(&toml, "rounds = -1\n").unwrap();
    refused(
        &flags,
        "run.toml: rounds must be an integer of at least 0, got -1",
    );
    refused(&["--config", "no/such.toml"], "no/such.toml: ");
}

#[test]
fn a_folder_holds_one_run() {
    let folder = Folder::new("one");
    let out = folder.join("out");
    let flags = ["--scheme", "sft", "--rounds", "1", "--devices", "2"];
    let with = |more: &[&str]| run(&out, &[&flags[..], more].concat());
    assert!(with(&["--checkpoint-every", "1"]).status.success());
    assert!(with(&[]).status.success(), "the same run anew");
    let before = std::fs::read(Path::new(&out).join("run.json")).unwrap();
    for (more, message) in [
        (["--lr", "0.01"], "its lr is 0.003, this run's is 0.01"),
        (["--rounds", "2"], "its rounds is 1, this run's is 2"),
        (["--scheme", "sl"], "this run's is [\"sl\"]"),
    ] {
        let output = with(&more);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.contains("run.json: ") && error.contains(message),
            "{error}"
        );
    }
    std::fs::remove_file(Path::new(&out).join("run.json")).unwrap();
    let error = String::from_utf8(with(&["--seed", "2"]).stderr).unwrap();
    assert!(error.contains("checkpoint-sft.safetensors: "), "{error}");
    std::fs::write(Path::new(&out).join("run.json"), before).unwrap();
    assert!(with(&["--rounds", "2", "--resume", &out]).status.success());
    assert_eq!(
        json(&out)["schemes"][0]["rounds"].as_array().unwrap().len(),
        2
    );
}

#[test]
fn the_help_tells_the_defaults() {
    let output = Command::new(program("vit_finetune"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for part in [
        "[default: sft,sft-raw,sl,fl-lora]",
        "[default: digits]",
        "[default: transform]",
        "[default: 30000000.0]",
        "else runs/vit_finetune]",
    ] {
        assert!(help.contains(part), "{part} is missing in {help}");
    }
}

#[test]
fn a_folder_of_images_is_told_and_its_merged_model_says_how_they_were_cut() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sft-core/tests/fixtures");
    let folder = Folder::new("pictures");
    for name in ["train/a/1", "train/a/2", "train/b/1", "val/a/1", "val/b/1"] {
        let to = folder.0.join(format!("data/{name}.png"));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(fixtures.join("pictures/wide.png"), to).unwrap();
    }
    std::fs::write(folder.0.join("data/train/a/._1.png"), "no image").unwrap();
    std::fs::create_dir(folder.0.join("data/train/.ipynb_checkpoints")).unwrap();
    let model = fixtures.join("hugging_face/model.safetensors");
    let data = format!("folder:{}", folder.join("data"));
    let flags = [
        "--scheme",
        "sft",
        "--cut",
        "1",
        "--devices",
        "1",
        "--rounds",
        "1",
        "--merged",
    ];
    let files = ["--model", model.to_str().unwrap(), "--data", &data];
    let out = folder.join("out");
    let output = run(&out, &[&flags[..], &files[..]].concat());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    let (train, test) = (folder.join("data/train"), folder.join("data/val"));
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(
        lines[..2],
        [
            format!(
                "training data: 3 images of 2 classes in {train}, 2 entries skipped: \
                 .ipynb_checkpoints, a/._1.png"
            ),
            format!("test data: 2 images of 2 classes in {test}, 0 entries skipped"),
        ]
    );
    let processor = Path::new(&out).join("merged-sft/preprocessor_config.json");
    let text = std::fs::read_to_string(processor).unwrap();
    let processor: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(processor["size"]["shortest_edge"], 14);
    assert_eq!(processor["crop_size"]["height"], 12);
}

/// What the process was started from does not count.
#[test]
#[cfg(target_os = "linux")]
fn the_reported_memory_is_its_own() {
    let size = 1 << 30;
    let block = vec![1u8; size];
    std::hint::black_box(&block);
    let folder = Folder::new("memory");
    let out = folder.join("out");
    assert!(
        run(&out, &["--rounds", "1", "--scheme", "sft"])
            .status
            .success()
    );
    let peak = json(&out)["peak_resident_bytes"].as_u64().unwrap();
    assert!(peak < size as u64 / 2, "{peak}");
    drop(block);
}
