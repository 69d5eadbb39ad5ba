//! A pre-norm block put together from its parts, forward and backward, for one piece of a batch.

use candle_core::{Result, Tensor};

use super::attention::{AdaptedAttention, Attention, AttentionScratch};
use super::buffer::{Buffer, sized, slice};
use super::linear::{Linear, Pass};
use super::lora::Pairs;
use super::mlp::{AdaptedMlp, Mlp, MlpScratch};
use super::norm::Norm;
use super::piece::{Piece, Tokens};
use super::scale::LayerScale;
use crate::layers::parts::BlockWeights;

/// The frozen parts of a block.
#[derive(Debug)]
pub(super) struct Block {
    attention_norm: Norm,
    attention: Attention,
    attention_scale: Option<LayerScale>,
    mlp_norm: Norm,
    mlp: Mlp,
    mlp_scale: Option<LayerScale>,
}

/// What the forward pass of a piece keeps for the backward pass, for `T` rows before the block
/// and `W` wanted after it.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// What the attention keeps of `T` rows.
    attention: Buffer,
    /// The residual stream between attention and MLP, `[W, D]`.
    middle: Buffer,
    /// What the MLP keeps of `W` rows.
    mlp: Buffer,
}

/// What one piece's forward and backward pass need beside what is saved.
#[derive(Default)]
pub(super) struct Scratch {
    normed: Buffer,
    residual: Buffer,
    dnormed: Buffer,
    dmiddle: Buffer,
    dbranch: Buffer,
    attention: AttentionScratch,
    mlp: MlpScratch,
}

impl Block {
    pub(super) fn new(weights: &BlockWeights) -> Result<Self> {
        let scale = |scale: &Option<Tensor>| scale.as_ref().map(LayerScale::new).transpose();
        Ok(Self {
            attention_norm: Norm::new(&weights.attention_norm)?,
            attention: Attention::new(&weights.attention)?,
            attention_scale: scale(&weights.attention_scale)?,
            mlp_norm: Norm::new(&weights.mlp_norm)?,
            mlp: Mlp::new(&weights.mlp)?,
            mlp_scale: scale(&weights.mlp_scale)?,
        })
    }

    /// Features of a row, D.
    pub(super) fn width(&self) -> usize {
        self.attention_norm.width()
    }

    /// Elements of a branch's own gradient, where it is scaled: `len`, else none.
    fn branch_len(&self, len: usize) -> usize {
        let scaled = self.attention_scale.is_some() || self.mlp_scale.is_some();
        if scaled { len } else { 0 }
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        let attention = self.attention.linears();
        attention.into_iter().chain(self.mlp.linears())
    }

    /// Inputs and outputs of the linears that may be adapted, in the adapter's order.
    pub(super) fn sizes(&self) -> impl Iterator<Item = [usize; 2]> {
        self.linears().flat_map(Linear::sizes)
    }

    /// Memory of the weights.
    pub(super) fn bytes(&self) -> usize {
        let linears: usize = self.linears().map(Linear::bytes).sum();
        let scales = [&self.attention_scale, &self.mlp_scale]
            .into_iter()
            .flatten();
        let scales: usize = scales.map(LayerScale::bytes).sum();
        linears + scales + self.attention_norm.bytes() + self.mlp_norm.bytes()
    }
}

/// A block with its adapters, ready for one pass over samples of some tokens.
pub(super) struct AdaptedBlock<'a> {
    block: &'a Block,
    pub(super) tokens: Tokens,
    attention: AdaptedAttention<'a>,
    mlp: AdaptedMlp<'a>,
}

impl<'a> AdaptedBlock<'a> {
    pub(super) fn new(block: &'a Block, tokens: Tokens, mut pairs: Pairs<'a>, pass: Pass) -> Self {
        Self {
            block,
            tokens,
            attention: block.attention.adapted(tokens, &mut pairs, pass),
            mlp: block.mlp.adapted(&mut pairs, pass),
        }
    }

    /// Features of a row, D.
    pub(super) fn width(&self) -> usize {
        self.block.width()
    }

    /// Length of the adapter vector.
    pub(super) fn parameters(&self) -> usize {
        self.attention.parameters() + self.mlp.parameters()
    }

    /// Of `len` elements before the block, those that are wanted after it.
    pub(super) fn wanted_len(&self, len: usize) -> usize {
        len / self.tokens.all * self.tokens.wanted
    }

    /// Computes what is kept of a piece.
    pub(super) fn forward(&self, piece: Piece<'_>, saved: &mut Saved, scratch: &mut Scratch) {
        let Self { block, .. } = self;
        let Piece { x, first } = piece;
        let Scratch {
            normed, residual, ..
        } = scratch;
        let wanted = self.wanted_len(x.len());

        let rows = slice(normed, x.len());
        block.attention_norm.forward(x, rows);
        let middle = sized(&mut saved.middle, wanted);
        let (input, own) = (Piece { x: rows, first }, &mut saved.attention);
        let residual = self.wanted(x, residual);
        let added = block.attention_scale.is_none().then_some(residual);
        self.attention
            .forward(input, added, own, middle, &mut scratch.attention);
        if let Some(scale) = &block.attention_scale {
            scale.forward(residual, middle);
        }

        let rows = slice(normed, wanted);
        block.mlp_norm.forward(middle, rows);
        self.mlp.hidden(Piece { x: rows, first }, &mut saved.mlp);
    }

    /// Writes the block's output for a piece.
    pub(super) fn output(&self, first: usize, saved: &Saved, y: &mut [f32], scratch: &mut Scratch) {
        let Saved { middle, mlp, .. } = saved;
        let scale = self.block.mlp_scale.as_ref();
        let added = scale.is_none().then_some(middle.as_slice());
        self.mlp.output(mlp, first, added, y, &mut scratch.mlp);
        if let Some(scale) = scale {
            scale.forward(middle, y);
        }
    }

    /// Writes the adapter's gradient and, where there is room for it, that of the piece; uses up
    /// what was saved.
    pub(super) fn backward(
        &self,
        piece: Piece<'_>,
        saved: &mut Saved,
        dy: &[f32],
        grad: &mut [f32],
        dx: Option<&mut [f32]>,
        scratch: &mut Scratch,
    ) {
        let Self { block, .. } = self;
        let Piece { x, first } = piece;
        let Scratch {
            normed,
            dnormed,
            dmiddle,
            dbranch,
            ..
        } = scratch;
        let dbranch = slice(dbranch, block.branch_len(dy.len()));
        let (dattention, dmlp) = grad.split_at_mut(self.attention.parameters());

        let rows = slice(normed, dy.len());
        block.mlp_norm.forward(&saved.middle, rows);
        let (input, drows) = (Piece { x: rows, first }, slice(dnormed, dy.len()));
        let dout = through(block.mlp_scale.as_ref(), dy, dbranch);
        self.mlp
            .backward(input, &mut saved.mlp, dout, dmlp, drows, &mut scratch.mlp);
        let dmiddle = slice(dmiddle, dy.len());
        dmiddle.copy_from_slice(dy);
        block.mlp_norm.backward(&saved.middle, drows, dmiddle);

        let rows = slice(normed, x.len());
        block.attention_norm.forward(x, rows);
        let input = Piece { x: rows, first };
        let (own, scratch) = (&saved.attention, &mut scratch.attention);
        let dout = through(block.attention_scale.as_ref(), dmiddle, dbranch);
        let Some(dx) = dx else {
            return (self.attention).backward(input, own, dout, dattention, None, scratch);
        };
        let drows = slice(dnormed, x.len());
        self.attention
            .backward(input, own, dout, dattention, Some(drows), scratch);
        self.pass_residual(dmiddle, dx);
        block.attention_norm.backward(x, drows, dx);
    }

    /// The rows of `x` whose hidden state is wanted after the block.
    fn wanted<'x>(&self, x: &'x [f32], out: &'x mut Buffer) -> &'x [f32] {
        let Tokens { all, wanted } = self.tokens;
        if wanted == all {
            return x;
        }
        let (width, out) = (self.width(), slice(out, self.wanted_len(x.len())));
        let samples = out.chunks_exact_mut(wanted * width);
        for (out, x) in samples.zip(x.chunks_exact(all * width)) {
            out.copy_from_slice(&x[..wanted * width]);
        }
        out
    }

    /// Writes the gradient that the residual stream carries past the attention.
    fn pass_residual(&self, dmiddle: &[f32], dx: &mut [f32]) {
        let (width, tokens) = (self.width(), self.tokens);
        let samples = dx.chunks_exact_mut(tokens.all * width);
        for (dx, dmiddle) in samples.zip(dmiddle.chunks_exact(tokens.wanted * width)) {
            let (wanted, others) = dx.split_at_mut(dmiddle.len());
            wanted.copy_from_slice(dmiddle);
            others.fill(0.0);
        }
    }
}

/// The gradient of a branch from that of the residual stream which it was added to.
fn through<'d>(scale: Option<&LayerScale>, dy: &'d [f32], dbranch: &'d mut [f32]) -> &'d [f32] {
    match scale {
        Some(scale) => {
            scale.backward(dy, dbranch);
            dbranch
        }
        None => dy,
    }
}
