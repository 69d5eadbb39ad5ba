//! A run as it stands after a round.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::local::CodecState;
use crate::adapter::Adapters;
use crate::split::Bases;

/// What a round did; every number is the round's own, not cumulative.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// From 1.
    pub round: usize,
    /// The devices that took part, from 0.
    pub devices: Vec<usize>,
    /// Of the devices that were to take part, those that the server gave up on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late: Vec<usize>,
    /// Test accuracy of the aggregated model without compression, a fraction; of a language model that of the
    /// next tokens that count.
    pub accuracy: f64,
    /// The same of the model as it is split, with what crosses the cut compressed as in training;
    /// where it was asked for and the scheme splits the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_through_cut: Option<f64>,
    /// Mean cross-entropy of a sample of the test data, of a language model of a next token that counts, nat.
    #[serde(deserialize_with = "or_nan")]
    pub test_loss: f64,
    /// The same through the cut, as [`Self::accuracy_through_cut`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_loss_through_cut: Option<f64>,
    /// Of a language model its perplexity on the test data: the exponential of the loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// The same through the cut, as [`Self::accuracy_through_cut`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity_through_cut: Option<f64>,
    /// Mean training loss over the samples of all devices, of a language model over their tokens; not a
    /// number, in JSON `null`, where devices elsewhere have the labels: no loss crosses.
    #[serde(deserialize_with = "or_nan")]
    pub loss: f64,
    /// Activations with labels, or with gradients of features where labels stay on the devices, bytes
    /// of all devices.
    pub bytes_up: u64,
    /// Gradients, and features where labels stay on the devices, bytes of all devices.
    pub bytes_down: u64,
    /// Adapters and head from the devices, bytes.
    pub adapter_bytes_up: u64,
    /// Adapters and head to the devices, bytes.
    pub adapter_bytes_down: u64,
    /// Everything else from the devices: headers, names, sample numbers, other messages, bytes.
    pub protocol_bytes_up: u64,
    /// Everything else to the devices, bytes.
    pub protocol_bytes_down: u64,
    /// Of [`Aggregation::Product`](super::Aggregation::Product) the energy of the average of the products
    /// that the rank left out, over that of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_lost: Option<f64>,
    /// Modelled delay of the round, seconds.
    pub delay_s: f64,
    /// Time that the round took once its devices were there, seconds.
    pub wall_s: f64,
}

/// A number, or that there is none.
fn or_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// A fine-tuning run after any of its rounds.
///
/// It is all that the rest of the run depends on: optimizers start anew with each round, and
/// random streams are keyed by seed, round, device and step.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The aggregated adapters and head after the last round.
    pub adapters: Adapters,
    /// One record per round.
    pub rounds: Vec<RoundRecord>,
    /// What the codecs of each device remember, where they do.
    pub codecs: BTreeMap<usize, CodecState>,
    /// What the transform codecs are relative to, by cut layer.
    pub bases: BTreeMap<usize, Bases>,
}

impl Run {
    /// The last round that a device ended in time, 0 for none.
    pub(super) fn last_of(&self, device: usize) -> usize {
        let ended = |round: &&RoundRecord| round.devices.contains(&device);
        self.rounds
            .iter()
            .rev()
            .find(ended)
            .map_or(0, |round| round.round)
    }

    /// Whether a device was to take part in a round so far.
    pub(super) fn knows(&self, device: usize) -> bool {
        let has =
            |round: &RoundRecord| round.devices.contains(&device) || round.late.contains(&device);
        self.rounds.iter().any(has)
    }
}
