//! Memory that training takes on a device: (26') and the paper's Table III.

use serde::{Deserialize, Serialize};

use super::payload::{device_head, device_lora, fl_adapters};
use crate::error::Result;
use crate::system::{FlHead, Placement, System, Training, Transformer};

/// Device memory in bytes, row by row as in the paper's Table III.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// One mini-batch of images, `αBC·H²`.
    pub input_bytes: f64,
    /// Weights and adapters.
    pub model_bytes: f64,
    /// Optimizer state of the trained parameters.
    pub optimizer_bytes: f64,
    /// Gradients of the trained parameters; 0 unless [`Training::count_gradients`].
    pub gradient_bytes: f64,
    /// Activations kept for the backward pass.
    pub activation_bytes: f64,
}

impl Memory {
    /// Sum of all rows `M^c` in bytes.
    pub fn total_bytes(&self) -> f64 {
        self.input_bytes
            + self.model_bytes
            + self.optimizer_bytes
            + self.gradient_bytes
            + self.activation_bytes
    }

    /// Whether it is strictly less than `limit_bytes`, as (27c) asks.
    pub fn fits(&self, limit_bytes: u64) -> bool {
        self.total_bytes() < limit_bytes as f64
    }
}

/// Memory that a device needs for its part of the model.
///
/// Split at `l`, (26'): weights `α(l(block + p_L) + P²CD + D)`, trained `l·p_L`, activations
/// `l(α₁BSD + α₂BS²A) + αBSD`; of a frozen half `l` is 0 for adapters and activations; where the head
/// is on the device, its weights `DK + K`, trained as [`FlHead`] says, and `αB(D + K)` for features and logits. Federated: the whole model, for LoRA with its adapters,
/// activations of all blocks. With [`Training::gradient_checkpointing`] the `l` blocks keep
/// `l·αBSD` and one of them at a time `α₁BSD + α₂BS²A`; with [`Training::mapped_blocks`] twice the
/// weights of a block are held, not those of `l`.
///
/// # Errors
/// A field of `model` or `training` outside its documented range, a `cut` outside 1 to `L - 1`.
pub fn device_memory(
    model: &Transformer,
    training: &Training,
    placement: Placement,
) -> Result<Memory> {
    model.validate()?;
    training.validate()?;
    placement.validate(model)?;
    let alpha = training.bytes_per_number;
    let trained = trained_on_device(model, training, placement);
    let gradients = if training.count_gradients { alpha } else { 0.0 };
    Ok(Memory {
        input_bytes: alpha * image_numbers(model, training),
        model_bytes: alpha * held_on_device(model, training, placement),
        optimizer_bytes: training.optimizer_bytes_per_parameter * trained,
        gradient_bytes: gradients * trained,
        activation_bytes: activation_bytes(model, training, placement),
    })
}

impl System {
    /// Memory that a device needs for its part of the model, see [`device_memory`].
    ///
    /// # Errors
    /// `cut` outside 1 to `L - 1`.
    pub fn memory(&self, placement: Placement) -> Result<Memory> {
        device_memory(self.model(), self.training(), placement)
    }
}

fn image_numbers(model: &Transformer, training: &Training) -> f64 {
    let side = model.image as f64;
    training.batch as f64 * model.channels as f64 * side * side
}

/// Parameters a device holds. Positions and class token are left out of the split model, as
/// the paper's Table III does.
fn held_on_device(model: &Transformer, training: &Training, placement: Placement) -> f64 {
    match placement {
        Placement::Split { cut } => {
            let adapters = cut as f64 * device_lora(model, training);
            let blocks = if training.mapped_blocks { 2 } else { cut };
            let head = device_head(model, training, placement);
            blocks as f64 * model.block_parameters()
                + adapters
                + model.patch_parameters()
                + head.held
        }
        Placement::FlFull => model.parameters(),
        Placement::FlLora => model.parameters() + fl_adapters(model, training),
    }
}

/// Parameters a device keeps optimizer state for.
fn trained_on_device(model: &Transformer, training: &Training, placement: Placement) -> f64 {
    let lora = model.lora_parameters_per_block();
    let all_blocks = model.blocks as f64 * lora;
    match (placement, training.fl_head) {
        (Placement::Split { cut }, _) => {
            let head = device_head(model, training, placement);
            cut as f64 * device_lora(model, training) + head.trained
        }
        (Placement::FlFull, _) => model.parameters(),
        (Placement::FlLora, FlHead::Full) => all_blocks + model.head_parameters(),
        (Placement::FlLora, FlHead::Adapters) => all_blocks + model.outer_lora_parameters()[0],
    }
}

fn activation_bytes(model: &Transformer, training: &Training, placement: Placement) -> f64 {
    let blocks = match placement {
        Placement::Split { .. } if training.device_is_frozen(placement) => 0,
        Placement::Split { cut } => cut,
        Placement::FlFull | Placement::FlLora => model.blocks,
    };
    let s = model.tokens as f64;
    let rows = training.batch as f64 * s;
    let stream = rows * model.width as f64;
    let attention = rows * s * model.heads as f64;
    let head = if training.head_is_on_device(placement) {
        training.batch as f64 * (model.width as f64 + model.classes as f64)
    } else {
        0.0
    };
    let alpha = training.bytes_per_number;
    let block = training.activation_bytes * stream + training.attention_bytes * attention;
    let kept = if training.gradient_checkpointing {
        blocks as f64 * alpha * stream + blocks.min(1) as f64 * block
    } else {
        blocks as f64 * block
    };
    kept + alpha * (stream + head)
}
