//! P1 and P against vectors of an independent solver, where they are present.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sft_opt::{
    Accuracy, Compression, Constraint, CutOption, JointProblem, KeepScale, Rate, ServerModel, Term,
    configure, optimize,
};

#[derive(Deserialize)]
struct Vectors {
    p1: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
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
    reason: Option<String>,
    rho: Option<f64>,
    q: Option<u32>,
    l: Option<usize>,
    beta: Option<f64>,
    tau_s: Option<f64>,
    l_joint: Option<usize>,
    tau_joint_s: Option<f64>,
}

const MIB: f64 = 1024.0 * 1024.0;

impl Vector {
    fn compression(&self) -> Compression {
        Compression {
            accuracy: Accuracy::new(KeepScale::Keep, &self.accuracy_coef).unwrap(),
            accuracy_min: self.accuracy_min,
            keep_min: self.rho_min,
            keep_max: self.rho_max,
            bits_min: self.q_min,
            bits_max: self.q_max,
            rate: Rate::Formula,
        }
    }

    fn problem(&self) -> JointProblem {
        let option = |k: usize| CutOption {
            cut: self.l_values[k],
            memory_bytes: self.memory_mib[k] * MIB,
            a_s: self.a_s[k].clone(),
            c_fixed: self.c_fixed_bit_per_bpshz[k].clone(),
            server_flop: Vec::new(),
        };
        JointProblem {
            cuts: (0..self.l_values.len()).map(option).collect(),
            c_beta: self.c_beta_bit_per_bpshz.clone(),
            memory_max_bytes: vec![self.memory_max_mib * MIB; self.b_hz.len()],
            total_hz: self.total_hz,
            cap_hz: None,
            server_model: ServerModel::Sequential,
            server_flop_per_s: 0.0,
        }
    }

    fn check(&self) {
        let (problem, compression) = (self.problem(), self.compression());
        let given = configure(&problem, &compression, &self.b_hz).unwrap();
        let joint = optimize(&problem, &compression).unwrap();
        let reason = given.constraint().map(|constraint| match constraint {
            Constraint::Accuracy => "accuracy",
            Constraint::Memory => "memory",
            _ => "bandwidth",
        });
        assert_eq!(reason, self.reason.as_deref(), "{}", self.id);
        let (Some(given), Some(joint)) = (given.optimal(), joint.optimal()) else {
            return;
        };
        assert_eq!(Some(given.setting.bits), self.q, "{}", self.id);
        assert_eq!(Some(given.cut), self.l, "{}", self.id);
        assert_eq!(Some(joint.cut), self.l_joint, "{}", self.id);
        let close = |found: f64, expected: Option<f64>, tolerance: f64| {
            let error = (found / expected.unwrap() - 1.0).abs();
            assert!(error <= tolerance, "{}: {found}, {error:e}", self.id);
        };
        close(given.setting.keep, self.rho, 1e-9);
        close(given.setting.beta, self.beta, 1e-10);
        close(given.tau_s, self.tau_s, 1e-10);
        close(joint.tau_s, self.tau_joint_s, 1e-10);
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
    let vectors: Vectors = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(!vectors.p1.is_empty());
    vectors.p1.iter().for_each(Vector::check);
}
