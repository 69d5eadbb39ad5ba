//! Scaled dot-product attention over queries, keys and values side by side, one sample and head at a
//! time.
//!
//! Probabilities and context are recomputed in the backward pass: no `[B, heads, S, S]` tensor exists.

use super::buffer::{Buffer, slice};
use crate::kernels::{Mat, MatMut, kernels, matmul, softmax_rows, sum};

/// Sizes of one attention call. A row is the queries of all heads, then the keys, then the values;
/// `heads / kv_heads` heads of queries that follow each other share keys and values.
#[derive(Clone, Copy)]
pub(super) struct DotProduct {
    pub(super) samples: usize,
    pub(super) tokens: usize,
    /// The first tokens of each sample, whose context is wanted.
    pub(super) queries: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_width: usize,
}

/// The queries `[Q, d]`, keys and values, each `[S, d]`, of one sample and head.
struct Head<'a> {
    q: Mat<'a>,
    k: Mat<'a>,
    v: Mat<'a>,
}

impl DotProduct {
    fn scale(&self) -> f32 {
        1.0 / (self.head_width as f32).sqrt()
    }

    /// Features of a row of queries, keys and values.
    fn stride(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_width
    }

    /// Features of a row of the context.
    fn width(&self) -> usize {
        self.heads * self.head_width
    }

    /// Where a sample's queries, keys and values of a head start.
    fn starts(&self, sample: usize, head: usize) -> [usize; 3] {
        let kv_head = head / (self.heads / self.kv_heads);
        let columns = [
            head,
            self.heads + kv_head,
            self.heads + self.kv_heads + kv_head,
        ];
        let row = sample * self.tokens * self.stride();
        columns.map(|column| row + column * self.head_width)
    }

    /// Where a sample's head starts in the context.
    fn start_of_context(&self, sample: usize, head: usize) -> usize {
        sample * self.queries * self.width() + head * self.head_width
    }

    fn each_head(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let heads = self.heads;
        (0..self.samples * heads).map(move |i| (i / heads, i % heads))
    }

    fn head<'a>(&self, qkv: &'a [f32], sample: usize, head: usize) -> Head<'a> {
        let [q, k, v] = self.starts(sample, head);
        let part = |start: usize, rows: usize| {
            Mat::strided(&qkv[start..], rows, self.head_width, self.stride())
        };
        Head {
            q: part(q, self.queries),
            k: part(k, self.tokens),
            v: part(v, self.tokens),
        }
    }

    fn probabilities(&self, head: &Head<'_>, out: &mut [f32]) {
        let (n, s) = (self.queries, self.tokens);
        matmul(MatMut::new(out, n, s), head.q, head.k.t(), 0.0, 1.0);
        softmax_rows(out, s, self.scale());
    }

    /// `softmax(q k^T / sqrt(d)) v` of every head, side by side, `[samples * Q, heads * d]`.
    pub(super) fn forward(&self, qkv: &[f32], context: &mut [f32], p: &mut Buffer) {
        let p = slice(p, self.queries * self.tokens);
        for (sample, index) in self.each_head() {
            let head = self.head(qkv, sample, index);
            self.probabilities(&head, p);
            let start = self.start_of_context(sample, index);
            self.context(&head, p, &mut context[start..]);
        }
    }

    fn context(&self, head: &Head<'_>, p: &[f32], out: &mut [f32]) {
        let (n, s) = (self.queries, self.tokens);
        let out = MatMut::strided(out, n, self.head_width, self.width());
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
        let (n, s, d) = (self.queries, self.tokens, self.head_width);
        let (p, ds) = (slice(p, n * s), slice(ds, n * s));
        if n < s {
            dqkv.fill(0.0);
        }
        for (sample, index) in self.each_head() {
            let head = self.head(qkv, sample, index);
            let start = self.start_of_context(sample, index);
            let dc = Mat::strided(&dcontext[start..], n, d, self.width());
            self.probabilities(&head, p);
            self.context(&head, p, &mut context[start..]);
            matmul(MatMut::new(ds, n, s), dc, head.v.t(), 0.0, 1.0);
            // Keys and values gather the gradients of all heads that share them.
            let shared = !index.is_multiple_of(self.heads / self.kv_heads);
            let keep = if shared { 1.0 } else { 0.0 };
            let [q, k, v] = self.starts(sample, index);
            let mut part = |start: usize, lhs: Mat<'_>, rhs: Mat<'_>, keep: f32, scale: f32| {
                let out = &mut dqkv[start..];
                let out = MatMut::strided(out, lhs.rows(), d, self.stride());
                matmul(out, lhs, rhs, keep, scale);
            };
            part(v, Mat::new(p, n, s).t(), dc, keep, 1.0);
            softmax_backward(p, ds, s);
            part(q, Mat::new(ds, n, s), head.k, 0.0, self.scale());
            part(k, Mat::new(ds, n, s).t(), head.q, keep, self.scale());
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
