//! What a tensor becomes on its way across the cut, outside of a round.

use candle_core::Tensor;
use sft_compress::{Compressor, Decompressor};

use super::coded::{Crossing, Stream};
use super::extent::Extent;
use super::{Bases, CutCodec, RoundPlan};
use crate::data::SampleId;
use crate::model::Hidden;
use crate::{Error, Result};

/// A model that stays split after training: what crosses is compressed as the plan says, by codecs that
/// remember nothing.
pub(crate) struct ThroughCut {
    pub(crate) plan: RoundPlan,
    pub(crate) bases: Bases,
}

/// Which samples these are, and the number of their mini-batch.
pub(crate) type These<'a> = (&'a [SampleId], u32);

impl ThroughCut {
    /// The activation that the server has.
    pub(crate) fn activation(&self, hidden: &Hidden, these: These<'_>) -> Result<Hidden> {
        let (codec, basis) = (self.plan.activation, self.bases.up.as_ref());
        let ends = (
            codec.compressor(basis, 0, false)?,
            codec.decompressor(basis, 0)?,
        );
        let sent = (Stream::Activation, &hidden.state, Extent::of(hidden)?);
        Ok(hidden.with_state(self.cross(sent, these, ends)?))
    }

    /// The features of the activation's samples or tokens that the device has, where the head is there.
    pub(crate) fn features(
        &self,
        features: &Tensor,
        (hidden, of_tokens): (&Hidden, bool),
        these: These<'_>,
    ) -> Result<Tensor> {
        let codec = CutCodec::from(self.plan.features);
        let ends = (
            codec.compressor(None, 0, false)?,
            codec.decompressor(None, 0)?,
        );
        let extent = Extent::of(hidden)?.features(of_tokens);
        let sent = (Stream::Features, features, extent);
        self.cross(sent, these, ends)
    }

    fn cross(
        &self,
        (stream, tensor, extent): (Stream, &Tensor, Extent),
        (samples, step): These<'_>,
        (mut compressor, mut decompressor): (Box<dyn Compressor>, Box<dyn Decompressor>),
    ) -> Result<Tensor> {
        let crossing = Crossing {
            plan: &self.plan,
            device: 0,
            step,
            epoch: 0,
            samples,
            extent,
        };
        let frame = crossing.compress(compressor.as_mut(), stream, tensor)?;
        let decompressor = decompressor.as_mut();
        let got = crossing.decompress(decompressor, stream, &frame, tensor.device())?;
        got.ok_or_else(|| Error::protocol("sent what builds on nothing that was sent"))
    }
}
