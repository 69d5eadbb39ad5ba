//! The weights of a normalisation.

use candle_core::{Device, Result, Tensor};

use super::bytes;

/// What a normalisation divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// The standard deviation, once the mean is taken off.
    Layer,
    /// The root of the mean square (Zhang and Sennrich 2019).
    Rms,
}

/// A frozen normalisation of rows. Gemma's gain `1 + w` is the gain here.
#[derive(Clone, Debug)]
pub(crate) struct NormWeights {
    /// `[D]`
    pub(crate) gain: Tensor,
    /// `[D]`; an RMS norm has none.
    pub(crate) bias: Option<Tensor>,
    pub(crate) eps: f64,
    pub(crate) kind: NormKind,
}

impl NormWeights {
    /// Memory of the weights.
    pub(crate) fn bytes(&self) -> usize {
        bytes(&self.gain) + self.bias.as_ref().map_or(0, bytes)
    }

    pub(crate) fn to_device(&self, device: &Device) -> Result<Self> {
        let bias = self.bias.as_ref().map(|bias| bias.to_device(device));
        Ok(Self {
            gain: self.gain.to_device(device)?,
            bias: bias.transpose()?,
            ..*self
        })
    }
}
