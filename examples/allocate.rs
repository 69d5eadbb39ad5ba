//! Solves instances of P1 and P2 from a file: `cargo run --release --example allocate -- FILE.json`.
//!
//! The file holds `{"p2": […], "p1": […]}`; either list may be missing. One instance of P2:
//!
//! ```json
//! {"id": "two phones", "a_s": [10, 0], "c_bit_per_bpshz": [2e6, 24e6], "B_hz": 3e6,
//!  "b_max_hz": [null, 8e6]}
//! ```
//!
//! (`b_max_hz` may be missing: no caps.) An instance of P1 has `id`, `accuracy_coef` (terms
//! `{"i", "j", "w"}` of `w·ρⁱ·qʲ`), `accuracy_min`, `rho_min`, `rho_max`, `q_min`, `q_max`,
//! `l_values`, `memory_mib` and `memory_max_mib`, `a_s` and `c_fixed_bit_per_bpshz` (lists by
//! position in `l_values`, then device), `c_beta_bit_per_bpshz`, `b_hz` and `B_hz`. Further keys
//! are ignored. The answers go to standard output under the same two keys.

use std::fmt::Display;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use sft_opt::{
    Accuracy, Compression, CutOption, JointProblem, KeepScale, Problem, Rate, Regime, ServerModel,
    Term, allocate_bandwidth, configure, optimize,
};

#[derive(Deserialize)]
struct Input {
    p2: Option<Vec<Bandwidth>>,
    p1: Option<Vec<Joint>>,
}

/// An instance of P2.
#[derive(Deserialize)]
struct Bandwidth {
    id: String,
    a_s: Vec<f64>,
    c_bit_per_bpshz: Vec<f64>,
    #[serde(rename = "B_hz")]
    total_hz: f64,
    b_max_hz: Option<Vec<Option<f64>>>,
}

/// An instance of P1.
#[derive(Deserialize)]
struct Joint {
    id: String,
    accuracy_coef: Vec<Term>,
    accuracy_min: f64,
    rho_min: f64,
    rho_max: f64,
    q_min: u32,
    q_max: u32,
    l_values: Vec<usize>,
    memory_mib: Vec<f64>,
    memory_max_mib: f64,
    a_s: Vec<Vec<f64>>,
    c_fixed_bit_per_bpshz: Vec<Vec<f64>>,
    c_beta_bit_per_bpshz: Vec<f64>,
    b_hz: Vec<f64>,
    #[serde(rename = "B_hz")]
    total_hz: f64,
}

#[derive(Serialize)]
struct Output {
    p2: Vec<BandwidthAnswer>,
    p1: Vec<JointAnswer>,
}

#[derive(Default, Serialize)]
struct BandwidthAnswer {
    id: String,
    status: &'static str,
    tau_s: Option<f64>,
    tau_minus_amax_s: Option<f64>,
    b_hz: Option<Vec<f64>>,
    regime: Option<&'static str>,
    shadow_price_s_per_hz: Option<f64>,
}

#[derive(Default, Serialize)]
struct JointAnswer {
    id: String,
    status: &'static str,
    rho: Option<f64>,
    q: Option<u32>,
    l: Option<usize>,
    beta: Option<f64>,
    tau_s: Option<f64>,
    tau_joint_s: Option<f64>,
    l_joint: Option<usize>,
}

const INFEASIBLE: &str = "infeasible";
const OPTIMAL: &str = "optimal";
const BYTES_PER_MIB: f64 = 1024.0 * 1024.0;

fn main() -> ExitCode {
    match run() {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, String> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), None) = (arguments.next(), arguments.next()) else {
        return Err("expected one argument: a JSON file of instances".into());
    };
    let text = std::fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
    let input: Input = serde_json::from_slice(&text).map_err(|error| format!("{path}: {error}"))?;
    if input.p2.is_none() && input.p1.is_none() {
        return Err(format!("{path}: neither p2 nor p1 found"));
    }
    let output = Output {
        p2: (input.p2.unwrap_or_default().into_iter())
            .map(solve_bandwidth)
            .collect::<Result<_, _>>()?,
        p1: (input.p1.unwrap_or_default().into_iter())
            .map(solve_joint)
            .collect::<Result<_, _>>()?,
    };
    serde_json::to_string_pretty(&output).map_err(|error| error.to_string())
}

/// A message about one instance.
fn about(id: &str) -> impl Fn(sft_opt::Error) -> String {
    move |error| format!("{id}: {error}")
}

fn solve_bandwidth(instance: Bandwidth) -> Result<BandwidthAnswer, String> {
    let caps: Option<Vec<f64>> = (instance.b_max_hz).map(|caps| {
        caps.into_iter()
            .map(|cap| cap.unwrap_or(f64::INFINITY))
            .collect()
    });
    let solution = allocate_bandwidth(&Problem {
        a_s: &instance.a_s,
        c_bits_per_bps_hz: &instance.c_bit_per_bpshz,
        total_hz: instance.total_hz,
        cap_hz: caps.as_deref(),
    })
    .map_err(about(&instance.id))?;
    if solution.regime == Regime::Infeasible {
        return Ok(BandwidthAnswer {
            id: instance.id,
            status: INFEASIBLE,
            ..BandwidthAnswer::default()
        });
    }
    Ok(BandwidthAnswer {
        id: instance.id,
        status: OPTIMAL,
        tau_s: Some(solution.tau_s),
        tau_minus_amax_s: Some(solution.tau_minus_amax_s),
        b_hz: Some(solution.b_hz),
        regime: Some(solution.regime.as_str()),
        shadow_price_s_per_hz: Some(solution.shadow_price_s_per_hz),
    })
}

fn solve_joint(instance: Joint) -> Result<JointAnswer, String> {
    let compression = compression(&instance).map_err(about(&instance.id))?;
    let problem = joint_problem(&instance)?;
    let given = configure(&problem, &compression, &instance.b_hz)
        .map_err(about(&instance.id))?
        .optimal();
    let joint = optimize(&problem, &compression)
        .map_err(about(&instance.id))?
        .optimal();
    let (tau_joint_s, l_joint) =
        joint.map_or((None, None), |joint| (Some(joint.tau_s), Some(joint.cut)));
    let id = instance.id;
    Ok(match given {
        None => JointAnswer {
            id,
            status: INFEASIBLE,
            ..JointAnswer::default()
        },
        Some(given) => JointAnswer {
            id,
            status: OPTIMAL,
            rho: Some(given.setting.keep),
            q: Some(given.setting.bits),
            l: Some(given.cut),
            beta: Some(given.setting.beta),
            tau_s: Some(given.tau_s),
            tau_joint_s,
            l_joint,
        },
    })
}

fn compression(instance: &Joint) -> sft_opt::Result<Compression> {
    Ok(Compression {
        accuracy: Accuracy::new(KeepScale::Keep, &instance.accuracy_coef)?,
        accuracy_min: instance.accuracy_min,
        keep_min: instance.rho_min,
        keep_max: instance.rho_max,
        bits_min: instance.q_min,
        bits_max: instance.q_max,
        rate: Rate::Formula,
    })
}

fn joint_problem(instance: &Joint) -> Result<JointProblem, String> {
    let cuts = instance.l_values.len();
    same_length(&instance.id, "memory_mib", instance.memory_mib.len(), cuts)?;
    same_length(&instance.id, "a_s", instance.a_s.len(), cuts)?;
    let fixed = instance.c_fixed_bit_per_bpshz.len();
    same_length(&instance.id, "c_fixed_bit_per_bpshz", fixed, cuts)?;
    let option = |k: usize| CutOption {
        cut: instance.l_values[k],
        memory_bytes: instance.memory_mib[k] * BYTES_PER_MIB,
        a_s: instance.a_s[k].clone(),
        c_fixed: instance.c_fixed_bit_per_bpshz[k].clone(),
        server_flop: Vec::new(),
    };
    let devices = instance.c_beta_bit_per_bpshz.len();
    Ok(JointProblem {
        cuts: (0..cuts).map(option).collect(),
        c_beta: instance.c_beta_bit_per_bpshz.clone(),
        memory_max_bytes: vec![instance.memory_max_mib * BYTES_PER_MIB; devices],
        total_hz: instance.total_hz,
        cap_hz: None,
        server_model: ServerModel::PerDevice,
        server_flop_per_s: 0.0,
    })
}

fn same_length(id: impl Display, name: &str, found: usize, cuts: usize) -> Result<(), String> {
    if found == cuts {
        return Ok(());
    }
    Err(format!(
        "{id}: {name} has {found} entries, expected {cuts}: one per entry of l_values"
    ))
}
