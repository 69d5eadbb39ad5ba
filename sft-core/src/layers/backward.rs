//! The block's backward pass.

use rayon::prelude::*;

use super::scratch::{Scratch, slice, with_scratch};
use super::{AdaptedBlock, Norm, Piece, Saved};
use crate::kernels::{add, gelu_and_slope, layer_norm_backward, multiply};

/// Where the backward pass has the forward pass's results from.
pub(super) enum Activations<'a, S> {
    /// From the forward pass, piece by piece; they are used up, their memory is left.
    Saved(S),
    /// From the block as the forward pass had it, which computes them again.
    Again(&'a AdaptedBlock<'a>),
}

impl AdaptedBlock<'_> {
    /// The adapter's gradient, and that of `x` if `input_gradient`.
    ///
    /// The pieces' gradients are summed in their order, so the result does not depend on the number
    /// of threads.
    pub(super) fn backward(
        &self,
        x: &[f32],
        activations: Activations<'_, &mut [Saved]>,
        dy: &[f32],
        input_gradient: bool,
    ) -> (Vec<f32>, Option<Vec<f32>>) {
        let len = self.piece_len();
        let mut dx = input_gradient.then(|| vec![0.0; x.len()]);
        let dxs: Vec<_> = match &mut dx {
            Some(dx) => dx.chunks_mut(len).map(Some).collect(),
            None => x.chunks(len).map(|_| None).collect(),
        };
        let sources: Vec<_> = match activations {
            Activations::Saved(saved) => saved.iter_mut().map(Activations::Saved).collect(),
            Activations::Again(block) => x.chunks(len).map(|_| Activations::Again(block)).collect(),
        };
        let dys = dy.par_chunks(self.wanted_len(len));
        let parts = self.pieces(x).zip(sources).zip(dys).zip(dxs);
        let parts = parts.map(|(((piece, source), dy), dx)| {
            let mut grad = vec![0.0; self.parameters()];
            with_scratch(|scratch| match source {
                Activations::Saved(saved) => {
                    self.backward_piece(piece, saved, dy, &mut grad, dx, scratch);
                }
                Activations::Again(block) => {
                    let mut saved = std::mem::take(&mut scratch.saved);
                    block.forward_piece(piece, &mut saved, scratch);
                    self.backward_piece(piece, &mut saved, dy, &mut grad, dx, scratch);
                    scratch.saved = saved;
                }
            });
            grad
        });
        let mut parts = parts.collect::<Vec<_>>().into_iter();
        let mut total = parts.next().unwrap_or_default();
        parts.for_each(|part| add(&mut total, &part));
        (total, dx)
    }

    fn backward_piece(
        &self,
        Piece { x, first }: Piece<'_>,
        saved: &mut Saved,
        dy: &[f32],
        grad: &mut [f32],
        dx: Option<&mut [f32]>,
        scratch: &mut Scratch,
    ) {
        let Self { block, .. } = self;
        let [gq, gk, gv, go, gup, gdown] = self.split_gradient(grad);
        let linear = &mut scratch.linear;

        let hidden = slice(&mut scratch.hidden, saved.mlp.len());
        gelu_and_slope(&mut saved.mlp, hidden);
        self.fc2
            .adapter_gradient(hidden, first, dy, [gdown], linear);
        let dmlp = hidden;
        self.fc2.input_gradient(dy, first, dmlp, linear);
        multiply(dmlp, &saved.mlp);

        let Norm { gain, eps, .. } = &block.norm2;
        let normed = block.norm2.apply(&saved.middle, &mut scratch.normed);
        self.fc1
            .adapter_gradient(normed, first, dmlp, [gup], linear);
        let dnormed = slice(&mut scratch.dnormed, dy.len());
        self.fc1.input_gradient(dmlp, first, dnormed, linear);
        let dmiddle = slice(&mut scratch.dmiddle, dy.len());
        dmiddle.copy_from_slice(dy);
        layer_norm_backward(&saved.middle, gain, *eps, dnormed, dmiddle);

        let dcontext = slice(&mut scratch.dcontext, dy.len());
        self.out.input_gradient(dmiddle, first, dcontext, linear);
        let dqkv = slice(&mut scratch.dqkv, saved.qkv.len());
        let context = slice(&mut scratch.context, dy.len());
        let scores = [&mut scratch.probabilities, &mut scratch.dscores];
        self.attention(x.len())
            .backward(&saved.qkv, dcontext, [dqkv, context], scores);
        self.out
            .adapter_gradient(context, first, dmiddle, [go], linear);

        let Norm { gain, eps, .. } = &block.norm1;
        let normed = block.norm1.apply(x, &mut scratch.normed);
        let grads = [gq, gk, gv];
        self.qkv
            .adapter_gradient(normed, first, dqkv, grads, linear);
        if let Some(dx) = dx {
            let dnormed = slice(&mut scratch.dnormed, x.len());
            self.qkv.input_gradient(dqkv, first, dnormed, linear);
            self.pass_residual(dmiddle, dx);
            layer_norm_backward(x, gain, *eps, dnormed, dx);
        }
    }

    /// Writes the gradient that the residual stream carries past the attention.
    fn pass_residual(&self, dmiddle: &[f32], dx: &mut [f32]) {
        let (width, tokens) = (self.block.width(), self.tokens);
        let samples = dx.chunks_exact_mut(tokens.all * width);
        for (dx, dmiddle) in samples.zip(dmiddle.chunks_exact(tokens.wanted * width)) {
            let (wanted, others) = dx.split_at_mut(dmiddle.len());
            wanted.copy_from_slice(dmiddle);
            others.fill(0.0);
        }
    }
}
