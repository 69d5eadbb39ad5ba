//! Tensors of the cut on their way into a codec and out of it.

use candle_core::{Device, Tensor};
use sft_compress::{Compressor, Context, Decompressor, Direction, ErrorKind, TensorView};

use super::RoundPlan;
use super::extent::Extent;
use crate::data::SampleId;
use crate::{Error, Result, seed};

/// What both sides know of a mini-batch at the cut.
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
    fn context(&self, direction: Direction) -> Context<'_> {
        let key = match direction {
            Direction::Up => seed::UPLINK,
            Direction::Down => seed::DOWNLINK,
        };
        let seed = seed::derive(self.plan.seed, &[key, u64::from(self.step)]);
        Context::new(self.extent.crossing(), seed)
            .with_samples(self.samples)
            .with_lengths(self.extent.lengths())
            .with_epoch(self.epoch)
            .with_direction(direction)
    }

    /// The frame of a tensor.
    pub(super) fn compress(
        &self,
        compressor: &mut dyn Compressor,
        direction: Direction,
        tensor: &Tensor,
    ) -> Result<Vec<u8>> {
        let values = self.extent.pack(tensor.flatten_all()?.to_vec1::<f32>()?);
        self.finite(
            &values,
            match direction {
                Direction::Up => "the activation",
                Direction::Down => "the gradient",
            },
        )?;
        let view = TensorView::new(&values, self.extent.crossing())?;
        let mut frame = Vec::new();
        compressor.compress(view, &self.context(direction), &mut frame, None)?;
        Ok(frame)
    }

    /// The tensor of a frame; none if it builds on what the decompressor does not have.
    pub(super) fn decompress(
        &self,
        decompressor: &mut dyn Decompressor,
        direction: Direction,
        frame: &[u8],
        device: &Device,
    ) -> Result<Option<Tensor>> {
        let (context, mut decoded) = (self.context(direction), sft_compress::Tensor::default());
        match decompressor.decompress(frame, &context, &mut decoded) {
            Ok(()) => {
                let values = self.extent.unpack(decoded.into_data());
                Ok(Some(Tensor::from_vec(
                    values,
                    &self.extent.padded()[..],
                    device,
                )?))
            }
            Err(error) if error.kind() == ErrorKind::LostReference => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Fails where a value is not finite any more.
    pub(super) fn finite(&self, values: &[f32], tensor: &'static str) -> Result<()> {
        finite(self.plan, self.device, values, tensor)
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
