//! Frozen linear layers with LoRA adapters: `y = x (W + s B A)^T + b`.

use rayon::prelude::*;

use super::Linear;
use super::scratch::{Buffer, sized, slice};
use crate::adapter::Dropout;
use crate::kernels::{Mat, MatMut, add, matmul, transpose_columns};

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

/// How a pass wants the weight of a linear layer. `gemm` packs it anew for every piece: with 400 rows
/// of ViT-B, a product with a transposed copy was measured to be 6 to 33 % faster than one with the
/// transpose of the weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pass {
    /// Many products `x W^T`: a transposed copy.
    Forward,
    /// Many products `dy W`: as it is.
    Backward,
}

/// Layers side by side on one input, each with its adapter, made ready for one pass.
///
/// Adapters are added into a copy of the weight: the two skinny products per
/// token that this saves cost more than the copy as soon as there are more
/// tokens than about half the width. A masked adapter cannot be added.
pub(super) struct Adapted<'a, const N: usize> {
    linear: &'a Linear,
    pairs: [LoraPair<'a>; N],
    pass: Pass,
    /// The weight as the pass wants it, with the adapters: `[inputs, N * outputs]` or
    /// `[N * outputs, inputs]`; empty where the frozen one is that.
    copy: Buffer,
}

/// Buffers of the gradients.
#[derive(Default)]
pub(super) struct LinearScratch {
    masked: Buffer,
    low: Buffer,
    u: Buffer,
    du: Buffer,
    db_t: Buffer,
}

/// Rows of a weight's copy that are made at a time.
const COPIED_ROWS: usize = 192;

impl<'a, const N: usize> Adapted<'a, N> {
    /// Makes the copy of the weight in `buffer`.
    pub(super) fn new(
        linear: &'a Linear,
        pairs: [LoraPair<'a>; N],
        pass: Pass,
        buffer: Buffer,
    ) -> Self {
        let mut adapted = Self {
            linear,
            pairs,
            pass,
            copy: buffer,
        };
        let merged = pairs.iter().any(LoraPair::is_merged);
        match pass {
            Pass::Forward => adapted.copy_transposed(),
            Pass::Backward if merged => adapted.copy_as_it_is(),
            Pass::Backward => adapted.copy.clear(),
        }
        adapted
    }

    /// Gives the buffer back that [`new`](Self::new) was given; the layers are then of no use.
    pub(super) fn take_buffer(&mut self) -> Buffer {
        std::mem::take(&mut self.copy)
    }

    fn inputs(&self) -> usize {
        self.linear.weight.len() / self.outputs()
    }

    fn outputs(&self) -> usize {
        self.linear.bias.len()
    }

    /// `[N * outputs, inputs]`
    fn weight(&self) -> Mat<'_> {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        match self.pass {
            Pass::Forward => Mat::new(&self.copy, inputs, outputs).t(),
            Pass::Backward if self.copy.is_empty() => {
                Mat::new(&self.linear.weight, outputs, inputs)
            }
            Pass::Backward => Mat::new(&self.copy, outputs, inputs),
        }
    }

    /// `W^T + s A^T B^T`
    fn copy_transposed(&mut self) {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        let (frozen, pairs) = (&self.linear.weight, &self.pairs);
        let copy = sized(&mut self.copy, frozen.len());
        let chunks = copy.par_chunks_mut(COPIED_ROWS * outputs).enumerate();
        chunks.for_each(|(i, copy)| {
            let (first, rows) = (i * COPIED_ROWS, copy.len() / outputs);
            transpose_columns(frozen, inputs, first, copy);
            for (start, pair) in parts(pairs, outputs) {
                if pair.is_merged() {
                    let a = Mat::strided(&pair.a[first..], pair.rank, rows, inputs);
                    let b = Mat::new(pair.b, outputs / N, pair.rank);
                    let copy = MatMut::strided(&mut copy[start..], rows, outputs / N, outputs);
                    matmul(copy, a.t(), b.t(), 1.0, pair.scale);
                }
            }
        });
    }

    /// `W + s B A`
    fn copy_as_it_is(&mut self) {
        let inputs = self.inputs();
        let (frozen, pairs) = (&self.linear.weight, &self.pairs);
        let part = frozen.len() / N;
        let copy = sized(&mut self.copy, frozen.len());
        let layers = copy.chunks_exact_mut(part).zip(frozen.chunks_exact(part));
        for ((copy, frozen), pair) in layers.zip(pairs) {
            let len = COPIED_ROWS * inputs;
            let chunks = copy.par_chunks_mut(len).zip(frozen.par_chunks(len));
            chunks.enumerate().for_each(|(i, (copy, frozen))| {
                copy.copy_from_slice(frozen);
                if pair.is_merged() {
                    let rows = copy.len() / inputs;
                    let b = Mat::new(&pair.b[i * COPIED_ROWS * pair.rank..], rows, pair.rank);
                    let a = Mat::new(pair.a, pair.rank, inputs);
                    matmul(MatMut::new(copy, rows, inputs), b, a, 1.0, pair.scale);
                }
            });
        }
    }

    /// Each pair with the columns of the output that it adapts.
    fn parts(&self) -> impl Iterator<Item = (usize, &LoraPair<'a>)> {
        parts(&self.pairs, self.outputs())
    }

    /// Writes `y` for the rows of `x`, of which the first is number `first` of the batch, added
    /// to `residual` where there is one.
    pub(super) fn forward(&self, x: &[f32], first: usize, residual: Option<&[f32]>, y: &mut [f32]) {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        let rows = x.len() / inputs;
        for row in y.chunks_exact_mut(outputs) {
            row.copy_from_slice(&self.linear.bias);
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
            let Some(mask) = pair.mask(first) else {
                continue;
            };
            let mut masked = x.to_vec();
            mask.apply(&mut masked);
            let mut u = Buffer::new();
            let u = pair.low_rank(&masked, &mut u);
            let b = Mat::new(pair.b, width, pair.rank).t();
            let y = MatMut::strided(&mut y[start..], rows, width, outputs);
            matmul(y, u, b, 1.0, pair.scale);
        }
    }

    /// Writes the gradient of the input, whose first row is number `first` of the batch.
    pub(super) fn input_gradient(
        &self,
        dy: &[f32],
        first: usize,
        dx: &mut [f32],
        scratch: &mut LinearScratch,
    ) {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        let rows = dy.len() / outputs;
        let all = Mat::new(dy, rows, outputs);
        matmul(MatMut::new(dx, rows, inputs), all, self.weight(), 0.0, 1.0);
        for (start, pair) in self.parts() {
            if let Some(mask) = pair.mask(first) {
                let dy = Mat::strided(&dy[start..], rows, outputs / N, outputs);
                let du = pair.low_rank_gradient(dy, &mut scratch.du);
                let low = slice(&mut scratch.low, dx.len());
                let a = Mat::new(pair.a, pair.rank, inputs);
                matmul(MatMut::new(low, rows, inputs), du, a, 0.0, 1.0);
                mask.apply(low);
                add(dx, low);
            }
        }
    }

    /// Writes the adapters' gradients for the rows of `x`, of which the first is number `first` of
    /// the batch.
    pub(super) fn adapter_gradient(
        &self,
        x: &[f32],
        first: usize,
        dy: &[f32],
        grads: [LoraPairGrad<'_>; N],
        scratch: &mut LinearScratch,
    ) {
        let outputs = self.outputs();
        let rows = dy.len() / outputs;
        for ((start, pair), grad) in self.parts().zip(grads) {
            if pair.rank > 0 {
                let dy = Mat::strided(&dy[start..], rows, outputs / N, outputs);
                pair.gradient(x, first, dy, grad, scratch);
            }
        }
    }
}

/// Each pair with the first of the columns of an output of `outputs` columns that it adapts.
fn parts<'p, 'a, const N: usize>(
    pairs: &'p [LoraPair<'a>; N],
    outputs: usize,
) -> impl Iterator<Item = (usize, &'p LoraPair<'a>)> {
    let width = outputs / N;
    (pairs.iter().enumerate()).map(move |(i, pair)| (i * width, pair))
}

impl LoraPair<'_> {
    /// Whether it can be added into the weight: it exists and has no mask.
    fn is_merged(&self) -> bool {
        self.rank > 0 && self.dropout.is_none()
    }

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

    /// `s dy B`, the gradient of [`low_rank`](Self::low_rank).
    fn low_rank_gradient<'b>(&self, dy: Mat<'_>, out: &'b mut Buffer) -> Mat<'b> {
        let (rows, outputs) = (dy.rows(), self.b.len() / self.rank);
        let out = slice(out, rows * self.rank);
        let b = Mat::new(self.b, outputs, self.rank);
        matmul(MatMut::new(out, rows, self.rank), dy, b, 0.0, self.scale);
        Mat::new(out, rows, self.rank)
    }

    /// The mask on inputs whose first row is number `first` of the batch.
    fn mask(&self, first: usize) -> Option<Dropout> {
        let inputs = self.a.len().checked_div(self.rank)?;
        self.dropout.map(|dropout| dropout.skip(first * inputs))
    }

    fn gradient(
        &self,
        x: &[f32],
        first: usize,
        dy: Mat<'_>,
        LoraPairGrad { a: da, b: db }: LoraPairGrad<'_>,
        scratch: &mut LinearScratch,
    ) {
        let (rank, rows) = (self.rank, dy.rows());
        let (inputs, outputs) = (self.a.len() / rank, self.b.len() / rank);
        let x = match self.mask(first) {
            Some(mask) => {
                let masked = slice(&mut scratch.masked, x.len());
                masked.copy_from_slice(x);
                mask.apply(masked);
                masked
            }
            None => x,
        };
        // A product with a transposed left side of long rows is slow: db comes transposed.
        let u = self.low_rank(x, &mut scratch.u);
        let db_t = slice(&mut scratch.db_t, rank * outputs);
        matmul(MatMut::new(db_t, rank, outputs), u.t(), dy, 0.0, self.scale);
        transpose_columns(db_t, outputs, 0, db);
        let du = self.low_rank_gradient(dy, &mut scratch.du);
        let x = Mat::new(x, rows, inputs);
        matmul(MatMut::new(da, rank, inputs), du.t(), x, 0.0, 1.0);
    }
}
