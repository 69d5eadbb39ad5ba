//! The block's forward pass.

use rayon::prelude::*;

use super::scratch::{Scratch, slice, with_scratch};
use super::{AdaptedBlock, Piece, Saved};
use crate::kernels::gelu;

impl AdaptedBlock<'_> {
    /// The block's output for `x` `[T, D]`, and what backward needs where it is to be kept.
    pub(super) fn forward(&self, x: &[f32], keep: bool) -> (Vec<f32>, Option<Vec<Saved>>) {
        let mut y = vec![0.0; x.len()];
        let outputs = y.par_chunks_mut(self.piece_len());
        let saved = self.pieces(x).zip(outputs).map(|(piece, y)| {
            with_scratch(|scratch| {
                let mut saved = Saved::default();
                self.forward_piece(piece, &mut saved, scratch);
                self.output(piece, &saved, y, scratch);
                keep.then_some(saved)
            })
        });
        let saved = saved.collect();
        (y, saved)
    }

    /// Computes what is kept of a piece.
    pub(super) fn forward_piece(
        &self,
        Piece { x, first }: Piece<'_>,
        saved: &mut Saved,
        scratch: &mut Scratch,
    ) {
        let Self { block, .. } = self;
        let normed = block.norm1.apply(x, &mut scratch.normed);
        let qkv = slice(&mut saved.qkv, 3 * x.len());
        self.qkv.forward(normed, first, None, qkv);
        let context = slice(&mut saved.context, x.len());
        let attention = self.attention(x.len());
        attention.forward(qkv, context, &mut scratch.probabilities);
        let middle = slice(&mut saved.middle, x.len());
        self.out.forward(context, first, Some(x), middle);
        let normed = block.norm2.apply(middle, &mut scratch.normed);
        let mlp = slice(
            &mut saved.mlp,
            x.len() / block.width() * block.fc1.bias.len(),
        );
        self.fc1.forward(normed, first, None, mlp);
    }

    /// Writes the block's output for a piece.
    fn output(&self, piece: Piece<'_>, saved: &Saved, y: &mut [f32], scratch: &mut Scratch) {
        let hidden = slice(&mut scratch.hidden, saved.mlp.len());
        gelu(&saved.mlp, hidden);
        self.fc2
            .forward(hidden, piece.first, Some(&saved.middle), y);
    }
}
