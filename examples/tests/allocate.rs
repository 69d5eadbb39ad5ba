//! `allocate` as its users run it: answers, infeasible instances, mistakes; and the shared
//! vectors of an independent solver, where they are present.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Folder, program};
use serde_json::{Value, json};
use sft_examples::instances::Joint;
use sft_opt::Constraint;
use sft_opt::plan::configure;

fn allocate(path: &Path) -> Output {
    Command::new(program("allocate"))
        .arg(path)
        .output()
        .unwrap()
}

/// What the program answers to instances.
fn answers(instances: &Value) -> Value {
    let folder = Folder::new("allocate");
    let path = folder.0.join("instances.json");
    std::fs::write(&path, instances.to_string()).unwrap();
    let output = allocate(&path);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the program says to a file that it refuses.
fn refusal(text: &str) -> String {
    let folder = Folder::new("allocate-bad");
    let path = folder.0.join("instances.json");
    std::fs::write(&path, text).unwrap();
    let output = allocate(&path);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

fn p2(total_hz: f64, caps: &Value) -> Value {
    json!({"id": "pair", "a_s": [10.0, 0.0], "c_bit_per_bpshz": [2e6, 24e6], "B_hz": total_hz,
           "b_max_hz": caps})
}

fn p1() -> Value {
    json!({
        "id": "joint", "accuracy_coef": [{"i": 0, "j": 0, "w": 0.5}, {"i": 1, "j": 0, "w": 0.4}],
        "accuracy_min": 0.7, "rho_min": 0.1, "rho_max": 1.0, "q_min": 2, "q_max": 4,
        "l_values": [1, 2], "memory_mib": [100.0, 200.0], "memory_max_mib": 150.0,
        "a_s": [[5.0, 6.0], [1.0, 2.0]],
        "c_fixed_bit_per_bpshz": [[1e6, 1e6], [2e6, 2e6]],
        "c_beta_bit_per_bpshz": [3.2e7, 3.2e7], "b_hz": [1e6, 1e6], "B_hz": 2e6
    })
}

#[test]
fn bandwidths_and_what_fixes_them() {
    let answer = answers(&json!({"p2": [p2(3e6, &Value::Null), p2(30e6, &json!([null, 1e6]))]}));
    let [free, capped] = [&answer["p2"][0], &answer["p2"][1]];
    assert_eq!(
        (&free["id"], &free["status"]),
        (&json!("pair"), &json!("optimal"))
    );
    assert_eq!(free["regime"], "bandwidth");
    assert!((free["tau_s"].as_f64().unwrap() - 12.0).abs() < 1e-12);
    assert!((free["tau_minus_amax_s"].as_f64().unwrap() - 2.0).abs() < 1e-12);
    assert!((free["b_hz"][0].as_f64().unwrap() - 1e6).abs() < 1e-5);
    assert!(free["shadow_price_s_per_hz"].as_f64().unwrap() > 0.0);
    // At its cap device 1 takes 24 s; device 0 needs 2e6/14 Hz to be as late.
    assert_eq!(capped["regime"], "cap_or_floor");
    assert_eq!(
        (&capped["tau_s"], &capped["shadow_price_s_per_hz"]),
        (&json!(24.0), &json!(0.0))
    );
    assert!((capped["b_hz"][0].as_f64().unwrap() - 2e6 / 14.0).abs() < 1e-6);
    assert_eq!(answer["p1"], json!([]));
}

#[test]
fn infeasible_instances_have_null_fields() {
    let (mut vague, mut large) = (p1(), p1());
    vague["accuracy_min"] = json!(0.95);
    large["memory_max_mib"] = json!(100.0);
    let mut dead = p1();
    (dead["b_hz"], dead["B_hz"]) = (json!([0.0, 1e6]), json!(0.0));
    let answer = answers(&json!({
        "p2": [p2(0.0, &Value::Null), p2(3e6, &json!([0.0, null]))],
        "p1": [vague, large, dead]
    }));
    let all = ["p2", "p1"]
        .map(|list| answer[list].as_array().unwrap().clone())
        .concat();
    assert_eq!(all.len(), 5);
    for answer in &all {
        assert_eq!(answer["status"], "infeasible");
        for (key, value) in answer.as_object().unwrap() {
            assert!(
                ["id", "status"].contains(&key.as_str()) || value.is_null(),
                "{key}: {value}"
            );
        }
    }
}

#[test]
fn cut_and_compression() {
    let answer = &answers(&json!({"p1": [p1()]}))["p1"][0];
    assert_eq!(
        (&answer["status"], &answer["l"]),
        (&json!("optimal"), &json!(1))
    );
    assert!((answer["rho"].as_f64().unwrap() - 0.5).abs() < 1e-9);
    assert_eq!(answer["q"], 2);
    // β = (0.5·3 + 1)/32; device 1 starts last.
    let beta = 2.5 / 32.0;
    assert!((answer["beta"].as_f64().unwrap() / beta - 1.0).abs() < 1e-9);
    let tau = 6.0 + 1.0 + beta * 32.0;
    assert!((answer["tau_s"].as_f64().unwrap() / tau - 1.0).abs() < 1e-9);
    assert!(answer["tau_joint_s"].as_f64().unwrap() < tau);
    assert_eq!(answer["l_joint"], 1);
}

#[test]
fn mistakes_name_the_instance() {
    let with = |mut instance: Value, key: &str, value: Value| {
        instance[key] = value;
        instance
    };
    for (instances, message) in [
        (
            json!({"p2": [with(p2(1.0, &Value::Null), "a_s", json!([1.0]))]}),
            "pair: c_bits_per_bps_hz has 2 entries",
        ),
        (
            json!({"p2": [p2(-1.0, &Value::Null)]}),
            "pair: total_hz is -1",
        ),
        (
            json!({"p2": [p2(1.0, &json!([1.0]))]}),
            "pair: cap_hz has 1 entries",
        ),
        (
            json!({"p2": [p2(1.0, &json!([1.0, -2.0]))]}),
            "pair: cap_hz[1] is -2",
        ),
        (
            json!({"p1": [with(p1(), "rho_min", json!(0.0))]}),
            "joint: keep_min is 0",
        ),
        (
            json!({"p1": [with(p1(), "q_max", json!(1))]}),
            "joint: bits_max is 1",
        ),
        (
            json!({"p1": [with(p1(), "memory_mib", json!([1.0]))]}),
            "joint: memory_mib has 1 entries",
        ),
        (
            json!({"p1": [with(p1(), "b_hz", json!([1e6]))]}),
            "joint: b_hz has 1 entries",
        ),
        (
            json!({"p1": [with(p1(), "accuracy_coef", json!([{"i": 3, "j": 1, "w": 1.0}]))]}),
            "joint: terms.i + j[0] is 4",
        ),
        (json!({"p2": [{"id": "x"}]}), "missing field"),
        (json!({"p3": []}), "neither p2 nor p1 found"),
        (json!([1, 2]), "instances.json: "),
    ] {
        let error = refusal(&instances.to_string());
        assert!(error.contains(message), "{message}: {error}");
    }
    for text in [
        "",
        "{\"p2\": [",
        "{\"p2\": [{\"id\": \"x\", \"a_s\": [NaN]}]}",
    ] {
        assert!(refusal(text).contains("instances.json: "));
    }
    let output = allocate(Path::new("no/such.json"));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("no/such.json: ")
    );
    let output = Command::new(program("allocate")).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("<FILE>"));
}

/// `None` for what both call infeasible.
fn compare(found: &Value, expected: &Value, fields: &[(&str, f64)]) {
    let id = &expected["id"];
    for &(field, tolerance) in fields {
        match (found[field].as_f64(), expected[field].as_f64()) {
            (None, None) => {}
            (Some(x), Some(y)) => {
                let error = (x - y).abs() / y.abs().max(f64::MIN_POSITIVE);
                assert!(
                    error <= tolerance,
                    "{id}: {field} is {x}, expected {y}, {error:e}"
                );
            }
            (x, y) => panic!("{id}: {field} is {x:?}, expected {y:?}"),
        }
    }
}

#[test]
fn shared_vectors() {
    let shared = std::env::var_os("SFT_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let path = shared.join("oracles/resource_allocation.json");
    if !path.exists() {
        println!("skipped: no shared vectors here, set SFT_SHARED to their folder");
        return;
    }
    let vectors: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let output = allocate(&path);
    assert!(output.status.success());
    let answers: Value = serde_json::from_slice(&output.stdout).unwrap();
    let pairs = |list: &str| -> Vec<(Value, Value)> {
        let all = |value: &Value| value[list].as_array().unwrap().clone();
        let (found, expected) = (all(&answers), all(&vectors));
        assert!(found.len() == expected.len() && !found.is_empty());
        found.into_iter().zip(expected).collect()
    };
    for (found, expected) in pairs("p2") {
        compare(
            &found,
            &expected,
            &[
                ("tau_s", 1e-10),
                ("tau_minus_amax_s", 1e-10),
                ("shadow_price_s_per_hz", 1e-10),
            ],
        );
    }
    for (found, expected) in pairs("p1") {
        let exact = [("q", 0.0), ("l", 0.0), ("l_joint", 0.0), ("rho", 1e-9)];
        let close = ["beta", "tau_s", "tau_joint_s"].map(|field| (field, 1e-10));
        compare(&found, &expected, &[&exact[..], &close].concat());
        let instance: Joint = serde_json::from_value(expected.clone()).unwrap();
        let (problem, compression) = (instance.problem().unwrap(), instance.compression().unwrap());
        let outcome = configure(&problem, &compression, &instance.b_hz).unwrap();
        let reason = outcome
            .status
            .constraint()
            .map(|constraint| match constraint {
                Constraint::Accuracy => "accuracy",
                Constraint::Memory => "memory",
                _ => "bandwidth",
            });
        assert_eq!(reason, expected["reason"].as_str(), "{}", instance.id);
    }
}
