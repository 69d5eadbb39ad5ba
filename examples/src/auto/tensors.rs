//! What crosses at a cut layer, and how many of its bits a codec leaves.

use std::sync::Arc;

use candle_core::Tensor;
use sft_compress::{Basis, Context, TensorView};
use sft_core::adapter::{Adapters, Lora};
use sft_core::model::Model;
use sft_core::run::{RunConfig, Scheme};
use sft_core::split::{
    Bases, CutCodec, DeviceHalf, LabelSide, ServerHalf, ShownActivations, Step,
    calibration_samples, learn_bases,
};
use sft_core::{Error, Result};

use super::Task;

/// Activation and gradient at one cut layer, before training.
pub(super) struct Tensors<'a> {
    pub(super) activation: Vec<f32>,
    gradient: Vec<f32>,
    pub(super) shape: Vec<usize>,
    shown: Shown<'a>,
}

/// What bases are learnt from, as the trainer does: activations of other samples, and the model
/// that they are of.
struct Shown<'a> {
    activations: ShownActivations,
    model: &'a dyn Model,
    lora: Lora,
    cut: usize,
    seed: u64,
}

impl<'a> Tensors<'a> {
    pub(super) fn at(
        config: &RunConfig,
        task: Task<'a>,
        cut: usize,
        samples: usize,
    ) -> Result<Self> {
        let settings = config.settings(Scheme::Sft, task.model.spec())?;
        let (lora, optimizer) = (settings.lora, settings.optimizer);
        let start = Adapters::new(task.model.spec(), lora, task.head.clone(), settings.seed);
        let (device, server) = start.blocks.split_at(cut);
        let device = DeviceHalf::new(task.model, lora, &start.embedding, device, None, optimizer)?;
        let (head, labels) = (&start.head, LabelSide::Server);
        let mut server = ServerHalf::new(task.model, lora, server, head, labels, optimizer)?;
        let step = Step {
            learning_rate: settings.lr,
            dropout_seed: settings.seed,
        };
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let all = task.train.len();
        let count = calibration_samples(task.model.spec(), 1).min(all);
        let images: Vec<usize> = (0..count).map(|i| i * all / count).collect();
        let hidden = device.forward(&task.train.batch(&images)?.inputs, step)?;
        let shown = Shown {
            activations: ShownActivations::even(values(&hidden.state)?, count),
            model: task.model,
            lora,
            cut,
            seed: settings.seed,
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
            shown,
        })
    }

    /// The activation's bits over its raw bits, in a first message by each of some codecs.
    pub(super) fn activation_rates(&self, codecs: &[CutCodec]) -> Result<Vec<f64>> {
        let pairs: Vec<_> = codecs.iter().map(|&up| (up, CutCodec::raw())).collect();
        let bases = self.shown.bases(&pairs)?;
        (codecs.iter().zip(bases))
            .map(|(&codec, bases)| self.rate(&self.activation, codec, bases.up.as_ref()))
            .collect()
    }

    /// The gradient's bits over its raw bits, in a first message.
    pub(super) fn gradient_rate(&self, codec: CutCodec) -> Result<f64> {
        let bases = self.shown.bases(&[(CutCodec::raw(), codec)])?;
        let basis = bases.first().and_then(|bases| bases.down.as_ref());
        self.rate(&self.gradient, codec, basis)
    }

    fn rate(&self, values: &[f32], codec: CutCodec, basis: Option<&Arc<Basis>>) -> Result<f64> {
        let view = TensorView::new(values, &self.shape)?;
        let (mut message, context) = (Vec::new(), Context::new(&self.shape, 0));
        let mut compressor = codec.compressor(basis, 0, false)?;
        compressor.compress(view, &context, &mut message, None)?;
        Ok(message.len() as f64 / size_of_val(values) as f64)
    }
}

impl Shown<'_> {
    fn bases(&self, codecs: &[(CutCodec, CutCodec)]) -> Result<Vec<Bases>> {
        let (model, shown) = (self.model, &self.activations);
        learn_bases(model, self.lora, self.cut, false, codecs, shown, self.seed)
    }
}
