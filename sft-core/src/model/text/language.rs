//! The head of a language model, read when it is asked for first: a classifier has no use for it.

use std::sync::OnceLock;

use candle_core::{Device, Result, Tensor};

use super::weights::LANGUAGE_HEAD;
use super::{TextConfig, TextWeights};
use crate::model::checkpoint::Weight;

/// What a language model multiplies features by; cloning shares it once it is read.
#[derive(Clone, Debug)]
pub(super) enum LanguageHead {
    /// The model is none.
    None,
    /// The embedding itself.
    Tied,
    /// Another matrix, in the weights.
    Own(Weight, OnceLock<Tensor>),
}

impl LanguageHead {
    pub(super) fn new(config: &TextConfig, weights: &TextWeights) -> Self {
        if !config.family.is_decoder() {
            return Self::None;
        }
        if config.tied_head {
            return Self::Tied;
        }
        match weights.0.place(LANGUAGE_HEAD) {
            Some(weight) => Self::Own(weight.clone(), OnceLock::new()),
            None => Self::None,
        }
    }

    /// `[V, D]`, where there is one.
    ///
    /// # Errors
    /// A file that cannot be read any more, or a device without room.
    pub(super) fn weight(&self, embedding: &Tensor, device: &Device) -> Result<Option<Tensor>> {
        match self {
            Self::None => Ok(None),
            Self::Tied => Ok(Some(embedding.clone())),
            Self::Own(stored, read) => {
                if let Some(weight) = read.get() {
                    return Ok(Some(weight.clone()));
                }
                let weight = stored.load()?.to_device(device)?;
                Ok(Some(read.get_or_init(|| weight).clone()))
            }
        }
    }
}
