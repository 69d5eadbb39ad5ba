//! The block's backward pass.

use rayon::prelude::*;

use super::scratch::{Scratch, slice, with_scratch};
use super::{AdaptedBlock, Norm, Piece, Saved};
use crate::kernels::{add, gelu_with_slope, layer_norm_backward, multiply};

impl AdaptedBlock<'_> {
    /// The adapter's gradient, and that of `x` if `input_gradient`.
    ///
    /// Without `saved` each piece's forward pass is computed again. The pieces' gradients are
    /// summed in their order, so the result does not depend on the number of threads.
    pub(super) fn backward(
        &self,
        x: &[f32],
        saved: Option<&[Saved]>,
        dy: &[f32],
        input_gradient: bool,
    ) -> (Vec<f32>, Option<Vec<f32>>) {
        let len = self.piece_len();
        let mut dx = input_gradient.then(|| vec![0.0; x.len()]);
        let dxs: Vec<_> = match &mut dx {
            Some(dx) => dx.chunks_mut(len).map(Some).collect(),
            None => x.chunks(len).map(|_| None).collect(),
        };
        let dys = dy.par_chunks(self.wanted_len(len));
        let parts = self.pieces(x).zip(dys).zip(dxs).enumerate();
        let parts = parts.map(|(i, ((piece, dy), dx))| {
            let mut grad = vec![0.0; self.parameters()];
            with_scratch(|scratch| {
                let mut again = std::mem::take(&mut scratch.saved);
                let saved = saved.map_or_else(
                    || {
                        self.forward_piece(piece, &mut again, scratch);
                        &again
                    },
                    |saved| &saved[i],
                );
                self.backward_piece(piece, saved, dy, &mut grad, dx, scratch);
                scratch.saved = again;
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
        saved: &Saved,
        dy: &[f32],
        grad: &mut [f32],
        dx: Option<&mut [f32]>,
        scratch: &mut Scratch,
    ) {
        let Self { block, .. } = self;
        let [gq, gk, gv, go, gup, gdown] = self.split_gradient(grad);
        let linear = &mut scratch.linear;

        let hidden = slice(&mut scratch.hidden, saved.mlp.len());
        let slope = slice(&mut scratch.slope, saved.mlp.len());
        gelu_with_slope(&saved.mlp, hidden, slope);
        let dmlp = slice(&mut scratch.dmlp, saved.mlp.len());
        self.fc2
            .backward(hidden, first, dy, [gdown], Some(dmlp), linear);
        multiply(dmlp, slope);

        let Norm { gain, eps, .. } = &block.norm2;
        let normed = block.norm2.apply(&saved.middle, &mut scratch.normed);
        let dnormed = slice(&mut scratch.dnormed, dy.len());
        self.fc1
            .backward(normed, first, dmlp, [gup], Some(dnormed), linear);
        let dmiddle = slice(&mut scratch.dmiddle, dy.len());
        dmiddle.copy_from_slice(dy);
        layer_norm_backward(&saved.middle, gain, *eps, dnormed, dmiddle);

        let dcontext = slice(&mut scratch.dcontext, dy.len());
        self.out
            .backward(&saved.context, first, dmiddle, [go], Some(dcontext), linear);
        let dqkv = slice(&mut scratch.dqkv, saved.qkv.len());
        let scores = [&mut scratch.probabilities, &mut scratch.dscores];
        self.attention(x.len())
            .backward(&saved.qkv, dcontext, dqkv, scores);

        let Norm { gain, eps, .. } = &block.norm1;
        let normed = block.norm1.apply(x, &mut scratch.normed);
        let grads = [gq, gk, gv];
        let Some(dx) = dx else {
            self.qkv.backward(normed, first, dqkv, grads, None, linear);
            return;
        };
        let dnormed = slice(&mut scratch.dnormed, x.len());
        self.qkv
            .backward(normed, first, dqkv, grads, Some(dnormed), linear);
        self.pass_residual(dmiddle, dx);
        layer_norm_backward(x, gain, *eps, dnormed, dx);
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
