//! What crosses at a cut layer, and how many of its bits a codec leaves.

use std::sync::Arc;

use candle_core::Tensor;
use sft_compress::{Basis, Codec, Compressor, Context, TensorView, Tokens, TransformEncoder};
use sft_core::adapter::Adapters;
use sft_core::run::{RunConfig, Scheme};
use sft_core::split::{
    CutCodec, DeviceHalf, ServerHalf, ShownActivations, Step, calibration_samples, sensitivity,
};
use sft_core::{Error, Result};

use super::Task;

/// Activation and gradient at one cut layer, before training.
pub(super) struct Tensors {
    pub(super) activation: Vec<f32>,
    gradient: Vec<f32>,
    pub(super) shape: Vec<usize>,
    tokens: Tokens,
    shown: Shown,
}

/// What a basis is learnt from, as the trainer does: activations of other samples, and how much the
/// server minds errors in them.
struct Shown {
    activation: Vec<f32>,
    sensitivity: Vec<f32>,
    shape: Vec<usize>,
}

impl Tensors {
    pub(super) fn at(
        config: &RunConfig,
        task: Task<'_>,
        cut: usize,
        samples: usize,
    ) -> Result<Self> {
        let settings = config.settings(Scheme::Sft, task.model.spec())?;
        let (lora, optimizer) = (settings.lora, settings.optimizer);
        let start = Adapters::new(task.model.spec(), lora, task.head.clone(), settings.seed);
        let (device, server) = start.blocks.split_at(cut);
        let device = DeviceHalf::new(task.model, lora, &start.embedding, device, optimizer)?;
        let mut server = ServerHalf::new(task.model, lora, server, &start.head, optimizer)?;
        let step = Step {
            learning_rate: settings.lr,
            dropout_seed: settings.seed,
        };
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let all = task.train.len();
        let count = calibration_samples(task.model.spec(), 1).min(all);
        let images: Vec<usize> = (0..count).map(|i| i * all / count).collect();
        let hidden = device.forward(&task.train.batch(&images)?.inputs, step)?;
        let activation = values(&hidden.state)?;
        let given = ShownActivations::even(activation.clone(), count);
        let shown = Shown {
            sensitivity: sensitivity(task.model, lora, cut, &given, settings.seed)?,
            activation,
            shape: hidden.state.dims().to_vec(),
        };
        // Between those shown.
        let images = (0..samples).map(|i| (2 * i + 1) * all / (2 * samples));
        let batch = task.train.batch(&images.collect::<Vec<_>>())?;
        let mut hidden = device.forward(&batch.inputs, step)?;
        hidden.state = hidden.state.detach();
        let gradient = server.step(&hidden, &batch.labels, step)?.gradient;
        let gradient = gradient.ok_or(Error::NoGradient(0))?;
        Ok(Self {
            activation: values(&hidden.state)?,
            gradient: values(&gradient)?,
            shape: hidden.state.dims().to_vec(),
            tokens: task.model.spec().layout()?,
            shown,
        })
    }

    /// The activation's bits over its raw bits, in a first message.
    pub(super) fn activation_rate(&self, codec: CutCodec) -> Result<f64> {
        self.rate(&self.activation, codec, |shown, step| {
            let view = TensorView::new(&shown.activation, &shown.shape)?;
            let sensitivity = TensorView::new(&shown.sensitivity, &shown.shape)?;
            Basis::of_activations(view, &[], self.tokens, step, Some(sensitivity))
        })
    }

    /// The gradient's bits over its raw bits, in a first message.
    pub(super) fn gradient_rate(&self, codec: CutCodec) -> Result<f64> {
        self.rate(&self.gradient, codec, |shown, step| {
            let view = TensorView::new(&shown.activation, &shown.shape)?;
            Basis::of_gradients(view, &[], self.tokens, step)
        })
    }

    fn rate(
        &self,
        values: &[f32],
        codec: CutCodec,
        basis: impl Fn(&Shown, f64) -> sft_compress::Result<Basis>,
    ) -> Result<f64> {
        let view = TensorView::new(values, &self.shape)?;
        let message = match codec {
            CutCodec::Plain(codec) => Codec::encode(&codec, view, 0)?,
            CutCodec::Transform(step) => {
                let basis = Arc::new(basis(&self.shown, step)?);
                let (mut message, context) = (Vec::new(), Context::new(&self.shape, 0));
                TransformEncoder::new(basis).compress(view, &context, &mut message, None)?;
                message
            }
        };
        Ok(message.len() as f64 / size_of_val(values) as f64)
    }
}
