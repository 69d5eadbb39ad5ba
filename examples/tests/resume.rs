//! Runs of `vit_finetune` that end early and go on, kill -9 and a full disk among the reasons.
#![cfg(unix)]

mod common;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use common::{Folder, digits, program};
use serde_json::Value;

const SCHEMES: [&str; 5] = ["sft", "sft-raw", "sl", "fl-lora", "fl-full"];

fn command(data: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(program("vit_finetune"));
    let common = ["--devices", "3", "--participation", "0.7", "--data", data];
    command.args(common).args(flags);
    command
}

fn run(data: &str, flags: &[&str]) -> Output {
    let output = command(data, flags).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{flags:?}: {error}");
    output
}

/// `run.json` without what was measured of the machine.
fn report(out: &str) -> Value {
    let text = std::fs::read_to_string(Path::new(out).join("run.json")).unwrap();
    let mut run: Value = serde_json::from_str(&text).unwrap();
    run.as_object_mut().unwrap().remove("peak_resident_bytes");
    for scheme in run["schemes"].as_array_mut().unwrap() {
        for round in scheme["rounds"].as_array_mut().unwrap() {
            round.as_object_mut().unwrap().remove("wall_s");
        }
    }
    run
}

fn tuned(out: &str, scheme: &str) -> Vec<u8> {
    let file = match scheme {
        "fl-full" => "merged-fl-full/model.safetensors".into(),
        _ => format!("adapters-{scheme}/adapter_model.safetensors"),
    };
    std::fs::read(Path::new(out).join(file)).unwrap()
}

fn assert_equal_runs(left: &str, right: &str, schemes: &[&str]) {
    assert_eq!(report(left), report(right));
    for scheme in schemes {
        assert_eq!(tuned(left, scheme), tuned(right, scheme), "{scheme}");
    }
}

#[test]
fn two_rounds_and_two_more_are_four_for_every_scheme() {
    let folder = Folder::new("resume");
    let data = digits(&folder);
    let schemes = SCHEMES.join(",");
    let flags = ["--scheme", &schemes, "--lora-dropout", "0.1", "--augment"];
    let with = |more: &[&str]| run(&data, &[flags.as_slice(), more].concat());
    let (straight, parts, rest) = (folder.join("s"), folder.join("p"), folder.join("r"));
    with(&["--rounds", "4", "--out", &straight]);
    with(&["--rounds", "2", "--out", &parts, "--checkpoint-every", "2"]);
    with(&["--rounds", "4", "--resume", &parts, "--out", &rest]);
    assert_equal_runs(&straight, &rest, &SCHEMES);
    // Without --out the folder of the checkpoints gets the results.
    with(&["--rounds", "4", "--resume", &parts]);
    assert_equal_runs(&straight, &parts, &SCHEMES);
}

#[test]
fn adapters_on_patch_embedding_and_head_are_kept_and_merged() {
    let folder = Folder::new("resume-targets");
    let (data, schemes) = (digits(&folder), ["sft", "fl-lora"]);
    let flags = [
        "--scheme",
        "sft,fl-lora",
        "--targets",
        "q_proj,projection,classifier",
    ];
    let with = |more: &[&str]| run(&data, &[flags.as_slice(), more].concat());
    let (straight, parts) = (folder.join("s"), folder.join("p"));
    with(&["--rounds", "2", "--out", &straight, "--merged"]);
    with(&["--rounds", "1", "--out", &parts, "--checkpoint-every", "1"]);
    with(&["--rounds", "2", "--resume", &parts, "--merged"]);
    assert_equal_runs(&straight, &parts, &schemes);
    for scheme in schemes {
        let merged = |out: &str| {
            let file = format!("merged-{scheme}/model.safetensors");
            std::fs::read(Path::new(out).join(file)).unwrap()
        };
        assert_eq!(merged(&straight), merged(&parts), "{scheme}");
    }
    // The tuned adapters are a start of their own.
    let adapters = format!("{straight}/adapters-sft");
    with(&[
        "--rounds",
        "1",
        "--adapters",
        &adapters,
        "--out",
        &folder.join("a"),
    ]);
}

#[test]
fn another_configuration_is_refused_by_name() {
    let folder = Folder::new("resume-other");
    let (data, out) = (digits(&folder), folder.join("out"));
    let checkpoint = [
        "--scheme",
        "sft",
        "--rounds",
        "1",
        "--checkpoint-every",
        "1",
    ];
    run(&data, &[checkpoint.as_slice(), &["--out", &out]].concat());
    for (flags, message) in [
        (["--lr", "0.1"], "its lr is 0.003, this run's is 0.1"),
        (["--rank", "4"], "its rank is 8, this run's is 4"),
        (["--seed", "2"], "its seed is 1, this run's is 2"),
        (
            ["--targets", "q_proj,projection"],
            "its targets is \"all-linear\", this run's is \"q_proj,projection\"",
        ),
        (
            ["--schedule", "cosine"],
            "its rounds is none, this run's is 2",
        ),
    ] {
        let resume = ["--scheme", "sft", "--rounds", "2", "--resume", &out];
        let output = command(&data, &[resume.as_slice(), &flags].concat())
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(error.contains("checkpoint-sft.safetensors: "), "{error}");
        assert!(error.contains(message), "{error}");
    }
}

/// A file of the repository's examples in a folder of its own.
fn copied(from: &str, folder: &str) -> String {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data")
        .join(from);
    let to = Path::new(folder).join(from.file_name().unwrap());
    std::fs::create_dir_all(folder).unwrap();
    std::fs::copy(from, &to).unwrap();
    to.display().to_string()
}

/// Inverts the lowest bit of a byte: the first, or one counted from the end.
fn change(file: &str, from_end: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = (bytes.len() - from_end) % bytes.len();
    bytes[at] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

/// Changes the first training label, the last test pixel, a weight and an adapter where they are:
/// each attempt is refused for what was changed.
fn refuses_changes(
    [data, model, adapter]: [&str; 3],
    attempt: impl Fn() -> Output,
    said: impl Fn(&str) -> String,
) {
    for (file, from_end, what) in [
        (data, 0, "training data"),
        (data, 1, "test data"),
        (model, 4, "model"),
        (adapter, 4, "adapters"),
    ] {
        change(file, from_end);
        let output = attempt();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{what}: {error}");
        assert!(error.contains(&said(what)), "{error}");
        change(file, from_end);
    }
}

#[test]
fn contents_decide_what_goes_on_and_paths_do_not() {
    let folder = Folder::new("resume-content");
    let model = |place: &str| {
        copied("digits_vit/config.json", &folder.join(place));
        copied("digits_vit/model.safetensors", &folder.join(place))
    };
    let flags = ["--scheme", "sft", "--checkpoint-every", "1", "--rounds"];
    let (data, weights) = (digits(&folder), model("model"));
    let with = |data: &str, model: &str, rounds: &str, more: &[&str]| {
        let given = [flags.as_slice(), &[rounds, "--model", model], more].concat();
        command(data, &given).output().unwrap()
    };
    let (start, adapters) = (folder.join("start"), folder.join("start/adapters-sft"));
    let from = ["--adapters", &adapters];
    assert!(
        with(&data, &weights, "1", &["--out", &start])
            .status
            .success()
    );
    let (straight, parts) = (folder.join("straight"), folder.join("parts"));
    for (rounds, out) in [("2", &straight), ("1", &parts)] {
        let output = with(
            &data,
            &weights,
            rounds,
            &[&from, ["--out", out].as_slice()].concat(),
        );
        assert!(output.status.success());
    }

    // All of it moved.
    let moved = folder.join("moved.bin");
    std::fs::rename(data.strip_prefix("digits:").unwrap(), &moved).unwrap();
    let (moved_data, moved_model) = (format!("digits:{moved}"), model("moved"));
    std::fs::remove_dir_all(folder.join("model")).unwrap();
    std::fs::rename(&start, folder.join("elsewhere")).unwrap();
    let adapters = folder.join("elsewhere/adapters-sft");
    let resumed = |rest: &str| {
        let more = ["--adapters", &adapters, "--resume", &parts, "--out", rest];
        with(&moved_data, &moved_model, "2", &more)
    };
    let rest = folder.join("rest");
    let output = resumed(&rest);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(report(&straight)["schemes"], report(&rest)["schemes"]);
    assert_eq!(tuned(&straight, "sft"), tuned(&rest, "sft"));

    let adapter = format!("{adapters}/adapter_model.safetensors");
    let attempt = || resumed(&folder.join("refused"));
    refuses_changes([&moved, &moved_model, &adapter], attempt, |what| {
        format!("it is of another {what}: ")
    });
    assert!(!Path::new(&folder.join("refused")).exists());
}

#[test]
fn a_folder_knows_its_run_by_contents_and_not_by_paths() {
    let folder = Folder::new("resume-folder");
    let flags = ["--scheme", "sft", "--rounds", "1"];
    let with = |data: &str, model: &str, adapters: &str, out: &str| {
        let places = ["--model", model, "--adapters", adapters, "--out", out];
        let given = [flags.as_slice(), places.as_slice()].concat();
        command(data, &given).output().unwrap()
    };
    let model = |place: &str| {
        copied("digits_vit/config.json", &folder.join(place));
        copied("digits_vit/model.safetensors", &folder.join(place))
    };
    let (data, weights, out) = (digits(&folder), model("model"), folder.join("out"));
    let (start, adapters) = (folder.join("start"), folder.join("start/adapters-sft"));
    run(&data, &[flags.as_slice(), &["--out", &start]].concat());
    assert!(with(&data, &weights, &adapters, &out).status.success());
    let (before, tuned_before) = (report(&out), tuned(&out, "sft"));

    // All of it moved: the same run.
    let moved = folder.join("moved.bin");
    std::fs::rename(data.strip_prefix("digits:").unwrap(), &moved).unwrap();
    let (moved_data, moved_model) = (format!("digits:{moved}"), model("moved"));
    std::fs::remove_dir_all(folder.join("model")).unwrap();
    std::fs::rename(&start, folder.join("elsewhere")).unwrap();
    let adapters = folder.join("elsewhere/adapters-sft");
    let again = || with(&moved_data, &moved_model, &adapters, &out);
    let output = again();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    assert_eq!(report(&out)["schemes"], before["schemes"]);
    assert_eq!(report(&out)["contents"], before["contents"]);
    assert_eq!(tuned(&out, "sft"), tuned_before);

    let adapter = format!("{adapters}/adapter_model.safetensors");
    let attempt = || {
        let output = again();
        assert_eq!(tuned(&out, "sft"), tuned_before);
        output
    };
    refuses_changes([&moved, &moved_model, &adapter], attempt, |what| {
        format!("run.json: it is of another {what}: its contents have the digest")
    });
}

/// Starts a long run and waits until it has finished a round.
fn started(data: &str, out: &str) -> Child {
    let flags = [
        "--scheme",
        "sft",
        "--rounds",
        "100000",
        "--checkpoint-every",
        "1",
    ];
    let mut command = command(data, &[flags.as_slice(), &["--out", out]].concat());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let checkpoint = Path::new(out).join("checkpoint-sft.safetensors");
    for _ in 0..60_000 {
        if checkpoint.exists() {
            return child;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    panic!("no checkpoint in a minute");
}

/// Goes on for as many rounds as the checkpoint has, and one more; compares with a straight run.
fn goes_on(folder: &Folder, data: &str, out: &str) {
    let path = Path::new(out).join("checkpoint-sft.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let header = &metadata.metadata().as_ref().unwrap()["sft_checkpoint"];
    let header: Value = serde_json::from_str(header).unwrap();
    let rounds = (header["rounds"].as_array().unwrap().len() + 1).to_string();
    let (rest, straight) = (folder.join("rest"), folder.join("straight"));
    let flags = ["--scheme", "sft", "--rounds", &rounds];
    run(
        data,
        &[flags.as_slice(), &["--resume", out, "--out", &rest]].concat(),
    );
    run(data, &[flags.as_slice(), &["--out", &straight]].concat());
    assert_eq!(report(&straight), report(&rest));
    assert_eq!(tuned(&straight, "sft"), tuned(&rest, "sft"));
}

#[test]
fn a_killed_run_goes_on_from_its_newest_checkpoint() {
    for delay_ms in [0, 7, 23] {
        let folder = Folder::new("resume-kill");
        let (data, out) = (digits(&folder), folder.join("out"));
        let mut child = started(&data, &out);
        std::thread::sleep(Duration::from_millis(delay_ms));
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        goes_on(&folder, &data, &out);
    }
}

#[test]
fn a_folder_takes_one_run_at_a_time() {
    let folder = Folder::new("resume-locked");
    let (data, out) = (digits(&folder), folder.join("out"));
    let mut child = started(&data, &out);
    for flags in [["--out", &out], ["--resume", &out]] {
        let output = command(&data, &["--scheme", "sft", flags[0], flags[1]]).output();
        let output = output.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.contains("another run is writing to this folder"),
            "{error}"
        );
    }
    child.kill().unwrap();
    child.wait().unwrap();
    goes_on(&folder, &data, &out);
}

#[test]
fn an_interrupt_keeps_the_finished_rounds_and_says_so() {
    let folder = Folder::new("resume-interrupt");
    let (data, out) = (digits(&folder), folder.join("out"));
    let child = started(&data, &out);
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{error}");
    let rounds = report(&out)["schemes"][0]["rounds"]
        .as_array()
        .unwrap()
        .len();
    let said = format!("interrupted; finished rounds kept: {rounds} of sft; go on with --resume");
    assert!(error.contains(&said), "{error}");
    goes_on(&folder, &data, &out);
}

#[test]
fn a_full_disk_leaves_the_earlier_checkpoint() {
    let folder = Folder::new("resume-full");
    let (data, out) = (digits(&folder), folder.join("out"));
    let flags = ["--scheme", "sft", "--checkpoint-every", "1", "--rounds"];
    run(&data, &[flags.as_slice(), &["1", "--out", &out]].concat());
    let path = Path::new(&out).join("checkpoint-sft.safetensors");
    let before = std::fs::read(&path).unwrap();
    // A limit on the size of files stands in for the disk: writing fails beyond 50 kB.
    let full = command(
        &data,
        &[flags.as_slice(), &["2", "--resume", &out]].concat(),
    );
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$@\"", "sh"])
        .arg(full.get_program())
        .args(full.get_args())
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.starts_with("error: ") && error.contains("checkpoint-sft.safetensors: "),
        "{error}"
    );
    assert!(
        std::fs::read(&path).unwrap() == before,
        "the checkpoint is as it was"
    );
    for entry in std::fs::read_dir(&out).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.starts_with('.'), "{name} is left");
    }
}

#[test]
fn saved_adapters_start_a_run_and_merged_models_load() {
    let folder = Folder::new("resume-adapters");
    let (data, first, second) = (digits(&folder), folder.join("first"), folder.join("second"));
    let flags = ["--scheme", "sft", "--rounds", "3"];
    let old = ["--merged", "--peft-names", "transformers4", "--out", &first];
    run(&data, &[flags.as_slice(), &old].concat());
    let adapters = Path::new(&first).join("adapters-sft").display().to_string();
    let start = ["--adapters", &adapters, "--out", &second];
    run(&data, &[flags.as_slice(), &start].concat());
    let loss = |out: &str, round: usize| {
        report(out)["schemes"][0]["rounds"][round]["loss"]
            .as_f64()
            .unwrap()
    };
    assert!(
        loss(&second, 0) < loss(&first, 1),
        "it goes on from what was learned"
    );
    let model = Path::new(&first)
        .join("merged-sft/model.safetensors")
        .display()
        .to_string();
    let third = folder.join("third");
    run(
        &data,
        &[flags.as_slice(), &["--model", &model, "--out", &third]].concat(),
    );
    assert!(loss(&third, 0) < loss(&first, 1));
    let wrong = ["--adapters", &adapters, "--rank", "4"];
    let output = command(&data, &[flags.as_slice(), &wrong].concat())
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("the adapters have rank 8, this run has 4"),
        "{error}"
    );
}
