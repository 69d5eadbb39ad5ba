//! Devices, server, and the system they form with a model and a band.

use serde::{Deserialize, Serialize};

use crate::channel::{Direction, Fading, Link, spectral_efficiency};
use crate::error::{Error, Result, check, check_rate, check_size};
use crate::model::Transformer;
use crate::system_file::SystemFile;
use crate::training::Training;

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

    fn validate(&self) -> Result<()> {
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
    /// [`System::server_pools`] and [`allocate_two_pools`](crate::allocate_two_pools).
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

    fn validate(&self) -> Result<()> {
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

/// A model, its training settings, a server and devices that share one band: checked once,
/// then asked for payloads, memory and delays.
///
/// In files (any format of serde) it has the keys `total_hz`, `model`, `training`, `server` and
/// `devices`. A model is a preset, `{"preset": "vit_base", "classes": 100}` with `lora_rank` and
/// `qkv` if wanted, or all fields of [`Transformer`]. What is missing elsewhere has its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SystemFile", into = "SystemFile")]
pub struct System {
    model: Transformer,
    training: Training,
    server: Server,
    devices: Vec<Device>,
    total_hz: f64,
}

impl System {
    /// Checks the parts and puts them together; `total_hz` is the whole band `W` in Hz.
    ///
    /// # Errors
    /// [`Error::NoDevices`]; [`Error::Value`] for a field outside its documented range and for a
    /// band that is not finite and positive; [`Error::Entry`] for a field of a device.
    pub fn new(
        model: Transformer,
        training: Training,
        server: Server,
        devices: Vec<Device>,
        total_hz: f64,
    ) -> Result<Self> {
        model.validate()?;
        training.validate()?;
        server.validate()?;
        if devices.is_empty() {
            return Err(Error::NoDevices);
        }
        for (n, device) in devices.iter().enumerate() {
            device.validate().map_err(|error| error.at(n))?;
        }
        check_rate("total_hz", total_hz)?;
        Ok(Self {
            model,
            training,
            server,
            devices,
            total_hz,
        })
    }

    /// The model.
    pub fn model(&self) -> &Transformer {
        &self.model
    }

    /// The training settings.
    pub fn training(&self) -> &Training {
        &self.training
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The devices.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The whole band `W` in Hz.
    pub fn total_hz(&self) -> f64 {
        self.total_hz
    }

    /// All links at mean signal-to-noise ratio.
    pub fn links(&self) -> Vec<Link> {
        self.devices.iter().map(Device::link).collect()
    }

    /// All links in one round under fading.
    pub fn faded_links(&self, fading: Fading, round: u64) -> Vec<Link> {
        (self.devices.iter().enumerate())
            .map(|(n, device)| device.faded_link(fading, n, round))
            .collect()
    }
}
