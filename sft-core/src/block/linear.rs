//! Frozen linear layers with LoRA adapters: `y = x (W + s B A)^T + b`.

use std::borrow::Cow;

use rayon::prelude::*;

use super::Linear;
use super::scratch::{Buffer, slice};
use crate::adapter::Dropout;
use crate::kernels::{Mat, MatMut, add, matmul};

/// One linear layer's part of an adapter vector: `A` `[r, inputs]`, then `B` `[outputs, r]`;
/// of rank 0 where the layer has none.
#[derive(Clone, Copy)]
pub(super) struct LoraPair<'a> {
    pub(super) a: &'a [f32],
    pub(super) b: &'a [f32],
    pub(super) rank: usize,
    pub(super) scale: f32,
    /// The mask on the input of `A`.
    pub(super) dropout: Option<Dropout>,
}

/// The same part of the adapter's gradient.
pub(super) struct LoraPairGrad<'a> {
    pub(super) a: &'a mut [f32],
    pub(super) b: &'a mut [f32],
}

/// Layers side by side on one input, each with its adapter, made ready for one pass.
///
/// Adapters are added into a copy of the weight: the two skinny products per
/// token that this saves cost more than the copy as soon as there are more
/// tokens than about half the width. A masked adapter cannot be added.
pub(super) struct Adapted<'a, const N: usize> {
    /// `[N * outputs, inputs]`
    weight: Cow<'a, [f32]>,
    bias: &'a [f32],
    pairs: [LoraPair<'a>; N],
    inputs: usize,
}

/// Buffers of [`Adapted::backward`].
#[derive(Default)]
pub(super) struct LinearScratch {
    masked: Buffer,
    low: Buffer,
    u: Buffer,
    du: Buffer,
}

/// Rows of a weight that are merged at a time.
const MERGE_ROWS: usize = 192;

impl<'a, const N: usize> Adapted<'a, N> {
    pub(super) fn new(linear: &'a Linear, pairs: [LoraPair<'a>; N]) -> Self {
        let inputs = linear.weight.len() / linear.bias.len();
        let merged = pairs.iter().any(|p| p.rank > 0 && p.dropout.is_none());
        let mut weight = Cow::Borrowed(linear.weight.as_slice());
        if merged {
            let part = weight.len() / N;
            for (weight, pair) in weight.to_mut().chunks_exact_mut(part).zip(&pairs) {
                merge(weight, pair, inputs);
            }
        }
        Self {
            weight,
            bias: &linear.bias,
            pairs,
            inputs,
        }
    }

    fn outputs(&self) -> usize {
        self.bias.len()
    }

    fn weight(&self) -> Mat<'_> {
        Mat::new(&self.weight, self.outputs(), self.inputs)
    }

    /// Each pair with the columns of the output that it adapts.
    fn parts(&self) -> impl Iterator<Item = (usize, &LoraPair<'a>)> {
        let width = self.outputs() / N;
        (self.pairs.iter().enumerate()).map(move |(i, pair)| (i * width, pair))
    }

    /// Writes `y` for the rows of `x`, of which the first is number `first` of the batch, added
    /// to `residual` where there is one.
    pub(super) fn forward(&self, x: &[f32], first: usize, residual: Option<&[f32]>, y: &mut [f32]) {
        let (inputs, outputs) = (self.inputs, self.outputs());
        let rows = x.len() / inputs;
        for row in y.chunks_exact_mut(outputs) {
            row.copy_from_slice(self.bias);
        }
        if let Some(residual) = residual {
            add(y, residual);
        }
        let x_rows = Mat::new(x, rows, inputs);
        matmul(
            MatMut::new(y, rows, outputs),
            x_rows,
            self.weight().t(),
            1.0,
            1.0,
        );
        let width = outputs / N;
        for (start, pair) in self.parts() {
            let Some(dropout) = pair.dropout.filter(|_| pair.rank > 0) else {
                continue;
            };
            let mut masked = x.to_vec();
            dropout.skip(first * inputs).apply(&mut masked);
            let mut u = Buffer::new();
            let u = pair.low_rank(&masked, &mut u);
            let b = Mat::new(pair.b, width, pair.rank).t();
            let y = MatMut::strided(&mut y[start..], rows, width, outputs);
            matmul(y, u, b, 1.0, pair.scale);
        }
    }

    /// Writes the adapters' gradients and, where `dx` is given, the input's.
    pub(super) fn backward(
        &self,
        x: &[f32],
        first: usize,
        dy: &[f32],
        grads: [LoraPairGrad<'_>; N],
        mut dx: Option<&mut [f32]>,
        scratch: &mut LinearScratch,
    ) {
        let (inputs, outputs) = (self.inputs, self.outputs());
        let rows = x.len() / inputs;
        if let Some(dx) = dx.as_deref_mut() {
            let dy = Mat::new(dy, rows, outputs);
            matmul(MatMut::new(dx, rows, inputs), dy, self.weight(), 0.0, 1.0);
        }
        let width = outputs / N;
        for ((start, pair), grad) in self.parts().zip(grads) {
            if pair.rank > 0 {
                let dy = Mat::strided(&dy[start..], rows, width, outputs);
                pair.backward(x, first, dy, grad, dx.as_deref_mut(), scratch);
            }
        }
    }
}

/// `weight += s B A`.
fn merge(weight: &mut [f32], pair: &LoraPair<'_>, inputs: usize) {
    let rank = pair.rank;
    if rank == 0 || pair.dropout.is_some() {
        return;
    }
    let rows = weight.par_chunks_mut(MERGE_ROWS * inputs);
    rows.zip(pair.b.par_chunks(MERGE_ROWS * rank))
        .for_each(|(weight, b)| {
            let rows = b.len() / rank;
            let (a, b) = (Mat::new(pair.a, rank, inputs), Mat::new(b, rows, rank));
            matmul(MatMut::new(weight, rows, inputs), b, a, 1.0, pair.scale);
        });
}

impl LoraPair<'_> {
    /// `x A^T`.
    fn low_rank<'b>(&self, x: &[f32], out: &'b mut Buffer) -> Mat<'b> {
        let inputs = self.a.len() / self.rank;
        let rows = x.len() / inputs;
        let out = slice(out, rows * self.rank);
        let a = Mat::new(self.a, self.rank, inputs).t();
        matmul(
            MatMut::new(out, rows, self.rank),
            Mat::new(x, rows, inputs),
            a,
            0.0,
            1.0,
        );
        Mat::new(out, rows, self.rank)
    }

    /// Writes the gradient; where dropout kept the adapter out of the weight, adds its part of `dx`.
    fn backward(
        &self,
        x: &[f32],
        first: usize,
        dy: Mat<'_>,
        LoraPairGrad { a: da, b: db }: LoraPairGrad<'_>,
        dx: Option<&mut [f32]>,
        scratch: &mut LinearScratch,
    ) {
        let (rank, inputs, outputs) = (
            self.rank,
            self.a.len() / self.rank,
            self.b.len() / self.rank,
        );
        let rows = x.len() / inputs;
        let mask = self.dropout.map(|dropout| dropout.skip(first * inputs));
        let x = match mask {
            Some(mask) => {
                let masked = slice(&mut scratch.masked, x.len());
                masked.copy_from_slice(x);
                mask.apply(masked);
                masked
            }
            None => x,
        };
        let u = self.low_rank(x, &mut scratch.u);
        matmul(MatMut::new(db, outputs, rank), dy.t(), u, 0.0, self.scale);
        let du = slice(&mut scratch.du, rows * rank);
        let b = Mat::new(self.b, outputs, rank);
        matmul(MatMut::new(du, rows, rank), dy, b, 0.0, self.scale);
        let du = Mat::new(du, rows, rank);
        let x = Mat::new(x, rows, inputs);
        matmul(MatMut::new(da, rank, inputs), du.t(), x, 0.0, 1.0);
        if let (Some(mask), Some(dx)) = (mask, dx) {
            let low = slice(&mut scratch.low, dx.len());
            let a = Mat::new(self.a, rank, inputs);
            matmul(MatMut::new(low, rows, inputs), du, a, 0.0, 1.0);
            mask.apply(low);
            add(dx, low);
        }
    }
}
