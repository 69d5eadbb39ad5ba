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
mod low_rank;
mod op;
mod scratch;

pub(crate) use low_rank::{LowRank, with_gradients};
pub(crate) use op::FrozenBlock;

use rayon::prelude::*;

use self::attention::Attention;
use self::linear::{Adapted, LoraPair, LoraPairGrad, Pass};
use self::scratch::{Buffer, keep_copies, slice, take_copies};
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
    fn apply<'a>(&self, x: &[f32], out: &'a mut Buffer) -> &'a [f32] {
        let out = slice(out, x.len());
        layer_norm(x, &self.gain, &self.bias, self.eps, out);
        out
    }
}

/// The frozen weights of a pre-norm block: attention, then a GELU MLP.
#[derive(Debug)]
pub(crate) struct BlockWeights {
    pub(crate) heads: usize,
    pub(crate) norm1: Norm,
    /// Query, key and value below each other, `[3D, D]`.
    pub(crate) qkv: Linear,
    pub(crate) out: Linear,
    pub(crate) norm2: Norm,
    pub(crate) fc1: Linear,
    pub(crate) fc2: Linear,
}

impl BlockWeights {
    fn width(&self) -> usize {
        self.norm1.gain.len()
    }

    /// Inputs and outputs of the linears that may be adapted, in the adapter's order.
    fn sizes(&self) -> [(usize, usize); 6] {
        let (d, m) = (self.width(), self.fc1.bias.len());
        [(d, d), (d, d), (d, d), (d, d), (d, m), (m, d)]
    }
}

/// The rows of a sample.
#[derive(Clone, Copy, Debug)]
struct Tokens {
    all: usize,
    /// The first ones, whose hidden state after the block is wanted.
    wanted: usize,
}

/// A block with its adapters, ready for samples of some tokens.
struct AdaptedBlock<'a> {
    block: &'a BlockWeights,
    tokens: Tokens,
    ranks: [usize; 6],
    qkv: Adapted<'a, 3>,
    out: Adapted<'a, 1>,
    fc1: Adapted<'a, 1>,
    fc2: Adapted<'a, 1>,
}

impl<'a> AdaptedBlock<'a> {
    fn new(block: &'a BlockWeights, tokens: Tokens, pairs: &[LoraPair<'a>; 6], pass: Pass) -> Self {
        let [q, k, v, o, up, down] = *pairs;
        let [for_qkv, for_out, for_fc1, for_fc2] = take_copies();
        Self {
            block,
            tokens,
            ranks: pairs.each_ref().map(|pair| pair.rank),
            qkv: Adapted::new(&block.qkv, [q, k, v], pass, for_qkv),
            out: Adapted::new(&block.out, [o], pass, for_out),
            fc1: Adapted::new(&block.fc1, [up], pass, for_fc1),
            fc2: Adapted::new(&block.fc2, [down], pass, for_fc2),
        }
    }

    /// Length of the adapter vector.
    fn parameters(&self) -> usize {
        let sizes = self.block.sizes().into_iter().zip(self.ranks);
        sizes.map(|((i, o), rank)| rank * (i + o)).sum()
    }

    /// The parts of the adapter's gradient.
    fn split_gradient<'g>(&self, mut grad: &'g mut [f32]) -> [LoraPairGrad<'g>; 6] {
        let mut ranks = self.ranks.into_iter();
        self.block.sizes().map(|(inputs, outputs)| {
            let rank = ranks.next().unwrap_or(0);
            let (a, rest) = std::mem::take(&mut grad).split_at_mut(rank * inputs);
            let (b, rest) = rest.split_at_mut(rank * outputs);
            grad = rest;
            LoraPairGrad { a, b }
        })
    }

    /// The attention over a piece of `len` elements.
    fn attention(&self, len: usize) -> Attention {
        let width = self.block.width();
        Attention {
            samples: len / width / self.tokens.all,
            tokens: self.tokens.all,
            queries: self.tokens.wanted,
            width,
            heads: self.block.heads,
        }
    }

    /// Elements of a piece: as many whole samples as give about [`PIECE_ROWS`] rows.
    fn piece_len(&self) -> usize {
        let tokens = self.tokens.all;
        (PIECE_ROWS / tokens).max(1) * tokens * self.block.width()
    }

    /// Of `len` elements before the block, those that are wanted after it.
    fn wanted_len(&self, len: usize) -> usize {
        len / self.tokens.all * self.tokens.wanted
    }

    /// The rows of `x` whose hidden state is wanted after the block.
    fn wanted<'x>(&self, x: &'x [f32], out: &'x mut Buffer) -> &'x [f32] {
        let Tokens { all, wanted } = self.tokens;
        if wanted == all {
            return x;
        }
        let (width, out) = (self.block.width(), slice(out, self.wanted_len(x.len())));
        let samples = out.chunks_exact_mut(wanted * width);
        for (out, x) in samples.zip(x.chunks_exact(all * width)) {
            out.copy_from_slice(&x[..wanted * width]);
        }
        out
    }

    /// The pieces of `x`, in order.
    fn pieces<'x>(&self, x: &'x [f32]) -> impl IndexedParallelIterator<Item = Piece<'x>> + use<'x> {
        let (len, width) = (self.piece_len(), self.block.width());
        x.par_chunks(len).enumerate().map(move |(i, x)| Piece {
            x,
            first: i * len / width,
        })
    }
}

impl Drop for AdaptedBlock<'_> {
    fn drop(&mut self) {
        keep_copies([
            self.qkv.take_buffer(),
            self.out.take_buffer(),
            self.fc1.take_buffer(),
            self.fc2.take_buffer(),
        ]);
    }
}

/// Rows that pass through a block at once: few enough that what lies between two products stays
/// in the cache, many enough that a product is not about packing the weight.
///
/// The size of a piece never depends on the number of threads, so neither does any sum.
const PIECE_ROWS: usize = 400;

/// Some samples of a batch.
#[derive(Clone, Copy)]
struct Piece<'a> {
    /// Their rows of the hidden state before the block.
    x: &'a [f32],
    /// The number of their first row in the batch.
    first: usize,
}

/// What the forward pass of a piece keeps for the backward pass, for `T` rows before the block
/// and `W` wanted after it.
#[derive(Debug, Default)]
struct Saved {
    /// Queries, keys and values side by side, `[T, 3D]`.
    qkv: Vec<f32>,
    /// The residual stream between attention and MLP, `[W, D]`.
    middle: Vec<f32>,
    /// The MLP before its GELU, `[W, M]`.
    mlp: Vec<f32>,
}
