//! Training settings that costs depend on.

use serde::{Deserialize, Serialize};

use super::placement::Placement;
use crate::error::{Result, check, check_rate, check_size};

/// What federated LoRA trains outside the blocks.
///
/// It changes memory and payload; FLOPs are counted as for [`FlHead::Full`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlHead {
    /// The new head in full, `DK + K` parameters.
    #[default]
    Full,
    /// Adapters on the patch projection (`2Dr`) and on the head (`r(D + K)`), as the paper's
    /// Table III counts them: both in the model row, only the former in the optimizer row.
    Adapters,
}

/// What split training trains of the blocks on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceAdapters {
    /// An adapter on every one.
    #[default]
    Lora,
    /// Nothing: the device's half is frozen and runs forward alone, no gradients come down, and no
    /// adapters cross.
    None,
}

/// Where the labels are in split training, and with them the head and the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelSide {
    /// On the server.
    #[default]
    Server,
    /// On the device, which gets the features, one row a sample or of a language model one a token, and sends their gradient: the
    /// U-shape.
    Device,
}

/// How floating-point operations are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flops {
    /// As printed in the paper: backward is twice forward, the head works on every token and
    /// is counted on the device (and its backward on the server once more), embedding and
    /// adapters are free.
    #[default]
    Paper,
    /// What the computation needs: no weight gradients for frozen layers, no input gradient at
    /// block 1, head on the class token and only where it is trained, embedding and adapters
    /// included.
    Exact,
}

/// Training settings that enter cost formulas. The default is the paper's Table II.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
// Each is a switch of its own.
#[allow(clippy::struct_excessive_bools)]
pub struct Training {
    /// Samples in a mini-batch `B`, at least 1. Default 64.
    pub batch: usize,
    /// Passes over the local data in a round, at least 1. Default 1.
    pub local_epochs: usize,
    /// Bytes per number `α` of weights, activations and adapters, positive. Default 4.
    pub bytes_per_number: f64,
    /// Bits of an adapter's parameter in a split device's update, where updates are coded;
    /// positive. Default none: `8α`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter_uplink_bits_per_parameter: Option<f64>,
    /// The same of the adapters that a split device gets at the start of every round but the
    /// first, in which they are whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter_downlink_bits_per_parameter: Option<f64>,
    /// Bits of a feature, and of its gradient, where these cross ([`LabelSide::Device`]) and are
    /// coded; positive. Default none: `8α`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_feature: Option<f64>,
    /// Bytes of optimizer state per trained parameter `α̂`, at least 0: 0 plain SGD,
    /// 4 momentum, 8 Adam, 12 Adam in mixed precision. Default 4.
    pub optimizer_bytes_per_parameter: f64,
    /// Activation bytes `α₁` kept per element of `B×S×D` and block, positive. Default 72,
    /// calibrated on the paper's Table III.
    pub activation_bytes: f64,
    /// Activation bytes `α₂` kept per element of `B×A×S×S` and block, at least 0. Default 4,
    /// calibrated on the paper's Table III.
    pub attention_bytes: f64,
    /// Whether blocks that are trained keep their input alone for the backward pass, which computes a
    /// block's forward pass again, on the device and on the server. Default `false`.
    pub gradient_checkpointing: bool,
    /// Whether a split device leaves the frozen weights of its blocks in a mapped file: of these it holds one
    /// block's at a time, and a copy of that with the adapters added. Default `false`.
    pub mapped_blocks: bool,
    /// Whether device memory counts gradients of trained parameters. Default `false`, as Table III.
    pub count_gradients: bool,
    /// How FLOPs are counted. Default [`Flops::Paper`].
    pub flops: Flops,
    /// What federated LoRA trains outside the blocks, and of the head a split device that has it.
    /// Default [`FlHead::Full`].
    pub fl_head: FlHead,
    /// What split training trains on a device. Default [`DeviceAdapters::Lora`].
    pub device_adapters: DeviceAdapters,
    /// Where split training has labels, head and loss. Default [`LabelSide::Server`].
    pub labels: LabelSide,
    /// With [`DeviceAdapters::None`] the blocks from the first on that have no adapters anywhere,
    /// the deepest cut of devices that differ in theirs: the server runs those of a device with a
    /// shallower cut forward alone. Below the number of blocks; default 0, as many as the cut.
    pub frozen_blocks: usize,
    /// Takes the paper's (18) at its word: one mini-batch in a round, `I_n = 1`. Default `false`.
    pub literal_single_batch: bool,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            batch: 64,
            local_epochs: 1,
            bytes_per_number: 4.0,
            adapter_uplink_bits_per_parameter: None,
            adapter_downlink_bits_per_parameter: None,
            bits_per_feature: None,
            optimizer_bytes_per_parameter: 4.0,
            activation_bytes: 72.0,
            attention_bytes: 4.0,
            gradient_checkpointing: false,
            mapped_blocks: false,
            count_gradients: false,
            flops: Flops::Paper,
            fl_head: FlHead::Full,
            device_adapters: DeviceAdapters::Lora,
            labels: LabelSide::Server,
            frozen_blocks: 0,
            literal_single_batch: false,
        }
    }
}

impl Training {
    /// Whether a device has nothing to train.
    pub(crate) fn device_is_frozen(&self, placement: Placement) -> bool {
        let split = matches!(placement, Placement::Split { .. });
        split && self.device_adapters == DeviceAdapters::None
    }

    /// Whether a device has the head of a model that is split.
    pub(crate) fn head_is_on_device(&self, placement: Placement) -> bool {
        let split = matches!(placement, Placement::Split { .. });
        split && self.labels == LabelSide::Device
    }

    /// Mini-batches of one round `I_n = local_epochs · ⌈samples / batch⌉`, used by (18').
    pub fn batches_per_round(&self, samples: usize) -> f64 {
        if self.literal_single_batch {
            return 1.0;
        }
        self.local_epochs as f64 * samples.div_ceil(self.batch.max(1)) as f64
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let frozen = self.frozen_blocks;
        let legal = frozen == 0 || self.device_adapters == DeviceAdapters::None;
        check(
            legal,
            "frozen_blocks",
            frozen as f64,
            "0 where devices have adapters",
        )?;
        check(self.batch >= 1, "batch", self.batch as f64, "at least 1")?;
        check(
            self.local_epochs >= 1,
            "local_epochs",
            self.local_epochs as f64,
            "at least 1",
        )?;
        check_rate("bytes_per_number", self.bytes_per_number)?;
        let coded = [
            (
                "adapter_uplink_bits_per_parameter",
                self.adapter_uplink_bits_per_parameter,
            ),
            (
                "adapter_downlink_bits_per_parameter",
                self.adapter_downlink_bits_per_parameter,
            ),
            ("bits_per_feature", self.bits_per_feature),
        ];
        for (name, bits) in coded {
            bits.map_or(Ok(()), |bits| check_rate(name, bits))?;
        }
        check_rate("activation_bytes", self.activation_bytes)?;
        check_size("attention_bytes", self.attention_bytes)?;
        check_size(
            "optimizer_bytes_per_parameter",
            self.optimizer_bytes_per_parameter,
        )
    }
}
