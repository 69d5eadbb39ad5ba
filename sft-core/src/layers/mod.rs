//! Frozen layers with LoRA adapters.
//!
//! [`parts`] says what a block is made of; [`engine`] and [`plain`] compute it, the one by hand on the
//! CPU, the other in candle's operations; [`Backend`] chooses between them.

mod backend;
mod engine;
mod gradient;
mod low_rank;
mod parts;
mod plain;
#[cfg(test)]
mod tests;

pub use backend::Backend;
pub(crate) use backend::{Block, Norm, Reader};
pub(crate) use engine::{Wanted, with_slices};
pub(crate) use gradient::{inject, with_gradient};
pub(crate) use low_rank::LowRank;
pub(crate) use parts::{
    Activation, AttentionWeights, BlockWeights, LinearWeights, Mask, Matrix, MlpWeights, NormKind,
    NormOrder, NormWeights, Rotary, bytes,
};
