//! What crosses at a cut layer, and how many of its bits a codec leaves.

use std::sync::Arc;

use candle_core::Tensor;
use sft_compress::{Basis, Codec, Compressor, Context, TensorView, Tokens, TransformEncoder};
use sft_core::adapter::Adapters;
use sft_core::run::{RunConfig, Scheme};
use sft_core::split::{CutCodec, DeviceHalf, ServerHalf, Step};
use sft_core::{Error, Result};

use super::Task;

/// Activation and gradient at one cut layer, before training.
pub(super) struct Tensors {
    pub(super) activation: Vec<f32>,
    pub(super) gradient: Vec<f32>,
    pub(super) shape: Vec<usize>,
    tokens: Tokens,
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
        let all = task.train.len();
        let images: Vec<usize> = (0..samples).map(|i| i * all / samples).collect();
        let batch = task.train.batch(&images)?;
        let mut hidden = device.forward(&batch.inputs, step)?;
        hidden.state = hidden.state.detach();
        let gradient = server.step(&hidden, &batch.labels, step)?.gradient;
        let gradient = gradient.ok_or(Error::NoGradient(0))?;
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        Ok(Self {
            activation: values(&hidden.state)?,
            gradient: values(&gradient)?,
            shape: hidden.state.dims().to_vec(),
            tokens: task.model.spec().layout()?,
        })
    }

    /// The gradient's bits over its raw bits, by its own flag.
    pub(super) fn gradient_rate(&self, config: &RunConfig) -> Result<f64> {
        let step = match config.gradient {
            CutCodec::Plain(codec) => return self.rate(&self.gradient, codec),
            CutCodec::Transform(step) => step,
        };
        let activation = TensorView::new(&self.activation, &self.shape)?;
        let basis = Arc::new(Basis::of_gradients(activation, &[], self.tokens, step)?);
        let (mut message, gradient) = (Vec::new(), TensorView::new(&self.gradient, &self.shape)?);
        let context = Context::new(&self.shape, 0);
        TransformEncoder::new(basis).compress(gradient, &context, &mut message, None)?;
        Ok(message.len() as f64 / size_of_val(&self.gradient[..]) as f64)
    }

    pub(super) fn rate(&self, values: &[f32], codec: Codec) -> Result<f64> {
        let frame = codec.encode(TensorView::new(values, &self.shape)?, 0)?;
        Ok(frame.len() as f64 / size_of_val(values) as f64)
    }
}
