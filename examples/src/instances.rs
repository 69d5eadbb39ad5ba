//! Instances of P1 and P2 in a file.
//!
//! A file holds `{"p2": […], "p1": […]}`; either list may be missing. One instance of P2:
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
//! are ignored.

use serde::Deserialize;
use sft_opt::bandwidth::Bandwidths;
use sft_opt::plan::{CutOption, JointProblem, KeepScale, Rate, Term};
use sft_opt::system::ServerModel;
use sft_opt::{Accuracy, Compression, Result, Solution, allocate_bandwidth};

/// What a file holds.
#[derive(Debug, Deserialize)]
pub struct Instances {
    /// Instances of P2.
    pub p2: Option<Vec<Bandwidth>>,
    /// Instances of P1.
    pub p1: Option<Vec<Joint>>,
}

/// An instance of P2.
#[derive(Debug, Deserialize)]
pub struct Bandwidth {
    /// Its name.
    pub id: String,
    a_s: Vec<f64>,
    c_bit_per_bpshz: Vec<f64>,
    #[serde(rename = "B_hz")]
    total_hz: f64,
    b_max_hz: Option<Vec<Option<f64>>>,
}

/// An instance of P1.
#[derive(Debug, Deserialize)]
pub struct Joint {
    /// Its name.
    pub id: String,
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
    /// The bandwidths that P1 is given.
    pub b_hz: Vec<f64>,
    #[serde(rename = "B_hz")]
    total_hz: f64,
}

const BYTES_PER_MIB: f64 = 1024.0 * 1024.0;

impl Bandwidth {
    /// The exact solution.
    ///
    /// # Errors
    /// As [`allocate_bandwidth`].
    pub fn solve(&self) -> Result<Solution<Bandwidths>> {
        let caps: Option<Vec<f64>> = (self.b_max_hz.as_ref()).map(|caps| {
            caps.iter()
                .map(|cap| cap.unwrap_or(f64::INFINITY))
                .collect()
        });
        allocate_bandwidth(&sft_opt::Problem {
            a_s: &self.a_s,
            c_bits_per_bps_hz: &self.c_bit_per_bpshz,
            total_hz: self.total_hz,
            cap_hz: caps.as_deref(),
        })
    }
}

impl Joint {
    /// The compression problem.
    ///
    /// # Errors
    /// A term that no surface has.
    pub fn compression(&self) -> Result<Compression> {
        Ok(Compression {
            accuracy: Accuracy::new(KeepScale::Keep, &self.accuracy_coef)?,
            accuracy_min: self.accuracy_min,
            keep_min: self.rho_min,
            keep_max: self.rho_max,
            bits_min: self.q_min,
            bits_max: self.q_max,
            rate: Rate::Formula,
        })
    }

    /// The joint problem but for compression.
    ///
    /// # Errors
    /// A list without one entry per entry of `l_values`.
    pub fn problem(&self) -> std::result::Result<JointProblem, String> {
        let cuts = self.l_values.len();
        let lengths = [
            ("memory_mib", self.memory_mib.len()),
            ("a_s", self.a_s.len()),
            ("c_fixed_bit_per_bpshz", self.c_fixed_bit_per_bpshz.len()),
        ];
        if let Some((name, found)) = lengths.into_iter().find(|&(_, found)| found != cuts) {
            return Err(format!(
                "{name} has {found} entries, expected {cuts}: one per entry of l_values"
            ));
        }
        let option = |k: usize| CutOption {
            cut: self.l_values[k],
            memory_bytes: self.memory_mib[k] * BYTES_PER_MIB,
            a_s: self.a_s[k].clone(),
            c_fixed: self.c_fixed_bit_per_bpshz[k].clone(),
            server_flop: Vec::new(),
        };
        let devices = self.c_beta_bit_per_bpshz.len();
        Ok(JointProblem {
            cuts: (0..cuts).map(option).collect(),
            c_beta: self.c_beta_bit_per_bpshz.clone(),
            memory_max_bytes: vec![self.memory_max_mib * BYTES_PER_MIB; devices],
            total_hz: self.total_hz,
            cap_hz: None,
            server_model: ServerModel::PerDevice,
            server_flop_per_s: 0.0,
        })
    }
}
