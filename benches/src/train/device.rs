//! The device's half alone: what it allocates, and a side whose time is measured.

use peak_alloc::PeakAlloc;
use serde::{Deserialize, Serialize};
use sft_core::data::Inputs;
use sft_core::model::{Backend, Vit};
use sft_core::optim::Optimizer;
use sft_core::split::DeviceHalf;

use super::peer::answer;
use super::step::{MOMENTUM, STEP};
use crate::Outcome;
use crate::shapes::Shape;

/// Bytes that a device's half has allocated.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Counted {
    /// Before its first step: weights, adapters and a mini-batch of images.
    pub(super) held: f64,
    /// The most that steps add: activations, gradients, optimizer state, working memory.
    pub(super) added: f64,
}

/// The model of a device that holds nothing else.
fn model(shape: &Shape, checkpointing: bool) -> Outcome<Vit> {
    let backend = Backend::Engine { checkpointing };
    shape.device_part().model_on(backend)
}

/// Counts the first steps of a device's half and prints the result.
pub(super) fn count(shape: &Shape, checkpointing: bool) -> Outcome<()> {
    let before = PeakAlloc.current_usage();
    let mut held = 0;
    run(shape, checkpointing, |step| {
        held = PeakAlloc.current_usage();
        PeakAlloc.reset_peak_usage();
        (0..2).try_for_each(|_| step())
    })?;
    let counted = Counted {
        held: (held - before) as f64,
        added: (PeakAlloc.peak_usage() - held) as f64,
    };
    println!("{}", serde_json::to_string(&counted)?);
    Ok(())
}

/// The device's half as a side whose time is measured.
pub(super) fn serve(shape: &Shape, checkpointing: bool) -> Outcome<()> {
    run(shape, checkpointing, |step| {
        answer(|| {
            step()?;
            Ok(0.0)
        })
    })
}

/// Hands `with` the step of a device's half; the gradient is a tensor of its own, as if received.
fn run(
    shape: &Shape,
    checkpointing: bool,
    with: impl FnOnce(&mut dyn FnMut() -> Outcome<()>) -> Outcome<()>,
) -> Outcome<()> {
    let model = model(shape, checkpointing)?;
    let (images, sgd) = (Inputs::Pixels(shape.images()?), Optimizer::sgd(MOMENTUM));
    let start = shape.device_part().adapters();
    let (embedding, blocks) = (&start.embedding, &start.blocks);
    let mut half = DeviceHalf::new(&model, shape.lora()?, embedding, blocks, None, sgd)?;
    drop(start);
    with(&mut || {
        let activation = half.forward(&images, STEP)?;
        let gradient = activation.state.detach().affine(1e-3, 0.0)?;
        Ok(half.backward(&activation, Some(&gradient), None, STEP)?)
    })
}
