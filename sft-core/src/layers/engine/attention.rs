//! The attention of a block: queries, keys and values, the heads, the linear behind them.

use candle_core::Result;

use super::buffer::{Buffer, sized, slice};
use super::heads::DotProduct;
use super::linear::{Adapted, Linear, LinearScratch, Pass};
use super::lora::Pairs;
use super::piece::{Piece, Wanted};
use super::turn::{ReadyTurn, Turn};
use crate::layers::parts::AttentionWeights;

/// The frozen parts of an attention.
#[derive(Debug)]
pub(super) struct Attention {
    heads: DotProduct,
    turn: Turn,
    /// Queries, keys and values side by side.
    qkv: Linear,
    out: Linear,
}

/// An attention with its adapters, ready for one pass over samples up to some length.
pub(super) struct AdaptedAttention<'a> {
    heads: DotProduct,
    turn: ReadyTurn<'a>,
    qkv: Adapted<'a>,
    out: Adapted<'a>,
}

/// What one piece needs beside what is saved.
#[derive(Default)]
pub(super) struct AttentionScratch {
    turned: Buffer,
    context: Buffer,
    dcontext: Buffer,
    dqkv: Buffer,
    probabilities: Buffer,
    dscores: Buffer,
    linear: LinearScratch,
}

impl Attention {
    pub(super) fn new(weights: &AttentionWeights) -> Result<Self> {
        weights.check()?;
        Ok(Self {
            heads: DotProduct {
                heads: weights.heads,
                kv_heads: weights.kv_heads()?,
                head_width: weights.head_width,
                scale: weights.scale as f32,
                mask: weights.mask,
            },
            turn: Turn::new(weights)?,
            qkv: Linear::new(&weights.qkv)?,
            out: Linear::new([&weights.output])?,
        })
    }

    /// The linears in the order of the adapter vector.
    pub(super) fn linears(&self) -> [&Linear; 2] {
        [&self.qkv, &self.out]
    }

    /// Memory of the weights.
    pub(super) fn bytes(&self) -> usize {
        self.qkv.bytes() + self.out.bytes() + self.turn.bytes()
    }

    pub(super) fn adapted<'a>(
        &'a self,
        positions: usize,
        pairs: &mut Pairs<'a>,
        pass: Pass,
    ) -> AdaptedAttention<'a> {
        AdaptedAttention {
            heads: self.heads,
            turn: self.turn.ready(self.heads, positions),
            qkv: self.qkv.adapted(pairs, pass),
            out: self.out.adapted(pairs, pass),
        }
    }
}

impl AdaptedAttention<'_> {
    /// Length of the attention's part of the adapter vector.
    pub(super) fn parameters(&self) -> usize {
        self.qkv.parameters() + self.out.parameters()
    }

    /// Writes the output `[W, D]` for the rows `[T, D]` that it reads, added to `residual` where
    /// there is one, and what backward needs: queries, keys and values side by side.
    pub(super) fn forward(
        &self,
        input: Piece<'_>,
        residual: Option<&[f32]>,
        saved: &mut Buffer,
        out: &mut [f32],
        scratch: &mut AttentionScratch,
    ) {
        let Piece { x, first, samples } = input;
        let rows: usize = samples.iter().map(|tokens| tokens.all).sum();
        let qkv = sized(saved, rows * self.qkv.outputs());
        self.qkv.forward(x, first, None, qkv);
        let turned = self.turn.forward(samples, qkv, &mut scratch.turned);
        let len = input.wanted() * self.heads.width();
        let context = slice(&mut scratch.context, len);
        self.heads
            .forward(samples, turned, context, &mut scratch.probabilities);
        self.out.forward(context, first, residual, out);
    }

    /// Writes the output `[N, D]` for the N rows of further tokens of one sample, added to `residual` where
    /// there is one; `seen` has queries, keys and values of the earlier tokens, and gets those of these.
    pub(super) fn extend(
        &self,
        x: &[f32],
        residual: Option<&[f32]>,
        seen: &mut Vec<f32>,
        out: &mut [f32],
        scratch: &mut AttentionScratch,
    ) {
        let (rows, stride) = (x.len() / self.qkv.inputs(), self.qkv.outputs());
        let samples = [Wanted::Last(rows).of(seen.len() / stride + rows)];
        seen.resize(samples[0].all * stride, 0.0);
        let new = &mut seen[samples[0].from * stride..];
        self.qkv.forward(x, 0, None, new);
        let turned = self.turn.forward(&samples, seen, &mut scratch.turned);
        let context = slice(&mut scratch.context, rows * self.heads.width());
        self.heads
            .forward(&samples, turned, context, &mut scratch.probabilities);
        self.out.forward(context, 0, residual, out);
    }

    /// Writes the gradients of the adapters and, where there is room for it, of the input.
    pub(super) fn backward(
        &self,
        input: Piece<'_>,
        saved: &[f32],
        dout: &[f32],
        grad: &mut [f32],
        dinput: Option<&mut [f32]>,
        scratch: &mut AttentionScratch,
    ) {
        let (dqkv_pairs, dout_pair) = grad.split_at_mut(self.qkv.parameters());
        let Piece { x, first, samples } = input;
        let linear = &mut scratch.linear;
        let len = input.wanted() * self.heads.width();
        let dcontext = slice(&mut scratch.dcontext, len);
        self.out.input_gradient(dout, first, dcontext, linear);
        let dqkv = slice(&mut scratch.dqkv, saved.len());
        let context = slice(&mut scratch.context, len);
        let scores = [&mut scratch.probabilities, &mut scratch.dscores];
        let turned = self.turn.forward(samples, saved, &mut scratch.turned);
        self.heads
            .backward(samples, turned, dcontext, [dqkv, context], scores);
        self.turn
            .backward(samples, saved, dqkv, &mut scratch.turned);
        self.out
            .adapter_gradient(context, first, dout, dout_pair, linear);
        self.qkv
            .adapter_gradient(x, first, dqkv, dqkv_pairs, linear);
        if let Some(dinput) = dinput {
            self.qkv.input_gradient(dqkv, first, dinput, linear);
        }
    }
}
