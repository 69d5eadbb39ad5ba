//! Scaled dot-product attention over queries, keys and values side by side, one sample, head and tile
//! of queries at a time.
//!
//! A tile meets the keys that any of its queries sees and no others. Probabilities and context are
//! recomputed in the backward pass: no `[B, heads, S, S]` tensor exists.

use super::buffer::{Buffer, slice};
use super::piece::Tokens;
use super::tile::Tile;
use crate::kernels::{Mat, MatMut, matmul, softmax_backward, softmax_rows};
use crate::layers::parts::Mask;

/// Sizes of an attention. A row is the queries of all heads, then the keys, then the values;
/// `heads / kv_heads` heads of queries that follow each other share keys and values.
#[derive(Clone, Copy, Debug)]
pub(super) struct DotProduct {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_width: usize,
    /// The factor of the scores.
    pub(super) scale: f32,
    pub(super) mask: Mask,
}

impl DotProduct {
    /// Features of a row of queries, keys and values.
    pub(super) fn stride(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_width
    }

    /// Features of a row of the context.
    pub(super) fn width(&self) -> usize {
        self.heads * self.head_width
    }

    /// Some rows of one head.
    fn head<'a>(&self, rows: &'a [f32], start: usize, count: usize) -> Mat<'a> {
        Mat::strided(&rows[start..], count, self.head_width, self.stride())
    }

    fn probabilities(&self, tile: &Tile, qkv: &[f32], out: &mut [f32]) {
        let (n, s) = tile.sizes();
        let (q, k) = (self.head(qkv, tile.q, n), self.head(qkv, tile.k, s));
        matmul(MatMut::new(out, n, s), q, k.t(), 0.0, 1.0);
        if self.mask == Mask::None {
            return softmax_rows(out, s, self.scale);
        }
        for (row, position) in out.chunks_exact_mut(s).zip(tile.queries.clone()) {
            let visible = self.mask.visible(position, tile.tokens);
            let (before, rest) = row.split_at_mut(visible.start - tile.keys.start);
            let (seen, after) = rest.split_at_mut(visible.len());
            before.fill(0.0);
            after.fill(0.0);
            softmax_rows(seen, visible.len(), self.scale);
        }
    }

    fn context(&self, tile: &Tile, qkv: &[f32], p: &[f32], out: &mut [f32]) {
        let (n, s) = tile.sizes();
        let out = MatMut::strided(&mut out[tile.context..], n, self.head_width, self.width());
        matmul(out, Mat::new(p, n, s), self.head(qkv, tile.v, s), 0.0, 1.0);
    }

    /// `softmax(scale q k^T) v` of every head over what each query sees, side by side, `[W, heads * d]`.
    pub(super) fn forward(
        &self,
        samples: &[Tokens],
        qkv: &[f32],
        context: &mut [f32],
        p: &mut Buffer,
    ) {
        for tile in self.tiles(samples) {
            let p = slice(p, tile.scores());
            self.probabilities(&tile, qkv, p);
            self.context(&tile, qkv, p, context);
        }
    }

    /// Writes the gradient of `qkv` for the gradient of the context, and the context once more.
    pub(super) fn backward(
        &self,
        samples: &[Tokens],
        qkv: &[f32],
        dcontext: &[f32],
        [dqkv, context]: [&mut [f32]; 2],
        [p, ds]: [&mut Buffer; 2],
    ) {
        let whole = samples.iter().all(|tokens| tokens.wanted == tokens.all);
        if self.mask != Mask::None || !whole {
            dqkv.fill(0.0);
        }
        for tile in self.tiles(samples) {
            let (p, ds) = (slice(p, tile.scores()), slice(ds, tile.scores()));
            self.probabilities(&tile, qkv, p);
            self.context(&tile, qkv, p, context);
            self.tile_gradient(&tile, qkv, dcontext, dqkv, [p, ds]);
        }
    }

    fn tile_gradient(
        &self,
        tile: &Tile,
        qkv: &[f32],
        dcontext: &[f32],
        dqkv: &mut [f32],
        [p, ds]: [&mut [f32]; 2],
    ) {
        let ((n, s), d) = (tile.sizes(), self.head_width);
        let [q, k, v] =
            [(tile.q, n), (tile.k, s), (tile.v, s)].map(|(at, n)| self.head(qkv, at, n));
        let dc = Mat::strided(&dcontext[tile.context..], n, d, self.width());
        matmul(MatMut::new(ds, n, s), dc, v.t(), 0.0, 1.0);
        // Keys and values gather the gradients of all heads and queries that share them; under a mask
        // the first tile does not meet them all, and they are zero before it.
        let keep = if tile.first && self.mask == Mask::None {
            0.0
        } else {
            1.0
        };
        let mut part = |start: usize, lhs: Mat<'_>, rhs: Mat<'_>, keep: f32, scale: f32| {
            let out = MatMut::strided(&mut dqkv[start..], lhs.rows(), d, self.stride());
            matmul(out, lhs, rhs, keep, scale);
        };
        part(tile.v, Mat::new(p, n, s).t(), dc, keep, 1.0);
        softmax_backward(p, ds, s);
        part(tile.q, Mat::new(ds, n, s), k, 0.0, self.scale);
        part(tile.k, Mat::new(ds, n, s).t(), q, keep, self.scale);
    }
}
