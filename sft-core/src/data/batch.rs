//! A mini-batch as models and tasks take it.

use candle_core::{Device, Tensor};

use super::Data;

/// The number of a sample, or of one view of a sample that is changed at random: the same whenever
/// the same comes again. A device numbers its own.
pub type SampleId = u64;

/// Some samples of a data set.
#[derive(Clone, Debug)]
pub struct Batch {
    /// What the model embeds.
    pub inputs: Inputs,
    /// What it is to answer.
    pub labels: Labels,
    /// Which samples these are, in order.
    pub samples: Vec<SampleId>,
}

impl Batch {
    /// These samples of a data set, their pixels `[B, C, H, W]` and classes.
    pub fn images(data: &(impl Data + ?Sized), indices: &[usize], pixels: Tensor) -> Self {
        Self {
            inputs: Inputs::Pixels(pixels),
            labels: Labels::Classes(indices.iter().map(|&i| data.label(i)).collect()),
            samples: indices.iter().map(|&i| i as SampleId).collect(),
        }
    }

    /// The same where sample `i` of a data set of `all` was changed to the view with the number
    /// `views[i]`: a sample and a view have one number, `sample + (1 + view) all`, and no other sample
    /// or view has it.
    #[must_use]
    pub fn with_views(mut self, views: &[u64], all: usize) -> Self {
        for (sample, view) in self.samples.iter_mut().zip(views) {
            let view = view.wrapping_add(1).wrapping_mul(all as u64);
            *sample = sample.wrapping_add(view);
        }
        self
    }
}

/// What a model embeds.
#[derive(Clone, Debug)]
pub enum Inputs {
    /// Pixels `[B, C, H, W]`.
    Pixels(Tensor),
    /// Token ids `[B, S]`, of which sample `i` has the first `lengths[i]`; the others are padding.
    Tokens {
        /// The ids, u32.
        ids: Tensor,
        /// Tokens of each sample.
        lengths: Vec<u32>,
    },
}

impl Inputs {
    /// The same on another device.
    ///
    /// # Errors
    /// A device without room.
    pub fn to_device(&self, device: &Device) -> candle_core::Result<Self> {
        Ok(match self {
            Self::Pixels(pixels) => Self::Pixels(pixels.to_device(device)?),
            Self::Tokens { ids, lengths } => Self::Tokens {
                ids: ids.to_device(device)?,
                lengths: lengths.clone(),
            },
        })
    }

    /// Pixels, for a model of images.
    ///
    /// # Errors
    /// Inputs of another kind.
    pub fn pixels(&self) -> candle_core::Result<&Tensor> {
        match self {
            Self::Pixels(pixels) => Ok(pixels),
            Self::Tokens { .. } => candle_core::bail!("the model takes images, got token ids"),
        }
    }
}

/// What a model is to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// The class of each sample.
    Classes(Vec<u32>),
    /// In language modelling: the token after each real token of the inputs, T of them, one sample after
    /// the other; [`Self::IGNORED`] where none counts.
    Tokens(Vec<u32>),
}

impl Labels {
    /// What stands for a next token that does not count, as those of a prompt.
    pub const IGNORED: u32 = u32::MAX;

    /// How many answers count: one a sample, or the next tokens that are not ignored.
    pub fn counted(&self) -> usize {
        match self {
            Self::Classes(classes) => classes.len(),
            Self::Tokens(targets) => {
                let counts = targets.iter().filter(|&&target| target != Self::IGNORED);
                counts.count()
            }
        }
    }
}
