//! How the server gets bases for the transform codecs: from some activations of the devices, and
//! from how much its own half minds errors in them.

use std::sync::Arc;

use candle_core::{Tensor, Var};
use sft_compress::{Basis, Codec, TensorView};

use super::coded::{Crossing, Stream};
use super::extent::Extent;
use super::forward::upper;
use super::hello::check_hello;
use super::memory::Serve;
use super::message::{Activation, Message};
use super::transport::unexpected;
use super::{Bases, CutCodec, RoundPlan, Work};
use crate::adapter::{Lora, ModelSpec, device_lengths, normal};
use crate::model::{Hidden, Model};
use crate::{Error, Result, seed};

/// Samples that pass through the server's half together.
const BATCH: usize = 16;

/// Samples of `tokens` in the mean that a basis is learnt from, of all devices together: 16, and of
/// a sequence as many tokens as it has channels.
pub fn samples(spec: &ModelSpec, tokens: usize) -> usize {
    match spec.grid {
        Some(_) => BATCH,
        None => BATCH.max(spec.width.div_ceil(tokens.max(1))),
    }
}

/// How activations cross before there is a basis.
pub(crate) fn first_codec(spec: &ModelSpec) -> CutCodec {
    match spec.grid {
        Some(_) => Codec::vit_activation().into(),
        None => Codec::default_activation().into(),
    }
}

/// The server's side of a calibration for one device: it collects activations.
pub(crate) struct CalibrationSide<'a> {
    device: u32,
    plan: RoundPlan,
    spec: &'a ModelSpec,
    shown: ShownActivations,
    next: u32,
    /// The samples of the device, once it said so.
    has: Option<usize>,
}

/// Activations before a cut that a basis is learnt from.
#[derive(Clone, Debug, Default)]
pub struct ShownActivations {
    /// Those of every sample, `[n, S, D]`, or `[T, D]` where samples have their own lengths.
    values: Vec<f32>,
    /// Tokens of each sample, where they have their own.
    lengths: Vec<u32>,
    samples: usize,
}

impl ShownActivations {
    /// Activations `[n, S, D]` of `samples`, which have all of the model's tokens.
    pub fn even(values: Vec<f32>, samples: usize) -> Self {
        Self {
            values,
            lengths: Vec::new(),
            samples,
        }
    }

    /// Those of another device, too.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.values.append(&mut other.values);
        self.lengths.append(&mut other.lengths);
        self.samples += other.samples;
    }
}

impl<'a> CalibrationSide<'a> {
    pub(crate) fn new(device: u32, plan: RoundPlan, spec: &'a ModelSpec) -> Result<Self> {
        plan.check(spec)?;
        Ok(Self {
            device,
            plan,
            spec,
            shown: ShownActivations::default(),
            next: 0,
            has: None,
        })
    }

    /// What was collected.
    pub(crate) fn into_shown(self) -> ShownActivations {
        self.shown
    }

    fn collect(&mut self, up: &Activation) -> Result<()> {
        let Work::Calibrate { samples, .. } = self.plan.work else {
            return Err(Error::protocol("sent a calibration that was not asked for"));
        };
        let left = samples.saturating_sub(self.shown.samples);
        let (count, most) = (up.samples.len(), self.plan.batch.min(left));
        if up.step != self.next || count == 0 || count > most {
            let number = up.step;
            let reason = format!("sent {count} samples as number {number} of a calibration");
            return Err(Error::protocol(reason));
        }
        up.check_labels(&self.plan)?;
        let tokens = up.tokens(&self.plan, self.spec)?;
        let padded = [count, tokens, self.spec.width];
        let crossing = Crossing {
            plan: &self.plan,
            device: self.device,
            step: up.step,
            epoch: 0,
            samples: &up.samples,
            extent: Extent::new(padded, up.lengths.as_deref()),
        };
        let mut decompressor = first_codec(self.spec).decompressor(None, 0)?;
        let cpu = candle_core::Device::Cpu;
        let state = crossing.decompress(&mut *decompressor, Stream::Activation, &up.frame, &cpu)?;
        let state = state.ok_or_else(|| Error::protocol("sent what builds on a basis"))?;
        let values = state.flatten_all()?.to_vec1::<f32>()?;
        self.shown.values.extend(crossing.extent.pack(values));
        self.shown.lengths.extend(up.lengths.iter().flatten());
        self.shown.samples += count;
        self.next += 1;
        Ok(())
    }
}

impl Serve for CalibrationSide<'_> {
    fn handle(&mut self, message: Message) -> Result<Vec<Message>> {
        match message {
            Message::Hello(hello) => {
                check_hello(self.device, self.spec, hello)?;
                self.has = Some(hello.samples as usize);
                Ok(vec![Message::Plan(self.plan.clone().into())])
            }
            Message::Activation(up) => self.collect(&up).map(|()| Vec::new()),
            other => Err(unexpected(&other, "an activation")),
        }
    }

    fn is_done(&self) -> bool {
        let Work::Calibrate { samples, .. } = self.plan.work else {
            return true;
        };
        self.has
            .is_some_and(|has| self.shown.samples >= samples.min(has))
    }
}

/// Learns the bases for codecs of activations and of gradients, of activations before block `cut`.
///
/// What the server's half minds is found once for all, and only where a codec of activations needs
/// it: in the features of samples, or of tokens where a language model's head reads these.
///
/// # Errors
/// [`Error::Diverged`] for gradients that are not finite; a step or activations that no basis takes.
pub fn learn_bases(
    model: &dyn Model,
    lora: Lora,
    cut: usize,
    of_tokens: bool,
    codecs: &[(CutCodec, CutCodec)],
    shown: &ShownActivations,
    seed: u64,
) -> Result<Vec<Bases>> {
    let spec = model.spec();
    let extent = extent(shown.samples, &shown.lengths, spec);
    let (shape, lengths) = (extent.crossing(), extent.lengths());
    let (tokens, view) = (spec.layout()?, TensorView::new(&shown.values, shape)?);
    let minds = codecs.iter().any(|(up, _)| up.step().is_some());
    let gradients = minds.then(|| sensitivity(model, lora, (cut, of_tokens), shown, seed));
    let gradients = gradients.transpose()?;
    let minded = gradients
        .as_ref()
        .map(|values| TensorView::new(values, shape));
    let minded = minded.transpose()?;
    let of_activations = |step| Basis::of_activations(view, lengths, tokens, step, minded);
    let of_gradients = |step| Basis::of_gradients(view, lengths, tokens, step);
    let bases = |&(up, down): &(CutCodec, CutCodec)| {
        Ok(Bases {
            up: up.step().map(of_activations).transpose()?.map(Arc::new),
            down: down.step().map(of_gradients).transpose()?.map(Arc::new),
        })
    };
    codecs.iter().map(bases).collect()
}

/// The sizes of samples of these lengths, or with all of the model's tokens.
fn extent(samples: usize, lengths: &[u32], spec: &ModelSpec) -> Extent {
    let longest = lengths.iter().max().map(|&length| length as usize);
    let padded = [samples, longest.unwrap_or(spec.tokens), spec.width];
    Extent::new(padded, (!lengths.is_empty()).then_some(lengths))
}

/// Gradients of what the server's blocks make of activations before block `cut`, with respect to
/// them, for random directions of the features: no labels are needed.
fn sensitivity(
    model: &dyn Model,
    lora: Lora,
    (cut, of_tokens): (usize, bool),
    shown: &ShownActivations,
    seed: u64,
) -> Result<Vec<f32>> {
    let spec = model.spec();
    let mut rng = seed::rng(seed, &[seed::CALIBRATION]);
    let adapters = device_lengths(spec, lora, spec.depth);
    let adapters = adapters[1..]
        .iter()
        .map(|&length| Tensor::zeros(length, candle_core::DType::F32, model.device()));
    let adapters = adapters.collect::<candle_core::Result<Vec<_>>>()?;
    let mut gradients = Vec::with_capacity(shown.values.len());
    for first in (0..shown.samples).step_by(BATCH) {
        let count = BATCH.min(shown.samples - first);
        let lengths = shown.lengths.get(first..first + count).unwrap_or_default();
        let extent = extent(count, lengths, spec);
        let part = &shown.values[gradients.len()..];
        let part = &part[..extent.crossing().iter().product()];
        let state = extent.unpack(part.to_vec());
        let state = Tensor::from_vec(state, extent.padded(), model.device())?;
        let state = Var::from_tensor(&state)?;
        let hidden = Hidden {
            state: state.as_tensor().clone(),
            lengths: (!lengths.is_empty()).then(|| lengths.to_vec()),
        };
        let features = upper(model, lora, &adapters[cut..], of_tokens, &hidden)?;
        let directions: Vec<f32> = (0..features.elem_count())
            .map(|_| normal(&mut rng) as f32)
            .collect();
        let directions = Tensor::from_vec(directions, features.shape(), model.device())?;
        let mut grads = (features * directions)?.sum_all()?.backward()?;
        let gradient = grads.remove(&state).ok_or(Error::NoGradient(0))?;
        let gradient = extent.pack(gradient.flatten_all()?.to_vec1::<f32>()?);
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
