//! Multi-head attention over `[T, 3D]` queries, keys and values, one sample and head at a time.
//!
//! Probabilities and context are recomputed in the backward pass: no `[B, heads, S, S]` tensor exists.

use super::scratch::{Buffer, slice};
use crate::kernels::{Mat, MatMut, kernels, matmul, softmax_rows, sum};

/// Sizes of one attention call.
#[derive(Clone, Copy)]
pub(super) struct Attention {
    pub(super) samples: usize,
    pub(super) tokens: usize,
    /// The first tokens of each sample, whose context is wanted.
    pub(super) queries: usize,
    pub(super) width: usize,
    pub(super) heads: usize,
}

/// The queries `[Q, D / heads]`, keys and values, each `[S, D / heads]`, of one sample and head.
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

    /// Where a sample's head starts in `qkv`.
    fn start(&self, sample: usize, head: usize) -> usize {
        sample * self.tokens * 3 * self.width + head * self.head_width()
    }

    /// Where a sample's head starts in the context.
    fn start_of_context(&self, sample: usize, head: usize) -> usize {
        sample * self.queries * self.width + head * self.head_width()
    }

    fn each_head(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let heads = self.heads;
        (0..self.samples * heads).map(move |i| (i / heads, i % heads))
    }

    fn head<'a>(&self, qkv: &'a [f32], sample: usize, head: usize) -> Head<'a> {
        let stride = 3 * self.width;
        let start = self.start(sample, head);
        let part = |i: usize, rows: usize| {
            let data = &qkv[start + i * self.width..];
            Mat::strided(data, rows, self.head_width(), stride)
        };
        Head {
            q: part(0, self.queries),
            k: part(1, self.tokens),
            v: part(2, self.tokens),
        }
    }

    fn probabilities(&self, head: &Head<'_>, out: &mut [f32]) {
        let (n, s) = (self.queries, self.tokens);
        matmul(MatMut::new(out, n, s), head.q, head.k.t(), 0.0, 1.0);
        softmax_rows(out, s, self.scale());
    }

    /// `softmax(q k^T / sqrt(d)) v` of every head, side by side, `[samples * Q, D]`.
    pub(super) fn forward(&self, qkv: &[f32], context: &mut [f32], p: &mut Buffer) {
        let p = slice(p, self.queries * self.tokens);
        for (sample, index) in self.each_head() {
            let head = self.head(qkv, sample, index);
            self.probabilities(&head, p);
            self.context(
                &head,
                p,
                &mut context[self.start_of_context(sample, index)..],
            );
        }
    }

    fn context(&self, head: &Head<'_>, p: &[f32], out: &mut [f32]) {
        let (n, s, d) = (self.queries, self.tokens, self.head_width());
        let out = MatMut::strided(out, n, d, self.width);
        matmul(out, Mat::new(p, n, s), head.v, 0.0, 1.0);
    }

    /// Writes the gradient of `qkv` for the gradient of the context, and the context once more.
    pub(super) fn backward(
        &self,
        qkv: &[f32],
        dcontext: &[f32],
        [dqkv, context]: [&mut [f32]; 2],
        [p, ds]: [&mut Buffer; 2],
    ) {
        let (n, s, d, width) = (self.queries, self.tokens, self.head_width(), self.width);
        let (p, ds) = (slice(p, n * s), slice(ds, n * s));
        if n < s {
            dqkv.fill(0.0);
        }
        for (sample, index) in self.each_head() {
            let head = self.head(qkv, sample, index);
            let start = self.start_of_context(sample, index);
            let dc = Mat::strided(&dcontext[start..], n, d, width);
            self.probabilities(&head, p);
            self.context(&head, p, &mut context[start..]);
            matmul(MatMut::new(ds, n, s), dc, head.v.t(), 0.0, 1.0);
            let start = self.start(sample, index);
            let mut part = |i: usize, lhs: Mat<'_>, rhs: Mat<'_>, scale: f32| {
                let out = &mut dqkv[start + i * width..];
                let out = MatMut::strided(out, lhs.rows(), d, 3 * width);
                matmul(out, lhs, rhs, 0.0, scale);
            };
            part(2, Mat::new(p, n, s).t(), dc, 1.0);
            softmax_backward(p, ds, s);
            part(0, Mat::new(ds, n, s), head.k, self.scale());
            part(1, Mat::new(ds, n, s).t(), head.q, self.scale());
        }
    }
}

kernels! {
    /// `dp = p * (dp - sum(p * dp))` for each row of `width` elements, in place.
    fn softmax_backward(p: &[f32], dp: &mut [f32], width: usize) {
        for (p, dp) in p.chunks_exact(width).zip(dp.chunks_exact_mut(width)) {
            let dot = sum(width, |i| p[i] * dp[i]);
            for (dp, p) in dp.iter_mut().zip(p) {
                *dp = p * (*dp - dot);
            }
        }
    }
}
