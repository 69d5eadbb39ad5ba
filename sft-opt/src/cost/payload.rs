//! Bits on the air: what a round moves, from the model or as measured.

use serde::{Deserialize, Serialize};

use crate::error::{Result, check, check_len, check_size};
use crate::system::{DeviceAdapters, FlHead, Placement, System, Training, Transformer, runs};

/// Bits moved for one device in one round, finite and at least 0.
///
/// [`System::payloads`] predicts them; a trainer that encodes real frames sets the fields to
/// the lengths it measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Payload {
    /// Broadcast before the round: the model in the first round, adapters later.
    pub broadcast_bits: f64,
    /// Activations sent up in the whole round, and gradients of features where the head is on the
    /// device.
    pub uplink_bits: f64,
    /// Gradients of activations sent down in the whole round, and features where the head is on the
    /// device.
    pub downlink_bits: f64,
    /// Trained parameters sent up after the round.
    pub adapter_bits: f64,
}

impl Payload {
    pub(crate) fn validate(&self) -> Result<()> {
        check_size("payloads.broadcast_bits", self.broadcast_bits)?;
        check_size("payloads.uplink_bits", self.uplink_bits)?;
        check_size("payloads.downlink_bits", self.downlink_bits)?;
        check_size("payloads.adapter_bits", self.adapter_bits)
    }
}

/// Activation of one mini-batch at any cut, uncompressed: `Ψ^A = 8α·BSD` bits. Its gradient
/// `Ψ^G` has the same length.
pub fn activation_bits(model: &Transformer, training: &Training) -> f64 {
    let elements = training.batch as f64 * model.tokens as f64 * model.width as f64;
    bits(training, elements)
}

/// Features of one mini-batch, one row a sample: `Ψ^F = 8α·BD` bits, or `BD` times
/// [`Training::bits_per_feature`]. Their gradient has the same length. None cross where the labels are on the server or the
/// model is not split.
pub fn feature_bits(model: &Transformer, training: &Training, placement: Placement) -> f64 {
    if !training.head_is_on_device(placement) {
        return 0.0;
    }
    let numbers = training.batch as f64 * model.width as f64;
    match training.bits_per_feature {
        Some(bits_per_feature) => bits_per_feature * numbers,
        None => bits(training, numbers),
    }
}

/// What a device must receive before its first round, in bits: the part of the model it runs
/// and its adapters.
///
/// Split: `Ψ(l) = 8α[l(block + p_L) + (P²C + S + 2)D]`, without `p_L` where devices have no adapters, and with
/// the head where it is on the device. Federated: the whole model, for LoRA
/// with what it trains.
pub fn model_bits(model: &Transformer, training: &Training, placement: Placement) -> f64 {
    let parameters = match placement {
        Placement::Split { cut } => {
            let block = model.block_parameters() + device_lora(model, training);
            let head = device_head(model, training, placement);
            cut as f64 * block + model.embedding_parameters() + head.held
        }
        Placement::FlFull => model.parameters(),
        Placement::FlLora => model.parameters() + fl_adapters(model, training),
    };
    bits(training, parameters)
}

/// Trained parameters exchanged in every round, in bits and uncompressed.
///
/// What crosses may be coded, see [`Training::adapter_uplink_bits_per_parameter`]. Split: `Ψ^L(l) = 8α·l·p_L`, nothing of the blocks where devices have no adapters, and what is trained of the
/// head where it is on the device. Federated, `Ψ_FL`: all parameters, or for LoRA the adapters and
/// what is trained outside the blocks, see [`FlHead`].
pub fn adapter_bits(model: &Transformer, training: &Training, placement: Placement) -> f64 {
    bits(training, trained(model, training, placement))
}

/// Parameters that are exchanged in every round.
fn trained(model: &Transformer, training: &Training, placement: Placement) -> f64 {
    match (placement, training.fl_head) {
        (Placement::Split { cut }, _) => {
            let head = device_head(model, training, placement);
            cut as f64 * device_lora(model, training) + head.trained
        }
        (Placement::FlFull, _) => model.parameters(),
        (Placement::FlLora, FlHead::Full) => fl_adapters(model, training) + model.head_parameters(),
        (Placement::FlLora, FlHead::Adapters) => fl_adapters(model, training),
    }
}

/// What crosses of them, in bits: up after the round and down before it. Only split devices code
/// them.
fn coded_adapter_bits(
    model: &Transformer,
    training: &Training,
    placement: Placement,
) -> (f64, f64) {
    let parameters = trained(model, training, placement);
    let coded = |bits_per_parameter: Option<f64>| match (placement, bits_per_parameter) {
        (Placement::Split { .. }, Some(bits)) => bits * parameters,
        _ => bits(training, parameters),
    };
    (
        coded(training.adapter_uplink_bits_per_parameter),
        coded(training.adapter_downlink_bits_per_parameter),
    )
}

/// Adapter parameters of a block on a split device, `p_L` or none.
pub(crate) fn device_lora(model: &Transformer, training: &Training) -> f64 {
    match training.device_adapters {
        DeviceAdapters::Lora => model.lora_parameters_per_block(),
        DeviceAdapters::None => 0.0,
    }
}

/// Parameters of the head on a split device, none of them where it is on the server.
#[derive(Default)]
pub(crate) struct DeviceHead {
    pub(crate) held: f64,
    pub(crate) trained: f64,
}

pub(crate) fn device_head(
    model: &Transformer,
    training: &Training,
    placement: Placement,
) -> DeviceHead {
    if !training.head_is_on_device(placement) {
        return DeviceHead::default();
    }
    let [_, adapter] = model.outer_lora_parameters();
    let whole = model.head_parameters();
    match training.fl_head {
        FlHead::Full => DeviceHead {
            held: whole,
            trained: whole,
        },
        FlHead::Adapters => DeviceHead {
            held: whole + adapter,
            trained: adapter,
        },
    }
}

/// Adapter parameters of the whole model in federated LoRA.
pub(crate) fn fl_adapters(model: &Transformer, training: &Training) -> f64 {
    let blocks = model.blocks as f64 * model.lora_parameters_per_block();
    match training.fl_head {
        FlHead::Full => blocks,
        FlHead::Adapters => blocks + model.outer_lora_parameters().iter().sum::<f64>(),
    }
}

fn bits(training: &Training, numbers: f64) -> f64 {
    8.0 * training.bytes_per_number * numbers
}

impl System {
    /// Predicted payloads of a round, one per device, when activations and their gradients
    /// shrink to `beta` of their raw bits (1: not compressed); to a frozen half come no gradients. What
    /// adapters take, and features with their gradients, are [`Training`] settings.
    ///
    /// In the `first` round the devices' parts of the model are broadcast, later their adapters;
    /// (11), section V-C.
    ///
    /// # Errors
    /// `placements` not one per device; `cut` or `beta` outside its range: 1 to `L - 1`, and above
    /// 0 up to 1.
    pub fn payloads(
        &self,
        placements: &[Placement],
        beta: f64,
        first: bool,
    ) -> Result<Vec<Payload>> {
        let (model, training) = (self.model(), self.training());
        check_len("placements", placements.len(), self.devices().len())?;
        check(
            beta > 0.0 && beta <= 1.0,
            "beta",
            beta,
            "above 0 and at most 1",
        )?;
        let mut payloads = Vec::with_capacity(placements.len());
        for (placement, run) in runs(placements) {
            placement.validate_of(run.start, model)?;
            let (adapter_bits, adapters_down) = coded_adapter_bits(model, training, placement);
            let broadcast_bits = if first {
                model_bits(model, training, placement)
            } else {
                adapters_down
            };
            let batch_bits = match placement {
                Placement::Split { .. } => beta * activation_bits(model, training),
                Placement::FlFull | Placement::FlLora => 0.0,
            };
            let feature_bits = feature_bits(model, training, placement);
            payloads.extend(self.devices()[run].iter().map(|device| {
                let batches = training.batches_per_round(device.samples);
                let (round_bits, feature_bits) = (batches * batch_bits, batches * feature_bits);
                let frozen = training.device_is_frozen(placement);
                Payload {
                    broadcast_bits,
                    uplink_bits: round_bits + feature_bits,
                    downlink_bits: if frozen { 0.0 } else { round_bits } + feature_bits,
                    adapter_bits,
                }
            }));
        }
        Ok(payloads)
    }

    /// Predicted payloads of a round in which devices train one after the other, see
    /// [`System::sequential_delay`]: adapters go to every device, and in the `first` round the
    /// largest part of the model that a device needs is broadcast once beside them, booked on
    /// device 0.
    ///
    /// # Errors
    /// As [`System::payloads`].
    pub fn sequential_payloads(
        &self,
        placements: &[Placement],
        beta: f64,
        first: bool,
    ) -> Result<Vec<Payload>> {
        let mut payloads = self.payloads(placements, beta, false)?;
        if first {
            let bits =
                |&placement: &Placement| model_bits(self.model(), self.training(), placement);
            payloads[0].broadcast_bits += placements.iter().map(bits).fold(0.0, f64::max);
        }
        Ok(payloads)
    }
}
