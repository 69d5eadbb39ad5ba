//! The joint problem P: what every cut layer asks of devices, band and server.

use serde::{Deserialize, Serialize};

use crate::error::{Error, NOT_NEGATIVE, Result, check_entries, check_len, check_rate, check_size};
use crate::system::ServerModel;

/// What a cut layer asks of devices, band and server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutOption {
    /// Cut layer `l`.
    pub cut: usize,
    /// Memory it takes on every device in bytes, at least 0.
    pub memory_bytes: f64,
    /// Delay that bandwidth does not change, `a_n(l)`, in seconds; with
    /// [`ServerModel::OptimalShare`] without the server's part.
    pub a_s: Vec<f64>,
    /// Bits over spectral efficiency that compression does not change: adapters.
    pub c_fixed: Vec<f64>,
    /// Work of the server in FLOP; read with [`ServerModel::OptimalShare`] only.
    #[serde(default)]
    pub server_flop: Vec<f64>,
}

/// The joint problem P (27) but for compression: over cut layer `l`, compressed share `β` and
/// bandwidths `b`,
///
/// ```text
/// minimise    max_n  a_n(l) + (c_n(l) + β·e_n)/b_n
/// subject to  memory(l) < memory_max_n for all n,   Σ b_n ≤ W,   0 ≤ b_n ≤ cap_n
/// ```
///
/// [`System::joint_problem`](crate::System::joint_problem) makes it from a system; the cuts it
/// holds are the ones to choose from, so a single one is the fixed cut of a baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JointProblem {
    /// The cut layers to choose from.
    pub cuts: Vec<CutOption>,
    /// Bits over spectral efficiency of raw activations and gradients, `e_n`.
    pub c_beta: Vec<f64>,
    /// Memory of every device in bytes.
    pub memory_max_bytes: Vec<f64>,
    /// The band `W` in Hz.
    pub total_hz: f64,
    /// Most bandwidth of every device in Hz; `None` if nobody has a cap.
    pub cap_hz: Option<Vec<f64>>,
    /// How `a_s` counts the server.
    pub server_model: ServerModel,
    /// Compute rate of the server in FLOP/s; read with [`ServerModel::OptimalShare`] only.
    #[serde(default)]
    pub server_flop_per_s: f64,
}

impl JointProblem {
    /// Number of devices.
    pub fn devices(&self) -> usize {
        self.c_beta.len()
    }

    /// Checks every field.
    ///
    /// # Errors
    /// No device, no cut, a list without one entry per device, a number that is not finite and
    /// at least 0.
    pub fn validate(&self) -> Result<()> {
        let n = self.devices();
        if n == 0 {
            return Err(Error::NoDevices);
        }
        let list = |name, values: &[f64], max| {
            check_len(name, values.len(), n)?;
            check_entries(name, values, max, NOT_NEGATIVE)
        };
        list("c_beta", &self.c_beta, f64::MAX)?;
        list("memory_max_bytes", &self.memory_max_bytes, f64::INFINITY)?;
        check_size("total_hz", self.total_hz)?;
        if let Some(caps) = &self.cap_hz {
            list("cap_hz", caps, f64::INFINITY)?;
        }
        let shared = self.server_model == ServerModel::OptimalShare;
        if self.cuts.is_empty() {
            return Err(Error::Empty { name: "cuts" });
        }
        for option in &self.cuts {
            check_size("memory_bytes", option.memory_bytes)?;
            list("a_s", &option.a_s, f64::MAX)?;
            list("c_fixed", &option.c_fixed, f64::MAX)?;
            if shared {
                list("server_flop", &option.server_flop, f64::MAX)?;
            }
        }
        if shared {
            check_rate("server_flop_per_s", self.server_flop_per_s)?;
        }
        Ok(())
    }

    /// Cut layers that fit into every device.
    pub(crate) fn fitting(&self) -> impl Iterator<Item = &CutOption> {
        let limit = self
            .memory_max_bytes
            .iter()
            .copied()
            .fold(f64::INFINITY, f64::min);
        (self.cuts.iter()).filter(move |option| option.memory_bytes < limit)
    }

    /// `c_n(l) + β·e_n`.
    pub(crate) fn demand(&self, option: &CutOption, beta: f64) -> Vec<f64> {
        (option.c_fixed.iter().zip(&self.c_beta))
            .map(|(fixed, raw)| fixed + beta * raw)
            .collect()
    }
}
