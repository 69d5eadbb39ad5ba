//! The block's forward pass.

use rayon::prelude::*;

use super::scratch::{Scratch, sized, slice, with_scratch};
use super::{AdaptedBlock, Piece, Saved};
use crate::kernels::gelu;

impl AdaptedBlock<'_> {
    /// The block's output `[W, D]` for `x` `[T, D]`, and what backward needs where it is to be kept:
    /// in the memory that `keep` returns, one call for each piece.
    pub(super) fn forward(
        &self,
        x: &[f32],
        keep: Option<&(impl Fn() -> Saved + Sync)>,
    ) -> (Vec<f32>, Option<Vec<Saved>>) {
        let mut y = vec![0.0; self.wanted_len(x.len())];
        let outputs = y.par_chunks_mut(self.wanted_len(self.piece_len()));
        let saved = self.pieces(x).zip(outputs).map(|(piece, y)| {
            with_scratch(|scratch| {
                let mut saved =
                    keep.map_or_else(|| std::mem::take(&mut scratch.saved), |new| new());
                self.forward_piece(piece, &mut saved, scratch);
                self.output(piece, &saved, y, scratch);
                if keep.is_some() {
                    return saved;
                }
                scratch.saved = saved;
                Saved::default()
            })
        });
        let saved = saved.collect();
        (y, keep.map(|_| saved))
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
        let qkv = sized(&mut saved.qkv, 3 * x.len());
        self.qkv.forward(normed, first, None, qkv);
        let wanted = self.wanted_len(x.len());
        let context = slice(&mut scratch.context, wanted);
        let attention = self.attention(x.len());
        attention.forward(qkv, context, &mut scratch.probabilities);
        let middle = sized(&mut saved.middle, wanted);
        let residual = self.wanted(x, &mut scratch.residual);
        self.out.forward(context, first, Some(residual), middle);
        let normed = block.norm2.apply(middle, &mut scratch.normed);
        let mlp = sized(
            &mut saved.mlp,
            wanted / block.width() * block.fc1.bias.len(),
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
