//! Frozen transformers that can be cut between any two of their blocks.

/// Files of weights.
mod checkpoint;
/// A device's half.
mod half;
/// Tuned models as one.
mod merged;
/// What a pre-trained model is.
mod pretrained;
/// What a splittable model is.
mod splittable;
/// Text models.
mod text;
/// The vision transformer.
pub(crate) mod vit;

pub use crate::layers::Backend;
pub(crate) use pretrained::not_finite;
pub use pretrained::{Pretrained, TextInput, digest};
pub use splittable::{Hidden, Model, Reader};
pub use text::{
    ChatTemplate, Pooling, PretrainedText, SpecialTokens, TextConfig, TextFamily, TextModel,
    TextWeights, Tokenizer,
};
pub use vit::{PretrainedVit, Vit, VitConfig, VitWeights};
