//! Devices, server and channel of the cost model: modelled delay and device memory.

use sft_opt::{
    Device, Fading, Flops, Link, Payload, Round, Server, System, Training, Transformer,
    allocate_bandwidth, random_clocks_hz,
};

use crate::{Optimizer, Result, Scheme, Settings, Traffic};

/// The clocks of the paper's devices, Hz.
const CLOCKS_HZ: std::ops::Range<f64> = 0.5e9..1.5e9;

/// The radio channel between the devices and the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Channel {
    /// The whole band W, Hz.
    pub bandwidth_hz: f64,
    /// Mean signal-to-noise ratio of every link, dB.
    pub snr_db: f64,
    /// Whether every link fades anew in every round (Rayleigh), or keeps its mean.
    pub rayleigh: bool,
}

/// A simulated wireless system: the paper's devices and server with one channel.
#[derive(Clone, Debug)]
pub struct Wireless {
    system: System,
    fading: Option<Fading>,
}

impl Wireless {
    /// A system whose device `n` holds `samples[n]` training samples.
    ///
    /// Device clocks are drawn from the settings' seed, uniformly in 0.5 to 1.5 GHz;
    /// everything else is Table II of the paper, FLOPs are counted exactly.
    ///
    /// # Errors
    /// Settings outside their ranges, or a channel or a model outside those of the cost model.
    pub fn new(
        model: Transformer,
        channel: Channel,
        samples: &[usize],
        settings: &Settings,
    ) -> Result<Self> {
        settings.validate(model.blocks)?;
        let mut training = Training::default();
        training.batch = settings.batch;
        training.local_epochs = settings.local_epochs;
        training.flops = Flops::Exact;
        training.optimizer_bytes_per_parameter = match settings.optimizer {
            Optimizer::Sgd { momentum: 0.0 } => 0.0,
            Optimizer::Sgd { .. } => 4.0,
            Optimizer::AdamW => 8.0,
        };
        let clocks = random_clocks_hz(samples.len(), CLOCKS_HZ, settings.seed);
        let device = |(&samples, clock_hz)| {
            let mut device = Device::default();
            device.clock_hz = clock_hz;
            device.samples = samples;
            device.snr_uplink_db = channel.snr_db;
            device.snr_downlink_db = channel.snr_db;
            device
        };
        let devices = samples.iter().zip(clocks).map(device).collect();
        let system = System::new(
            model,
            training,
            Server::default(),
            devices,
            channel.bandwidth_hz,
        )?;
        Ok(Self {
            system,
            fading: channel.rayleigh.then(|| Fading::new(settings.seed)),
        })
    }

    /// The devices, the server and the band, for the solvers of `sft-opt`.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// Modelled delay of a round, seconds, from the bytes that each device really moved.
    ///
    /// Bandwidth is shared by the exact solution of P2 at the round's channel draw; in SL
    /// each device in turn has the whole band. Round 1 includes the broadcast of the
    /// device's part of the frozen model.
    ///
    /// # Errors
    /// Traffic of another number of devices than the system has.
    pub fn delay_s(&self, settings: &Settings, round: usize, traffic: &[Traffic]) -> Result<f64> {
        let links = self.links(round);
        let payloads = self.payloads(settings, round, traffic)?;
        let round = Round {
            scheme: scheme(settings),
            links: &links,
            payloads: &payloads,
        };
        if settings.scheme == Scheme::Sl {
            return Ok(self.system.sequential_delay(&round)?.total_s);
        }
        let demands = self.system.demands(&round)?;
        let bandwidth = allocate_bandwidth(&demands.problem())?;
        Ok(self.system.parallel_delay(&round, &bandwidth.b_hz)?.total_s)
    }

    /// Modelled memory of a device, bytes: the corrected form of (26), see [`sft_opt::device_memory`].
    ///
    /// # Errors
    /// A cut outside 1 to L - 1.
    pub fn device_memory_bytes(&self, settings: &Settings) -> Result<f64> {
        Ok(self.system.memory(scheme(settings))?.total_bytes())
    }

    fn links(&self, round: usize) -> Vec<Link> {
        match self.fading {
            Some(fading) => self.system.faded_links(fading, round as u64),
            None => self.system.links(),
        }
    }

    fn payloads(
        &self,
        settings: &Settings,
        round: usize,
        traffic: &[Traffic],
    ) -> Result<Vec<Payload>> {
        let scheme = scheme(settings);
        // What the first broadcast adds to the adapters: the frozen part of the model.
        let predicted = |first| match settings.scheme {
            Scheme::Sl => self.system.sequential_payloads(scheme, 1.0, first),
            _ => self.system.payloads(scheme, 1.0, first),
        };
        let (first, later) = (predicted(round == 1)?, predicted(false)?);
        let payload = |((traffic, first), later): ((&Traffic, &Payload), &Payload)| {
            let bits = |bytes: u64| 8.0 * bytes as f64;
            let frozen = first.broadcast_bits - later.broadcast_bits;
            Payload {
                broadcast_bits: bits(traffic.adapter_down) + frozen,
                uplink_bits: bits(traffic.up),
                downlink_bits: bits(traffic.down),
                adapter_bits: bits(traffic.adapter_up),
            }
        };
        Ok(traffic
            .iter()
            .zip(&first)
            .zip(&later)
            .map(payload)
            .collect())
    }
}

/// The cost model's name for who computes what.
fn scheme(settings: &Settings) -> sft_opt::Scheme {
    match settings.scheme {
        Scheme::FlLora => sft_opt::Scheme::FlLora,
        _ => sft_opt::Scheme::Split { cut: settings.cut },
    }
}
