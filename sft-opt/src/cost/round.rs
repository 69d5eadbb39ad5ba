//! A round to be timed, phase by phase and device by device: (11) to (17).

use serde::{Deserialize, Serialize};

use super::flops::{BatchFlops, mini_batch};
use super::payload::Payload;
use crate::error::{Error, Result, check_len};
use crate::system::{Link, Placement, ServerModel, System, runs};

/// A round to be timed: what is computed where, over which links, and the bits that are moved.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// Who computes what, one entry per device: devices may differ in their cut layer.
    /// [`System::everywhere`] has the same for all.
    pub placements: &'a [Placement],
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

/// A checked round with everything its devices have in common.
pub(crate) struct RoundClock<'a> {
    system: &'a System,
    round: &'a Round<'a>,
    /// Operations of a mini-batch of every device.
    flops: Vec<BatchFlops>,
    /// Work of the server for all devices together, FLOP.
    queue_flop: f64,
    /// How the server is shared.
    pub(super) server_model: ServerModel,
    /// Rate of the broadcast: whole band, worst receiver.
    pub(super) broadcast_bps: f64,
}

impl<'a> RoundClock<'a> {
    pub(crate) fn new(system: &'a System, round: &'a Round<'a>) -> Result<Self> {
        let devices = system.devices().len();
        let (model, training) = (system.model(), system.training());
        check_len("placements", round.placements.len(), devices)?;
        check_air(round, devices)?;
        let (mut flops, mut queue_flop) = (Vec::with_capacity(devices), 0.0);
        for (placement, run) in runs(round.placements) {
            placement.validate_of(run.start, model)?;
            let one = mini_batch(model, training, placement);
            flops.extend(run.clone().map(|_| one));
            let batches: f64 = run.map(|n| batches(system, n)).sum();
            queue_flop += batches * one.server.total();
        }
        let worst = (round.links.iter())
            .map(|link| link.downlink_bps_hz)
            .fold(f64::INFINITY, f64::min);
        Ok(Self {
            queue_flop,
            server_model: system.server().model,
            broadcast_bps: system.total_hz() * worst,
            system,
            round,
            flops,
        })
    }

    /// Work of the server for device `n` in the round, FLOP.
    pub(crate) fn server_flop(&self, n: usize) -> f64 {
        batches(self.system, n) * self.flops[n].server.total()
    }

    /// Time device `n` waits for the server in the round.
    pub(super) fn server_s(&self, n: usize) -> Result<f64> {
        let flop = match self.server_model {
            ServerModel::PerDevice => self.server_flop(n),
            ServerModel::Sequential => self.queue_flop,
            ServerModel::Even => {
                let shared = batches(self.system, n) * self.system.devices().len() as f64;
                shared * self.flops[n].server.total()
            }
            ServerModel::OptimalShare => {
                return Err(Error::Unsupported {
                    name: "server model",
                    value: self.server_model.as_str(),
                    accepted: "one that fixes every device's share",
                });
            }
        };
        Ok(flop / self.system.server().flop_per_s())
    }

    /// Phases that depend neither on bandwidth nor on the server.
    pub(crate) fn local(&self, n: usize) -> Phases {
        let device_s = batches(self.system, n) / self.system.devices()[n].flop_per_s();
        Phases {
            broadcast_s: self.round.payloads[n].broadcast_bits / self.broadcast_bps,
            device_forward_s: device_s * self.flops[n].device.forward,
            device_backward_s: device_s * self.flops[n].device.backward,
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

    pub(super) fn phases(&self, n: usize, b_hz: f64, server_s: f64) -> Phases {
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

fn batches(system: &System, n: usize) -> f64 {
    let samples = system.devices()[n].samples;
    system.training().batches_per_round(samples)
}

/// Time to move `bits` at a rate; nothing takes no time, even without a rate.
pub(super) fn transfer_s(bits: f64, rate_bps: f64) -> f64 {
    if bits == 0.0 { 0.0 } else { bits / rate_bps }
}

fn check_air(round: &Round<'_>, devices: usize) -> Result<()> {
    check_len("links", round.links.len(), devices)?;
    check_len("payloads", round.payloads.len(), devices)?;
    for (n, (link, payload)) in round.links.iter().zip(round.payloads).enumerate() {
        (link.validate().and_then(|()| payload.validate())).map_err(|error| error.at(n))?;
    }
    Ok(())
}
