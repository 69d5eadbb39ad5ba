//! What a system consists of: a model, its training, a server, devices and their radio links.

use crate::error::{Error, Result, check, check_rate};

/// Spectral efficiency, Rayleigh fading, random clocks.
mod channel;
/// A mobile device.
mod device;
/// A system in files.
mod file;
/// Mean signal-to-noise ratio from distance.
mod path_loss;
/// Who computes what.
mod placement;
/// The server.
mod server;
/// Training settings.
mod training;
/// The transformer and its parameters.
mod transformer;

pub use channel::{Direction, Fading, Link, random_clocks_hz, spectral_efficiency};
pub use device::Device;
pub use path_loss::PathLoss;
pub use placement::Placement;
pub(crate) use placement::runs;
pub use server::{Server, ServerModel};
pub use training::{DeviceAdapters, FlHead, Flops, LabelSide, Training};
pub use transformer::{Counts, Part, Qkv, Transformer};

/// A model, its training settings, a server and devices that share one band: checked once,
/// then asked for payloads, memory and delays.
///
/// In files (any format of serde) it has the keys `total_hz`, `model`, `training`, `server` and
/// `devices`. A model is a preset, `{"preset": "vit_base", "classes": 100}` with `lora_rank` and
/// `qkv` if wanted, or all fields of [`Transformer`]. What is missing elsewhere has its default.
#[derive(Clone, Debug, PartialEq)]
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
        let frozen = training.frozen_blocks;
        check(
            frozen < model.blocks,
            "frozen_blocks",
            frozen as f64,
            "below the number of blocks",
        )?;
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

    /// The same placement for every device.
    pub fn everywhere(&self, placement: Placement) -> Vec<Placement> {
        vec![placement; self.devices.len()]
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
