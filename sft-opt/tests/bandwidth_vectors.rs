//! The exact solver against vectors computed in exact arithmetic.
//!
//! `data/bandwidth.json` is written by `data/bandwidth.py`. A larger set outside the crate is
//! read on demand.
#![allow(clippy::print_stdout, reason = "what was measured")]
#![allow(clippy::float_cmp, reason = "counts and limits are exact")]

mod common;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sft_opt::bandwidth::Regime;
use sft_opt::{Problem, allocate_bandwidth};

#[derive(Deserialize)]
struct Vectors {
    p2: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    id: String,
    a_s: Vec<f64>,
    c_bit_per_bpshz: Vec<f64>,
    #[serde(rename = "B_hz")]
    total_hz: f64,
    b_max_hz: Vec<Option<f64>>,
    tau_s: Option<f64>,
    tau_minus_amax_s: Option<f64>,
    b_min_hz: Option<Vec<f64>>,
    bandwidth_used_hz: Option<f64>,
    regime: String,
    shadow_price_s_per_hz: Option<f64>,
    equality_feasible: Option<bool>,
}

const TOLERANCE: f64 = 1e-12;

fn error(found: f64, expected: f64) -> f64 {
    if found == expected {
        return 0.0;
    }
    (found - expected).abs() / expected.abs()
}

/// Largest relative error of `τ − a_max`, `τ`, bandwidths, sum and price.
fn check(vector: &Vector) -> f64 {
    let caps: Vec<f64> = (vector.b_max_hz.iter())
        .map(|cap| cap.unwrap_or(f64::INFINITY))
        .collect();
    let problem = Problem {
        a_s: &vector.a_s,
        c_bits_per_bps_hz: &vector.c_bit_per_bpshz,
        total_hz: vector.total_hz,
        cap_hz: Some(&caps),
    };
    let solution = allocate_bandwidth(&problem).unwrap();
    let regime = (solution.value.regime).map_or(solution.status.as_str(), Regime::as_str);
    assert_eq!(regime, vector.regime, "{}", vector.id);
    let kkt = common::kkt_residual(&problem, &solution);
    assert!(kkt <= 1e-12, "{}: kkt residual {kkt:e}", vector.id);
    if let Some(expected) = vector.equality_feasible {
        assert_eq!(solution.value.equality_feasible, expected, "{}", vector.id);
    }
    let scalars = [
        (solution.tau_s, vector.tau_s),
        (solution.value.tau_minus_amax_s, vector.tau_minus_amax_s),
        (solution.value.used_hz, vector.bandwidth_used_hz),
        (
            solution.value.shadow_price_s_per_hz,
            vector.shadow_price_s_per_hz,
        ),
    ];
    let bandwidths = vector.b_min_hz.iter().flatten().zip(&solution.value.b_hz);
    let pairs = scalars
        .into_iter()
        .filter_map(|(found, expected)| Some((found, expected?)))
        .chain(bandwidths.map(|(&expected, &found)| (found, expected)));
    let worst = pairs
        .map(|(found, expected)| error(found, expected))
        .fold(0.0, f64::max);
    assert!(
        worst <= TOLERANCE,
        "{}: relative error {worst:e}",
        vector.id
    );
    worst
}

fn check_file(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let vectors: Vectors = serde_json::from_str(&text).unwrap();
    assert!(!vectors.p2.is_empty());
    let worst = vectors.p2.iter().map(check).fold(0.0, f64::max);
    println!(
        "{} vectors, largest relative error {worst:e}",
        vectors.p2.len()
    );
}

#[test]
fn own_vectors() {
    check_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bandwidth.json"));
}

/// `SFT_SHARED=FOLDER cargo test -p sft-opt -- --ignored`.
#[test]
#[ignore = "reads vectors that are not part of the crate, from the folder SFT_SHARED"]
fn shared_vectors() {
    let shared =
        std::env::var_os("SFT_SHARED").expect("SFT_SHARED names the folder of the vectors");
    check_file(&PathBuf::from(shared).join("oracles/resource_allocation.json"));
}
