//! A frozen transformer block with LoRA adapters, as one differentiable
//! operation with a forward and a backward written by hand.
//!
//! Automatic differentiation would compute gradients for the frozen weights
//! and keep every intermediate; this operation computes those of the input
//! and the adapter only, and keeps what backward cannot cheaply recompute.

mod attention;
mod backward;
mod forward;
mod linear;
mod op;

pub(crate) use op::FrozenBlock;

use crate::kernels::layer_norm;

/// Weight `[outputs, inputs]` and bias `[outputs]` of a frozen linear layer.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// Gain and bias of a frozen layer normalisation.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) gain: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) eps: f32,
}

impl Norm {
    /// The normalised rows of `x`.
    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        layer_norm(x, &self.gain, &self.bias, self.eps, &mut out);
        out
    }
}

/// The frozen weights of a pre-norm block: attention, then a GELU MLP.
#[derive(Debug)]
pub(crate) struct BlockWeights {
    pub(crate) heads: usize,
    pub(crate) norm1: Norm,
    /// Query, key, value, each `[D, D]`.
    pub(crate) qkv: [Linear; 3],
    pub(crate) out: Linear,
    pub(crate) norm2: Norm,
    pub(crate) fc1: Linear,
    pub(crate) fc2: Linear,
}

impl BlockWeights {
    fn width(&self) -> usize {
        self.norm1.gain.len()
    }
}

/// What the forward pass keeps for the backward pass, for `T = B * S` tokens.
struct Saved {
    samples: usize,
    /// Queries, keys and values side by side, `[T, 3D]`.
    qkv: Vec<f32>,
    /// Attention output before its projection, `[T, D]`.
    context: Vec<f32>,
    /// The residual stream between attention and MLP, `[T, D]`.
    middle: Vec<f32>,
    /// The MLP before its GELU, `[T, M]`.
    mlp: Vec<f32>,
    /// `x A^T` of each adapted linear, `[T, r]`.
    low_rank: [Vec<f32>; 6],
}
