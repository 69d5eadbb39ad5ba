//! Frozen transformers that can be cut between any two of their blocks.

/// What a splittable model is.
mod splittable;
/// The vision transformer.
pub(crate) mod vit;

pub use splittable::{Hidden, Model};
pub use vit::{PlainVit, Pretrained, Vit, VitConfig, VitWeights, save_merged};
