//! The attention of a block: queries, keys and values, the heads, the linear behind them.

use candle_core::{Result, bail};

use super::buffer::{Buffer, sized, slice};
use super::heads::DotProduct;
use super::linear::{Adapted, Linear, LinearScratch, Pass};
use super::lora::Pairs;
use super::piece::{Piece, Tokens};
use crate::layers::parts::AttentionWeights;

/// The frozen linears of an attention.
#[derive(Debug)]
pub(super) struct Attention {
    heads: usize,
    kv_heads: usize,
    head_width: usize,
    /// Queries, keys and values side by side.
    qkv: Linear,
    out: Linear,
}

/// An attention with its adapters, ready for one pass over samples of some tokens.
pub(super) struct AdaptedAttention<'a> {
    attention: &'a Attention,
    tokens: Tokens,
    qkv: Adapted<'a>,
    out: Adapted<'a>,
}

/// What one piece needs beside what is saved.
#[derive(Default)]
pub(super) struct AttentionScratch {
    context: Buffer,
    dcontext: Buffer,
    dqkv: Buffer,
    probabilities: Buffer,
    dscores: Buffer,
    linear: LinearScratch,
}

impl Attention {
    pub(super) fn new(weights: &AttentionWeights) -> Result<Self> {
        let AttentionWeights {
            heads,
            query,
            key,
            value,
            output,
            ..
        } = weights;
        let (head_width, kv_heads) = (weights.head_width, weights.kv_heads()?);
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            bail!("heads of keys and values must divide {heads}, got {kv_heads}")
        }
        Ok(Self {
            heads: *heads,
            kv_heads,
            head_width,
            qkv: Linear::new([query, key, value])?,
            out: Linear::new([output])?,
        })
    }

    /// The linears in the order of the adapter vector.
    pub(super) fn linears(&self) -> [&Linear; 2] {
        [&self.qkv, &self.out]
    }

    pub(super) fn adapted<'a>(
        &'a self,
        tokens: Tokens,
        pairs: &mut Pairs<'a>,
        pass: Pass,
    ) -> AdaptedAttention<'a> {
        AdaptedAttention {
            attention: self,
            tokens,
            qkv: self.qkv.adapted(pairs, pass),
            out: self.out.adapted(pairs, pass),
        }
    }

    /// Features of the context.
    fn context_width(&self) -> usize {
        self.heads * self.head_width
    }
}

impl AdaptedAttention<'_> {
    /// Length of the attention's part of the adapter vector.
    pub(super) fn parameters(&self) -> usize {
        self.qkv.parameters() + self.out.parameters()
    }

    fn heads(&self, samples: usize) -> DotProduct {
        let Attention {
            heads,
            kv_heads,
            head_width,
            ..
        } = *self.attention;
        DotProduct {
            samples,
            tokens: self.tokens.all,
            queries: self.tokens.wanted,
            heads,
            kv_heads,
            head_width,
        }
    }

    /// Samples in `out` of the output's size.
    fn samples(&self, out: &[f32]) -> usize {
        out.len() / (self.tokens.wanted * self.out.outputs())
    }

    /// Writes the output `[W, D]` for normalised rows `[T, D]`, added to `residual` where there
    /// is one, and what backward
    /// needs: queries, keys and values side by side.
    pub(super) fn forward(
        &self,
        input: Piece<'_>,
        residual: Option<&[f32]>,
        saved: &mut Buffer,
        out: &mut [f32],
        scratch: &mut AttentionScratch,
    ) {
        let samples = self.samples(out);
        let qkv = sized(saved, samples * self.tokens.all * self.qkv.outputs());
        self.qkv.forward(input.x, input.first, None, qkv);
        let width = self.attention.context_width();
        let context = slice(&mut scratch.context, samples * self.tokens.wanted * width);
        let heads = self.heads(samples);
        heads.forward(qkv, context, &mut scratch.probabilities);
        self.out.forward(context, input.first, residual, out);
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
        let (first, linear) = (input.first, &mut scratch.linear);
        let samples = self.samples(dout);
        let len = samples * self.tokens.wanted * self.attention.context_width();
        let dcontext = slice(&mut scratch.dcontext, len);
        self.out.input_gradient(dout, first, dcontext, linear);
        let dqkv = slice(&mut scratch.dqkv, saved.len());
        let context = slice(&mut scratch.context, len);
        let scores = [&mut scratch.probabilities, &mut scratch.dscores];
        let heads = self.heads(samples);
        heads.backward(saved, dcontext, [dqkv, context], scores);
        self.out
            .adapter_gradient(context, first, dout, dout_pair, linear);
        self.qkv
            .adapter_gradient(input.x, first, dqkv, dqkv_pairs, linear);
        if let Some(dinput) = dinput {
            self.qkv.input_gradient(dqkv, first, dinput, linear);
        }
    }
}
