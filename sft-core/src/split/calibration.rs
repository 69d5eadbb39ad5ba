//! How the server gets bases for the transform codecs: from some activations of the devices, and
//! from how much its own half minds errors in them.

use std::sync::Arc;

use candle_core::{Tensor, Var};
use sft_compress::{Basis, Codec, Direction, TensorView};

use super::coded::Crossing;
use super::memory::Serve;
use super::message::{Activation, Message};
use super::server::check_hello;
use super::transport::unexpected;
use super::{Bases, CutCodec, RoundPlan, Work};
use crate::adapter::{Lora, ModelSpec, device_lengths, normal};
use crate::model::{Hidden, Model};
use crate::{Error, Result, seed};

/// Samples that a basis is learnt from, of all devices together.
pub const SAMPLES: usize = 16;
/// Samples that pass through the server's half together.
const BATCH: usize = 16;

/// How activations cross before there is a basis.
pub(crate) fn first_codec() -> CutCodec {
    Codec::vit_activation().into()
}

/// The server's side of a calibration for one device: it collects activations.
pub(crate) struct CalibrationSide<'a> {
    device: u32,
    plan: RoundPlan,
    spec: &'a ModelSpec,
    /// `[n, S, D]`
    activations: Vec<f32>,
    next: u32,
}

impl<'a> CalibrationSide<'a> {
    pub(crate) fn new(device: u32, plan: RoundPlan, spec: &'a ModelSpec) -> Result<Self> {
        plan.check(spec)?;
        Ok(Self {
            device,
            plan,
            spec,
            activations: Vec::new(),
            next: 0,
        })
    }

    /// What was collected.
    pub(crate) fn into_activations(self) -> Vec<f32> {
        self.activations
    }

    fn collect(&mut self, up: &Activation) -> Result<()> {
        let Work::Calibrate { samples, .. } = self.plan.work else {
            return Err(Error::protocol("sent a calibration that was not asked for"));
        };
        let known = self.activations.len() / (self.spec.tokens * self.spec.width).max(1);
        let (count, most) = (
            up.samples.len(),
            self.plan.batch.min(samples.saturating_sub(known)),
        );
        if up.step != self.next || count == 0 || count > most || up.lengths.is_some() {
            let reason = format!(
                "sent {count} samples as number {} of a calibration",
                up.step
            );
            return Err(Error::protocol(reason));
        }
        let crossing = Crossing {
            plan: &self.plan,
            device: self.device,
            step: up.step,
            epoch: 0,
            samples: &up.samples,
            shape: [count, self.spec.tokens, self.spec.width],
        };
        let mut decompressor = first_codec().decompressor(None, 0)?;
        let cpu = candle_core::Device::Cpu;
        let state = crossing.decompress(&mut *decompressor, Direction::Up, &up.frame, &cpu)?;
        let state = state.ok_or_else(|| Error::protocol("sent what builds on a basis"))?;
        self.activations
            .extend(state.flatten_all()?.to_vec1::<f32>()?);
        self.next += 1;
        Ok(())
    }
}

impl Serve for CalibrationSide<'_> {
    fn handle(&mut self, message: Message) -> Result<Vec<Message>> {
        match message {
            Message::Hello(hello) => {
                check_hello(self.device, self.spec, hello)?;
                Ok(vec![Message::Plan(self.plan.clone().into())])
            }
            Message::Activation(up) => self.collect(&up).map(|()| Vec::new()),
            other => Err(unexpected(&other, "an activation")),
        }
    }
}

/// The bases for codecs, of activations `[n, S, D]` before block `cut`.
pub(crate) fn learn(
    model: &dyn Model,
    lora: Lora,
    cut: usize,
    (up, down): (CutCodec, CutCodec),
    activations: &[f32],
    seed: u64,
) -> Result<Bases> {
    let spec = model.spec();
    let sample = spec.tokens * spec.width;
    let shape = [activations.len() / sample, spec.tokens, spec.width];
    let (tokens, view) = (spec.layout()?, TensorView::new(activations, &shape)?);
    let of_activations = |step| {
        let sensitivity = sensitivity(model, lora, cut, activations, seed)?;
        let sensitivity = TensorView::new(&sensitivity, &shape)?;
        Ok::<_, Error>(Basis::of_activations(
            view,
            &[],
            tokens,
            step,
            Some(sensitivity),
        )?)
    };
    let of_gradients = |step| Ok::<_, Error>(Basis::of_gradients(view, &[], tokens, step)?);
    Ok(Bases {
        up: up.step().map(of_activations).transpose()?.map(Arc::new),
        down: down.step().map(of_gradients).transpose()?.map(Arc::new),
    })
}

/// Gradients of what the server's blocks make of activations `[n, S, D]` before block `cut`, with
/// respect to them, for random directions of the features: no labels are needed.
///
/// For [`Basis::of_activations`].
///
/// # Errors
/// [`Error::Diverged`] for gradients that are not finite.
pub fn sensitivity(
    model: &dyn Model,
    lora: Lora,
    cut: usize,
    activations: &[f32],
    seed: u64,
) -> Result<Vec<f32>> {
    let spec = model.spec();
    let mut rng = seed::rng(seed, &[seed::CALIBRATION]);
    let adapters = device_lengths(spec, lora, spec.depth);
    let adapters = adapters[1..]
        .iter()
        .map(|&length| Tensor::zeros(length, candle_core::DType::F32, model.device()));
    let adapters = adapters.collect::<candle_core::Result<Vec<_>>>()?;
    let mut gradients = Vec::with_capacity(activations.len());
    for part in activations.chunks(BATCH * spec.tokens * spec.width) {
        let shape = (
            part.len() / (spec.tokens * spec.width),
            spec.tokens,
            spec.width,
        );
        let state = Var::from_tensor(&Tensor::from_slice(part, shape, model.device())?)?;
        let mut hidden = Hidden::even(state.as_tensor().clone());
        for (index, adapter) in adapters.iter().enumerate().skip(cut) {
            hidden = model.block(index, &hidden, adapter, lora.in_block(index))?;
        }
        let features = model.finish(&hidden)?;
        let directions: Vec<f32> = (0..features.elem_count())
            .map(|_| normal(&mut rng) as f32)
            .collect();
        let directions = Tensor::from_vec(directions, features.shape(), model.device())?;
        let mut grads = (features * directions)?.sum_all()?.backward()?;
        let gradient = grads.remove(&state).ok_or(Error::NoGradient(0))?;
        let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
        if gradient.iter().any(|value| !value.is_finite()) {
            return Err(Error::Diverged {
                round: 1,
                device: 0,
                tensor: "the sensitivity",
            });
        }
        gradients.extend(gradient);
    }
    Ok(gradients)
}
