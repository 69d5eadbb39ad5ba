//! Delay of a round, phase by phase and device by device: (11) to (19) as (18').

use serde::{Deserialize, Serialize};

use crate::channel::Link;
use crate::error::{Error, NOT_NEGATIVE, Result, check_entries, check_len, check_rate};
use crate::flops::BatchFlops;
use crate::payload::Payload;
use crate::pools::TwoPools;
use crate::problem::Problem;
use crate::system::{Device, ServerModel, System};
use crate::training::Scheme;

/// A round to be timed: what is computed, over which links, and the bits that are moved.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// The training scheme.
    pub scheme: Scheme,
    /// One link per device: [`System::links`], [`System::faded_links`] or measured.
    pub links: &'a [Link],
    /// One payload per device: [`System::payloads`] or measured.
    pub payloads: &'a [Payload],
}

/// Delay of one device in one round, in seconds, over all of the round's mini-batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// Broadcast of the model or the adapters, `τ_ED` (11).
    pub broadcast_s: f64,
    /// Forward pass on the device, `I_n·τ_CC` (12).
    pub device_forward_s: f64,
    /// Activations up, `I_n·τ_IT` (13).
    pub uplink_s: f64,
    /// Forward and backward pass on the server, `I_n·τ_SC` (14), with the wait for it.
    pub server_s: f64,
    /// Gradients of activations down, `I_n·τ_GT` (15).
    pub downlink_s: f64,
    /// Backward pass on the device, `I_n·τ_DU` (16).
    pub device_backward_s: f64,
    /// Trained parameters up, `τ_LT` (17).
    pub adapter_upload_s: f64,
}

impl Phases {
    /// Sum of all phases, `τ_n` (18').
    pub fn total_s(&self) -> f64 {
        self.fixed_s() + self.uplink_s + self.downlink_s + self.adapter_upload_s
    }

    /// Phases that do not depend on the device's bandwidth: `a_n`.
    pub(crate) fn fixed_s(&self) -> f64 {
        self.broadcast_s + self.device_forward_s + self.server_s + self.device_backward_s
    }
}

/// Delay of one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundDelay {
    /// Phases of every device.
    pub devices: Vec<Phases>,
    /// Delay of the round in seconds: the slowest device's when devices work in parallel (19),
    /// the sum when they work one after the other.
    pub total_s: f64,
}

/// What every device asks of the band in one round: `τ_n = a_n + c_n/b_n`.
#[derive(Clone, Debug, PartialEq)]
pub struct Demands {
    /// Delay that bandwidth does not change, `a_n = τ_ED + I_n(τ_CC + τ_SC + τ_DU)`, seconds.
    pub a_s: Vec<f64>,
    /// Bits over spectral efficiency,
    /// `c_n = (uplink + adapter bits)/η_n^UL + downlink bits/η_n^DL`.
    pub c_bits_per_bps_hz: Vec<f64>,
    /// Caps in Hz, infinite without one.
    pub cap_hz: Vec<f64>,
    /// The whole band in Hz.
    pub total_hz: f64,
}

impl Demands {
    /// The bandwidth problem P2 of this round, for [`allocate_bandwidth`](crate::allocate_bandwidth).
    pub fn problem(&self) -> Problem<'_> {
        Problem {
            a_s: &self.a_s,
            c_bits_per_bps_hz: &self.c_bits_per_bps_hz,
            total_hz: self.total_hz,
            cap_hz: Some(&self.cap_hz),
        }
    }
}

/// What every device asks of two pools in one round: `τ_n = a_n + u_n/x_n + d_n/y_n`.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolDemands {
    /// Delay that neither pool changes, in seconds.
    pub a_s: Vec<f64>,
    /// Demands of the first and the second pool.
    pub demands: [Vec<f64>; 2],
    /// The pools.
    pub totals: [f64; 2],
    /// Caps, infinite for a device without one; `None` for a pool that nobody has a cap of.
    pub caps: [Option<Vec<f64>>; 2],
}

impl PoolDemands {
    /// The problem of this round, for [`allocate_two_pools`](crate::allocate_two_pools).
    pub fn problem(&self) -> TwoPools<'_> {
        TwoPools {
            a_s: &self.a_s,
            demands: [&self.demands[0], &self.demands[1]],
            totals: self.totals,
            caps: [self.caps[0].as_deref(), self.caps[1].as_deref()],
        }
    }
}

impl System {
    /// Demands of a round in which devices work in parallel; `O(N)`.
    ///
    /// # Errors
    /// A list without one entry per device, a cut outside 1 to `L - 1`, a link that is not
    /// finite and positive, a payload that is not finite and at least 0;
    /// [`ServerModel::OptimalShare`], whose demands are [`System::server_pools`].
    pub fn demands(&self, round: &Round<'_>) -> Result<Demands> {
        let clock = RoundClock::new(self, round)?;
        let n = self.devices().len();
        Ok(Demands {
            a_s: (0..n)
                .map(|n| Ok(clock.fixed(n)?.fixed_s()))
                .collect::<Result<_>>()?,
            c_bits_per_bps_hz: round.links.iter().zip(round.payloads).map(air).collect(),
            cap_hz: (self.devices().iter())
                .map(|d| d.cap_hz.unwrap_or(f64::INFINITY))
                .collect(),
            total_hz: self.total_hz(),
        })
    }

    /// Demands of the band (Hz) and of the server (FLOP/s) of a round in which every device
    /// gets a share of either, whatever the [`ServerModel`]; `O(N)`. Caps are those of the band.
    ///
    /// # Errors
    /// As [`System::demands`].
    pub fn server_pools(&self, round: &Round<'_>) -> Result<PoolDemands> {
        let clock = RoundClock::new(self, round)?;
        let all = 0..self.devices().len();
        Ok(PoolDemands {
            a_s: all.clone().map(|n| clock.local(n).fixed_s()).collect(),
            demands: [
                round.links.iter().zip(round.payloads).map(air).collect(),
                all.map(|n| clock.server_flop(n)).collect(),
            ],
            totals: [self.total_hz(), self.server().flop_per_s()],
            caps: [self.caps_hz(), None],
        })
    }

    /// Demands of an uplink and a downlink band (frequency-division duplex), both in Hz, the
    /// broadcast being sent in the downlink band; `O(N)`. A cap holds in either band.
    ///
    /// # Errors
    /// As [`System::server_pools`] and [`System::demands`]; a band that is not finite and
    /// positive.
    pub fn duplex_pools(
        &self,
        round: &Round<'_>,
        uplink_hz: f64,
        downlink_hz: f64,
    ) -> Result<PoolDemands> {
        check_rate("uplink_hz", uplink_hz)?;
        check_rate("downlink_hz", downlink_hz)?;
        let mut clock = RoundClock::new(self, round)?;
        clock.broadcast_bps *= downlink_hz / self.total_hz();
        let up = |(link, payload): (&Link, &Payload)| {
            (payload.uplink_bits + payload.adapter_bits) / link.uplink_bps_hz
        };
        let down =
            |(link, payload): (&Link, &Payload)| payload.downlink_bits / link.downlink_bps_hz;
        let pairs = || round.links.iter().zip(round.payloads);
        Ok(PoolDemands {
            a_s: (0..round.links.len())
                .map(|n| Ok(clock.fixed(n)?.fixed_s()))
                .collect::<Result<_>>()?,
            demands: [pairs().map(up).collect(), pairs().map(down).collect()],
            totals: [uplink_hz, downlink_hz],
            caps: [self.caps_hz(), self.caps_hz()],
        })
    }

    /// Delay of a round in which devices work in parallel with bandwidths `b_hz`; (18'), (19), `O(N)`.
    ///
    /// A device with payload and no bandwidth has an infinite delay.
    ///
    /// # Errors
    /// As [`System::demands`]; bandwidths that are not finite and at least 0.
    pub fn parallel_delay(&self, round: &Round<'_>, b_hz: &[f64]) -> Result<RoundDelay> {
        let clock = RoundClock::new(self, round)?;
        check_len("b_hz", b_hz.len(), self.devices().len())?;
        check_entries("b_hz", b_hz, f64::MAX, NOT_NEGATIVE)?;
        let devices = (b_hz.iter().enumerate())
            .map(|(n, &b)| Ok(clock.phases(n, b, clock.server_s(n)?)))
            .collect::<Result<_>>()?;
        Ok(slowest(devices))
    }

    /// [`System::parallel_delay`] with a share `server_flop_per_s` of the server for every
    /// device, in FLOP/s, whatever the [`ServerModel`].
    ///
    /// # Errors
    /// As [`System::parallel_delay`]; shares that are not finite and at least 0.
    pub fn shared_delay(
        &self,
        round: &Round<'_>,
        b_hz: &[f64],
        server_flop_per_s: &[f64],
    ) -> Result<RoundDelay> {
        let clock = RoundClock::new(self, round)?;
        for (name, list) in [("b_hz", b_hz), ("server_flop_per_s", server_flop_per_s)] {
            check_len(name, list.len(), self.devices().len())?;
            check_entries(name, list, f64::MAX, NOT_NEGATIVE)?;
        }
        let server_s = |n: usize| transfer_s(clock.server_flop(n), server_flop_per_s[n]);
        let devices = (b_hz.iter().enumerate())
            .map(|(n, &b)| clock.phases(n, b, server_s(n)))
            .collect();
        Ok(slowest(devices))
    }

    /// Delay of a round in which devices work one after the other, each with the whole band
    /// and the whole server: sequential split learning (SL); `O(N)`.
    ///
    /// Payloads: [`System::sequential_payloads`].
    ///
    /// # Errors
    /// As [`System::demands`].
    pub fn sequential_delay(&self, round: &Round<'_>) -> Result<RoundDelay> {
        let mut clock = RoundClock::new(self, round)?;
        clock.server_model = ServerModel::PerDevice;
        let devices: Vec<_> = (0..self.devices().len())
            .map(|n| Ok(clock.phases(n, self.total_hz(), clock.server_s(n)?)))
            .collect::<Result<_>>()?;
        let total_s = devices.iter().map(Phases::total_s).sum();
        Ok(RoundDelay { devices, total_s })
    }

    /// Caps of the devices, infinite without one; `None` if nobody has one.
    pub(crate) fn caps_hz(&self) -> Option<Vec<f64>> {
        let devices = self.devices();
        let capped = devices.iter().any(|device| device.cap_hz.is_some());
        let cap = |device: &Device| device.cap_hz.unwrap_or(f64::INFINITY);
        capped.then(|| devices.iter().map(cap).collect())
    }
}

/// A checked round with everything its devices have in common.
pub(crate) struct RoundClock<'a> {
    system: &'a System,
    round: &'a Round<'a>,
    server_model: ServerModel,
    flops: BatchFlops,
    /// Rate of the broadcast: whole band, worst receiver.
    broadcast_bps: f64,
    /// Mini-batches of all devices together.
    all_batches: f64,
}

impl<'a> RoundClock<'a> {
    pub(crate) fn new(system: &'a System, round: &'a Round<'a>) -> Result<Self> {
        round.scheme.validate(system.model())?;
        check_round(round, system.devices().len())?;
        let worst = (round.links.iter())
            .map(|link| link.downlink_bps_hz)
            .fold(f64::INFINITY, f64::min);
        let training = system.training();
        Ok(Self {
            system,
            round,
            server_model: system.server().model,
            flops: (training.flops).mini_batch(system.model(), round.scheme, training.batch),
            broadcast_bps: system.total_hz() * worst,
            all_batches: (0..system.devices().len())
                .map(|n| batches(system, n))
                .sum(),
        })
    }

    /// Work of the server for device `n` in the round, FLOP.
    pub(crate) fn server_flop(&self, n: usize) -> f64 {
        batches(self.system, n) * self.flops.server.total()
    }

    /// Time device `n` waits for the server in the round.
    fn server_s(&self, n: usize) -> Result<f64> {
        let batches = batches(self.system, n);
        let waited = match self.server_model {
            ServerModel::PerDevice => batches,
            ServerModel::Sequential => self.all_batches,
            ServerModel::Even => batches * self.system.devices().len() as f64,
            ServerModel::OptimalShare => {
                return Err(Error::Unsupported {
                    name: "server model",
                    value: self.server_model.as_str(),
                    accepted: "one that fixes every device's share",
                });
            }
        };
        Ok(waited * self.flops.server.total() / self.system.server().flop_per_s())
    }

    /// Phases that depend neither on bandwidth nor on the server.
    pub(crate) fn local(&self, n: usize) -> Phases {
        let device_s = batches(self.system, n) / self.system.devices()[n].flop_per_s();
        Phases {
            broadcast_s: self.round.payloads[n].broadcast_bits / self.broadcast_bps,
            device_forward_s: device_s * self.flops.device.forward,
            device_backward_s: device_s * self.flops.device.backward,
            ..Phases::default()
        }
    }

    /// Phases that do not depend on bandwidth.
    pub(crate) fn fixed(&self, n: usize) -> Result<Phases> {
        Ok(Phases {
            server_s: self.server_s(n)?,
            ..self.local(n)
        })
    }

    fn phases(&self, n: usize, b_hz: f64, server_s: f64) -> Phases {
        let (link, payload) = (&self.round.links[n], &self.round.payloads[n]);
        Phases {
            uplink_s: transfer_s(payload.uplink_bits, b_hz * link.uplink_bps_hz),
            downlink_s: transfer_s(payload.downlink_bits, b_hz * link.downlink_bps_hz),
            adapter_upload_s: transfer_s(payload.adapter_bits, b_hz * link.uplink_bps_hz),
            server_s,
            ..self.local(n)
        }
    }
}

/// Bits over spectral efficiency in both directions, `c_n`.
fn air((link, payload): (&Link, &Payload)) -> f64 {
    (payload.uplink_bits + payload.adapter_bits) / link.uplink_bps_hz
        + payload.downlink_bits / link.downlink_bps_hz
}

/// A round that lasts as long as its slowest device.
fn slowest(devices: Vec<Phases>) -> RoundDelay {
    let total_s = devices.iter().map(Phases::total_s).fold(0.0, f64::max);
    RoundDelay { devices, total_s }
}

fn batches(system: &System, n: usize) -> f64 {
    let samples = system.devices()[n].samples;
    system.training().batches_per_round(samples)
}

/// Time to move `bits` at a rate; nothing takes no time, even without a rate.
fn transfer_s(bits: f64, rate_bps: f64) -> f64 {
    if bits == 0.0 { 0.0 } else { bits / rate_bps }
}

fn check_round(round: &Round<'_>, devices: usize) -> Result<()> {
    check_len("links", round.links.len(), devices)?;
    check_len("payloads", round.payloads.len(), devices)?;
    for (n, (link, payload)) in round.links.iter().zip(round.payloads).enumerate() {
        (link.validate().and_then(|()| payload.validate())).map_err(|error| error.at(n))?;
    }
    Ok(())
}
