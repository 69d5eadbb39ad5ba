//! Devices, server and channel of the cost model: modelled delay and device memory.

use sft_compress::{Codec, TensorView};
use sft_opt::cost::{Payload, adapter_bits, model_bits};
use sft_opt::system::{
    DeviceAdapters, Fading, FlHead, Flops, LabelSide as CostLabels, Link, random_clocks_hz,
};
use sft_opt::{
    Device, Placement, Round, Server, System, Training, Transformer, allocate_bandwidth,
};

use super::{Scheme, Settings};
use crate::adapter::{Place, normal};
use crate::optim::Optimizer;
use crate::split::{LabelSide, Traffic};
use crate::{Error, Result, seed};

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

impl Default for Channel {
    /// Table II of the paper: 30 MHz at 17 dB, with fading.
    fn default() -> Self {
        Self {
            bandwidth_hz: 30e6,
            snr_db: 17.0,
            rayleigh: true,
        }
    }
}

/// One device's part in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRound {
    /// The device, from 0.
    pub device: usize,
    /// Its cut layer; ignored by FL.
    pub cut: usize,
    /// Whether it takes part for the first time, and gets its part of the frozen model.
    pub first: bool,
    /// What crossed its link.
    pub traffic: Traffic,
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
    /// everything else is Table II of the paper, FLOPs are counted exactly. Adapters and features take
    /// the bits that their codecs need for normally distributed numbers.
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
        if settings.lora.targets().contains(Place::Head) {
            training.fl_head = FlHead::Adapters;
        }
        if settings.lora.frozen_blocks() > 0 {
            training.device_adapters = DeviceAdapters::None;
            training.frozen_blocks = settings.lora.frozen_blocks();
        }
        training.optimizer_bytes_per_parameter = match settings.optimizer {
            Optimizer::Sgd { momentum: 0.0, .. } => 0.0,
            Optimizer::Sgd { .. } => 4.0,
            Optimizer::AdamW { .. } => 8.0,
        };
        let codec = settings.adapter_codec();
        if codec != Codec::raw() {
            let bits = Some(bits_per_number(codec)?);
            training.adapter_uplink_bits_per_parameter = bits;
            training.adapter_downlink_bits_per_parameter = bits;
        }
        if settings.labels == LabelSide::Device {
            training.labels = CostLabels::Device;
            training.bits_per_feature = Some(bits_per_number(settings.feature_codec())?);
        }
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

    /// The same where nobody trains the head, which is the language model's own: in FL it does not cross,
    /// and where it is on the device it reads a row of features a token.
    ///
    /// # Errors
    /// None: the parts were checked before.
    pub fn with_frozen_head(self) -> Result<Self> {
        let rows = self.system.model().tokens as f64;
        self.with_training(|training| {
            training.fl_head = FlHead::Adapters;
            training.bits_per_feature = training.bits_per_feature.map(|bits| rows * bits);
        })
    }

    /// The same with [gradient checkpointing](Training::gradient_checkpointing), or without.
    ///
    /// # Errors
    /// None: the parts were checked before.
    pub fn with_gradient_checkpointing(self, checkpointing: bool) -> Result<Self> {
        self.with_training(|training| training.gradient_checkpointing = checkpointing)
    }

    /// The same whose devices leave the [blocks' weights in a mapped file](Training::mapped_blocks), as
    /// devices on a network do.
    ///
    /// # Errors
    /// None: the parts were checked before.
    pub fn with_mapped_blocks(self) -> Result<Self> {
        self.with_training(|training| training.mapped_blocks = true)
    }

    fn with_training(self, change: impl FnOnce(&mut Training)) -> Result<Self> {
        let system = self.system;
        let mut training = *system.training();
        change(&mut training);
        let devices = system.devices().to_vec();
        let (model, server) = (*system.model(), *system.server());
        let system = System::new(model, training, server, devices, system.total_hz())?;
        Ok(Self { system, ..self })
    }

    /// The devices, the server and the band, for the solvers of `sft-opt`.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// Modelled delay of a round, seconds, from the bytes that each participant really moved.
    ///
    /// Bandwidth is shared by the exact solution of P2 at the round's channel draw; in SL
    /// each device in turn has the whole band. A device that takes part for the first time
    /// receives its part of the frozen model beside the adapters; in SL the largest such part is
    /// broadcast once, before the first such device. The server works through the mini-batches of
    /// all participants in turn, whatever their cut layers.
    ///
    /// # Errors
    /// A device that the system does not have, or a cut outside 1 to L - 1.
    pub fn delay_s(&self, settings: &Settings, round: usize, parts: &[DeviceRound]) -> Result<f64> {
        let (system, links) = self.among(round, parts)?;
        let placements: Vec<Placement> = (parts.iter())
            .map(|part| placement(settings, part.cut))
            .collect();
        let payloads = payloads(&system, settings, &placements, parts);
        let round = Round {
            placements: &placements,
            links: &links,
            payloads: &payloads,
        };
        if settings.scheme == Scheme::Sl {
            return Ok(system.sequential_delay(&round)?.total_s);
        }
        Ok(allocate_bandwidth(&system.demands(&round)?.problem())?.tau_s)
    }

    /// The rates of the participants' links in a round, uplink and downlink in bit/s, at the shares of the
    /// band that P2 gives them for what they move; equal ones where that is nothing.
    ///
    /// # Errors
    /// As [`delay_s`](Self::delay_s).
    pub fn rates_bit_s(
        &self,
        settings: &Settings,
        round: usize,
        parts: &[DeviceRound],
    ) -> Result<Vec<[f64; 2]>> {
        let (system, links) = self.among(round, parts)?;
        let shares = if parts.iter().all(|part| part.traffic == Traffic::default()) {
            vec![system.total_hz() / parts.len() as f64; parts.len()]
        } else {
            let placements: Vec<Placement> = (parts.iter())
                .map(|part| placement(settings, part.cut))
                .collect();
            let round = Round {
                placements: &placements,
                links: &links,
                payloads: &payloads(&system, settings, &placements, parts),
            };
            allocate_bandwidth(&system.demands(&round)?.problem())?
                .value
                .b_hz
        };
        let rates = |(link, share): (&Link, f64)| {
            [share * link.uplink_bps_hz, share * link.downlink_bps_hz]
        };
        Ok(links.iter().zip(shares).map(rates).collect())
    }

    /// The participants as a system of their own, with their links in this round.
    fn among(&self, round: usize, parts: &[DeviceRound]) -> Result<(System, Vec<Link>)> {
        let links = self.links(round);
        let known = |part: &DeviceRound| {
            let devices = self.system.devices();
            let (count, got) = (devices.len(), part.device);
            let unknown = || Error::argument("device", format!("must be below {count}, got {got}"));
            let device = devices.get(got).ok_or_else(unknown)?;
            Ok((*device, links[got]))
        };
        let (devices, links) = parts
            .iter()
            .map(known)
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .unzip();
        let system = System::new(
            *self.system.model(),
            *self.system.training(),
            *self.system.server(),
            devices,
            self.system.total_hz(),
        )?;
        Ok((system, links))
    }

    /// Modelled memory of a device that is cut at `cut`, bytes: the corrected form of (26), see
    /// [`sft_opt::cost::device_memory`], unless frozen with adapters on all linears of the blocks; of FL also with those on patch
    /// embedding and head, where the head is a target, else with the head trained in full.
    ///
    /// # Errors
    /// A cut outside 1 to L - 1.
    pub fn device_memory_bytes(&self, settings: &Settings, cut: usize) -> Result<f64> {
        Ok(self.system.memory(placement(settings, cut))?.total_bytes())
    }

    fn links(&self, round: usize) -> Vec<Link> {
        match self.fading {
            Some(fading) => self.system.faded_links(fading, round as u64),
            None => self.system.links(),
        }
    }
}

/// Numbers that a codec of adapters is measured on.
const MEASURED: usize = 1 << 14;

/// What a codec makes of differences of adapters, or of features, before there are any, bits a number:
/// measured on normally distributed ones, which they are like.
fn bits_per_number(codec: Codec) -> Result<f64> {
    let mut rng = seed::rng(0, &[seed::ADAPTERS_UP]);
    let values: Vec<f32> = (0..MEASURED).map(|_| normal(&mut rng) as f32).collect();
    let frame = codec.encode(TensorView::new(&values, &[MEASURED])?, 0)?;
    Ok(8.0 * frame.len() as f64 / MEASURED as f64)
}

/// What every participant moves.
fn payloads(
    system: &System,
    settings: &Settings,
    placements: &[Placement],
    parts: &[DeviceRound],
) -> Vec<Payload> {
    let frozen = if settings.scheme == Scheme::Sl {
        frozen_at_once(system, placements, parts)
    } else {
        frozen_each(system, placements, parts)
    };
    let payload = |(part, frozen): (&DeviceRound, f64)| {
        let bits = |bytes: u64| 8.0 * bytes as f64;
        Payload {
            broadcast_bits: bits(part.traffic.adapter_down) + frozen,
            uplink_bits: bits(part.traffic.up),
            downlink_bits: bits(part.traffic.down),
            adapter_bits: bits(part.traffic.adapter_up),
        }
    };
    parts.iter().zip(frozen).map(payload).collect()
}

/// The frozen part of the model for every device that has not got it yet, in bits.
fn frozen_each(system: &System, placements: &[Placement], parts: &[DeviceRound]) -> Vec<f64> {
    let (model, training) = (system.model(), system.training());
    let frozen = |(part, &placement): (&DeviceRound, &Placement)| {
        if !part.first {
            return 0.0;
        }
        model_bits(model, training, placement) - adapter_bits(model, training, placement)
    };
    parts.iter().zip(placements).map(frozen).collect()
}

/// The largest model that a device has not got yet, in bits, booked on the first of these devices.
fn frozen_at_once(system: &System, placements: &[Placement], parts: &[DeviceRound]) -> Vec<f64> {
    let (model, training) = (system.model(), system.training());
    let mut frozen = vec![0.0; parts.len()];
    let new = || parts.iter().zip(placements).filter(|(part, _)| part.first);
    let largest = new()
        .map(|(_, &placement)| model_bits(model, training, placement))
        .fold(0.0, f64::max);
    if let Some(first) = parts.iter().position(|part| part.first) {
        frozen[first] = largest;
    }
    frozen
}

/// Who computes what in a scheme.
fn placement(settings: &Settings, cut: usize) -> Placement {
    match settings.scheme {
        Scheme::FlLora => Placement::FlLora,
        Scheme::FlFull => Placement::FlFull,
        Scheme::Sft | Scheme::SftRaw | Scheme::Sl => Placement::Split { cut },
    }
}
