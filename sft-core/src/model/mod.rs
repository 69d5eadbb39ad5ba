//! Frozen transformers that can be cut between any two of their blocks.

/// Files of weights.
mod checkpoint;
/// What a splittable model is.
mod splittable;
/// Text models.
mod text;
/// The vision transformer.
pub(crate) mod vit;

pub use crate::layers::Backend;
pub use splittable::{Hidden, Model};
pub use text::{
    Pooling, PretrainedText, SpecialTokens, TextConfig, TextFamily, TextModel, TextWeights,
    Tokenizer,
};
pub use vit::{Pretrained, Vit, VitConfig, VitWeights, save_merged};
