//! A mobile device and its links.

use serde::{Deserialize, Serialize};

use super::channel::{Direction, Fading, Link, spectral_efficiency};
use crate::error::{Result, check, check_rate, check_size};

/// A mobile device. The default is the paper's Table II with a clock of 1 GHz.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Device {
    /// Clock `f_n` in Hz, positive. Default 1e9.
    pub clock_hz: f64,
    /// Cores `C_n`, at least 1. Default 256.
    pub cores: u32,
    /// FLOP per cycle and core `D_n`, positive. Default 4.
    pub flop_per_cycle: f64,
    /// Local training samples `|D_n|`, at least 1. Default 6250.
    pub samples: usize,
    /// Mean signal-to-noise ratio of the uplink in dB, from -300 to 300. Default 17.
    pub snr_uplink_db: f64,
    /// Mean signal-to-noise ratio of the downlink in dB, from -300 to 300. Default 17.
    pub snr_downlink_db: f64,
    /// Most bandwidth the device can use in Hz, at least 0. Default `None`: no cap.
    pub cap_hz: Option<f64>,
    /// Memory for training in bytes. Default 8192 MiB.
    pub memory_bytes: u64,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            clock_hz: 1e9,
            cores: 256,
            flop_per_cycle: 4.0,
            samples: 6250,
            snr_uplink_db: 17.0,
            snr_downlink_db: 17.0,
            cap_hz: None,
            memory_bytes: 8192 << 20,
        }
    }
}

impl Device {
    /// Compute rate `f_n·C_n·D_n` in FLOP/s.
    pub fn flop_per_s(&self) -> f64 {
        self.clock_hz * f64::from(self.cores) * self.flop_per_cycle
    }

    /// The link at mean signal-to-noise ratio.
    pub fn link(&self) -> Link {
        self.scaled_link(1.0, 1.0)
    }

    /// The link of this device, number `device` of its system, in one round under fading.
    pub fn faded_link(&self, fading: Fading, device: usize, round: u64) -> Link {
        self.scaled_link(
            fading.gain(device, round, Direction::Uplink),
            fading.gain(device, round, Direction::Downlink),
        )
    }

    fn scaled_link(&self, uplink_gain: f64, downlink_gain: f64) -> Link {
        Link {
            uplink_bps_hz: spectral_efficiency(self.snr_uplink_db, uplink_gain),
            downlink_bps_hz: spectral_efficiency(self.snr_downlink_db, downlink_gain),
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        check_rate("clock_hz", self.clock_hz)?;
        check_rate("flop_per_cycle", self.flop_per_cycle)?;
        check(self.cores >= 1, "cores", self.cores.into(), "at least 1")?;
        check(
            self.samples >= 1,
            "samples",
            self.samples as f64,
            "at least 1",
        )?;
        for (name, snr) in [
            ("snr_uplink_db", self.snr_uplink_db),
            ("snr_downlink_db", self.snr_downlink_db),
        ] {
            check(snr.abs() <= 300.0, name, snr, "from -300 to 300")?;
        }
        check_size("cap_hz", self.cap_hz.unwrap_or(0.0))
    }
}
