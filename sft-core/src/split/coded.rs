//! Tensors of the cut on their way into a codec and out of it.

use candle_core::{Device, Tensor};
use sft_compress::{Compressor, Context, Decompressor, Direction, ErrorKind, TensorView};

use super::RoundPlan;
use super::extent::Extent;
use crate::data::SampleId;
use crate::{Error, Result, seed};

/// The tensors of a mini-batch that cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// The hidden state at the cut, going up.
    Activation,
    /// Its gradient, coming down.
    Gradient,
    /// What the head reads, coming down to where the labels are.
    Features,
    /// Its gradient, going up.
    FeatureGradient,
}

impl Stream {
    fn direction(self) -> Direction {
        match self {
            Self::Activation | Self::FeatureGradient => Direction::Up,
            Self::Gradient | Self::Features => Direction::Down,
        }
    }

    /// The key of its random stream.
    fn key(self) -> u64 {
        match self {
            Self::Activation => seed::UPLINK,
            Self::Gradient => seed::DOWNLINK,
            Self::Features => seed::FEATURES,
            Self::FeatureGradient => seed::FEATURE_GRADIENT,
        }
    }

    /// What errors call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Activation => "the activation",
            Self::Gradient => "the gradient",
            Self::Features => "the features",
            Self::FeatureGradient => "the gradient of the features",
        }
    }
}

/// What both sides know of a tensor of a mini-batch.
pub(super) struct Crossing<'a> {
    pub(super) plan: &'a RoundPlan,
    /// The device, for errors.
    pub(super) device: u32,
    pub(super) step: u32,
    /// Passes over the data before it.
    pub(super) epoch: u32,
    pub(super) samples: &'a [SampleId],
    pub(super) extent: Extent,
}

impl Crossing<'_> {
    fn context(&self, stream: Stream) -> Context<'_> {
        let key = [stream.key(), u64::from(self.step)];
        let seed = seed::derive(self.plan.seed, &key);
        Context::new(self.extent.crossing(), seed)
            .with_samples(self.samples)
            .with_lengths(self.extent.lengths())
            .with_epoch(self.epoch)
            .with_direction(stream.direction())
    }

    /// The frame of a tensor.
    pub(super) fn compress(
        &self,
        compressor: &mut dyn Compressor,
        stream: Stream,
        tensor: &Tensor,
    ) -> Result<Vec<u8>> {
        let values = self.extent.pack(tensor.flatten_all()?.to_vec1::<f32>()?);
        finite(self.plan, self.device, &values, stream.name())?;
        let view = TensorView::new(&values, self.extent.crossing())?;
        let mut frame = Vec::new();
        compressor.compress(view, &self.context(stream), &mut frame, None)?;
        Ok(frame)
    }

    /// The tensor of a frame; none if it builds on what the decompressor does not have.
    pub(super) fn decompress(
        &self,
        decompressor: &mut dyn Decompressor,
        stream: Stream,
        frame: &[u8],
        device: &Device,
    ) -> Result<Option<Tensor>> {
        let (context, mut decoded) = (self.context(stream), sft_compress::Tensor::default());
        match decompressor.decompress(frame, &context, &mut decoded) {
            Ok(()) => {
                let values = self.extent.unpack(decoded.into_data());
                Ok(Some(Tensor::from_vec(
                    values,
                    self.extent.padded(),
                    device,
                )?))
            }
            Err(error) if error.kind() == ErrorKind::LostReference => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Fails where a value is not finite any more.
pub(crate) fn finite(
    plan: &RoundPlan,
    device: u32,
    values: &[f32],
    tensor: &'static str,
) -> Result<()> {
    if values.iter().all(|v| v.is_finite()) {
        return Ok(());
    }
    Err(Error::Diverged {
        round: plan.round,
        device: device as usize,
        tensor,
    })
}
