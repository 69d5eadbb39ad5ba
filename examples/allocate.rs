//! Solves instances of P1 and P2 from a file: `cargo run --release --example allocate -- FILE.json`.
//!
//! The format is that of [`sft_examples::instances`]. The answers go to standard output under the
//! same two keys.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use sft_examples::console::{ended, say};
use sft_examples::instances::{Bandwidth, Instances, Joint};
use sft_opt::optimize;
use sft_opt::plan::configure;

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

/// Solves instances of P1 and P2; the answers go to standard output.
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// A JSON file of instances, see `sft_examples::instances`.
    file: PathBuf,
}

fn main() -> ExitCode {
    let Flags { file } = Flags::parse();
    ended(solve(&file).and_then(|answers| say(answers).map_err(|error| error.to_string())))
}

fn solve(path: &Path) -> Result<String, String> {
    let path = path.display();
    let text = std::fs::read(path.to_string()).map_err(|error| format!("{path}: {error}"))?;
    let input: Instances =
        serde_json::from_slice(&text).map_err(|error| format!("{path}: {error}"))?;
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
fn about<E: Display>(id: &str) -> impl Fn(E) -> String {
    move |error| format!("{id}: {error}")
}

fn solve_bandwidth(instance: Bandwidth) -> Result<BandwidthAnswer, String> {
    let solution = instance.solve().map_err(about(&instance.id))?;
    let Some(regime) = solution.value.regime else {
        return Ok(BandwidthAnswer {
            id: instance.id,
            status: INFEASIBLE,
            ..BandwidthAnswer::default()
        });
    };
    let value = solution.value;
    Ok(BandwidthAnswer {
        id: instance.id,
        status: OPTIMAL,
        tau_s: Some(solution.tau_s),
        tau_minus_amax_s: Some(value.tau_minus_amax_s),
        b_hz: Some(value.b_hz),
        regime: Some(regime.as_str()),
        shadow_price_s_per_hz: Some(value.shadow_price_s_per_hz),
    })
}

fn solve_joint(instance: Joint) -> Result<JointAnswer, String> {
    let compression = instance.compression().map_err(about(&instance.id))?;
    let problem = instance.problem().map_err(about(&instance.id))?;
    let given = configure(&problem, &compression, &instance.b_hz)
        .map_err(about(&instance.id))?
        .feasible();
    let joint = optimize(&problem, &compression)
        .map_err(about(&instance.id))?
        .feasible();
    let (tau_joint_s, l_joint) = joint.map_or((None, None), |joint| {
        (Some(joint.tau_s), Some(joint.value.cut))
    });
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
            rho: Some(given.value.setting.keep),
            q: Some(given.value.setting.bits),
            l: Some(given.value.cut),
            beta: Some(given.value.setting.beta),
            tau_s: Some(given.tau_s),
            tau_joint_s,
            l_joint,
        },
    })
}
