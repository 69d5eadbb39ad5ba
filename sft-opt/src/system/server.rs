//! The edge server and how devices share it.

use serde::{Deserialize, Serialize};

use crate::error::{Result, check, check_rate};

/// How the server's compute is shared between devices that train in parallel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerModel {
    /// Every device has a server of full speed to itself.
    PerDevice,
    /// One after the other: every device waits for the work of all, an upper bound.
    #[default]
    Sequential,
    /// Every device has the same fixed share `1/N`.
    Even,
    /// Every device has a share of its own, chosen together with its bandwidth: see
    /// [`System::server_pools`](crate::System::server_pools) and
    /// [`allocate_two_pools`](crate::bandwidth::allocate_two_pools).
    OptimalShare,
}

impl ServerModel {
    /// The model's name in data.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PerDevice => "per_device",
            Self::Sequential => "sequential",
            Self::Even => "even",
            Self::OptimalShare => "optimal_share",
        }
    }
}

/// The edge server. The default is 3 GHz × 2048 cores × 4 FLOP per cycle, sequential.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Server {
    /// Clock `f^s` in Hz, positive. Default 3e9.
    pub clock_hz: f64,
    /// Cores `C_s`, at least 1. Default 2048.
    pub cores: u32,
    /// FLOP per cycle and core `D_s`, positive. Default 4.
    pub flop_per_cycle: f64,
    /// How devices share the server. Default [`ServerModel::Sequential`].
    pub model: ServerModel,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            clock_hz: 3e9,
            cores: 2048,
            flop_per_cycle: 4.0,
            model: ServerModel::Sequential,
        }
    }
}

impl Server {
    /// Compute rate `F_s = f^s·C_s·D_s` in FLOP/s.
    pub fn flop_per_s(&self) -> f64 {
        self.clock_hz * f64::from(self.cores) * self.flop_per_cycle
    }

    pub(crate) fn validate(&self) -> Result<()> {
        check_rate("server clock_hz", self.clock_hz)?;
        check_rate("server flop_per_cycle", self.flop_per_cycle)?;
        check(
            self.cores >= 1,
            "server cores",
            self.cores.into(),
            "at least 1",
        )
    }
}
