//! Multi-head attention over `[T, 3D]` queries, keys and values, one sample and head at a time.
//!
//! The probabilities are recomputed in the backward pass, so no `[B, heads, S, S]` tensor exists.

use super::scratch::{Buffer, slice};
use crate::kernels::{Mat, MatMut, matmul, softmax_rows, vectorized};

/// Sizes of one attention call.
#[derive(Clone, Copy)]
pub(super) struct Attention {
    pub(super) samples: usize,
    pub(super) tokens: usize,
    pub(super) width: usize,
    pub(super) heads: usize,
}

/// The queries, keys and values of one sample and head, each `[S, D / heads]`.
struct Head<'a> {
    q: Mat<'a>,
    k: Mat<'a>,
    v: Mat<'a>,
}

impl Attention {
    fn head_width(&self) -> usize {
        self.width / self.heads
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_width() as f32).sqrt()
    }

    /// Where a sample's head starts in a `[T, stride]` buffer.
    fn start(&self, sample: usize, head: usize, stride: usize) -> usize {
        sample * self.tokens * stride + head * self.head_width()
    }

    fn each_head(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let heads = self.heads;
        (0..self.samples * heads).map(move |i| (i / heads, i % heads))
    }

    fn head<'a>(&self, qkv: &'a [f32], sample: usize, head: usize) -> Head<'a> {
        let stride = 3 * self.width;
        let start = self.start(sample, head, stride);
        let part = |i: usize| {
            let data = &qkv[start + i * self.width..];
            Mat::strided(data, self.tokens, self.head_width(), stride)
        };
        Head {
            q: part(0),
            k: part(1),
            v: part(2),
        }
    }

    fn probabilities(&self, head: &Head<'_>, out: &mut [f32]) {
        let s = self.tokens;
        matmul(MatMut::new(out, s, s), head.q, head.k.t(), 0.0, 1.0);
        softmax_rows(out, s, self.scale());
    }

    /// `softmax(q k^T / sqrt(d)) v` of every head, side by side, `[T, D]`.
    pub(super) fn forward(&self, qkv: &[f32], context: &mut [f32], p: &mut Buffer) {
        let (s, d) = (self.tokens, self.head_width());
        let p = slice(p, s * s);
        for (sample, index) in self.each_head() {
            let head = self.head(qkv, sample, index);
            self.probabilities(&head, p);
            let out = &mut context[self.start(sample, index, self.width)..];
            matmul(
                MatMut::strided(out, s, d, self.width),
                Mat::new(p, s, s),
                head.v,
                0.0,
                1.0,
            );
        }
    }

    /// Writes the gradient of `qkv` for the gradient of the context.
    pub(super) fn backward(
        &self,
        qkv: &[f32],
        dcontext: &[f32],
        dqkv: &mut [f32],
        [p, ds]: [&mut Buffer; 2],
    ) {
        let (s, d, width) = (self.tokens, self.head_width(), self.width);
        let (p, ds) = (slice(p, s * s), slice(ds, s * s));
        for (sample, index) in self.each_head() {
            let head = self.head(qkv, sample, index);
            let dc = &dcontext[self.start(sample, index, width)..];
            let dc = Mat::strided(dc, s, d, width);
            self.probabilities(&head, p);
            matmul(MatMut::new(ds, s, s), dc, head.v.t(), 0.0, 1.0);
            let start = self.start(sample, index, 3 * width);
            let mut part = |i: usize, lhs: Mat<'_>, rhs: Mat<'_>, scale: f32| {
                let out = &mut dqkv[start + i * width..];
                matmul(MatMut::strided(out, s, d, 3 * width), lhs, rhs, 0.0, scale);
            };
            part(2, Mat::new(p, s, s).t(), dc, 1.0);
            softmax_backward(p, ds, s);
            part(0, Mat::new(ds, s, s), head.k, self.scale());
            part(1, Mat::new(ds, s, s).t(), head.q, self.scale());
        }
    }
}

/// `dp = p * (dp - sum(p * dp))` for each row of `width` elements, in place.
fn softmax_backward(p: &[f32], dp: &mut [f32], width: usize) {
    vectorized(|| {
        for (p, dp) in p.chunks_exact(width).zip(dp.chunks_exact_mut(width)) {
            let dot: f32 = p.iter().zip(dp.iter()).map(|(p, dp)| p * dp).sum();
            for (dp, p) in dp.iter_mut().zip(p) {
                *dp = p * (*dp - dot);
            }
        }
    });
}
