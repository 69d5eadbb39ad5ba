//! One linear layer's part of an adapter vector, and its gradient.

use super::buffer::{Buffer, slice};
use crate::adapter::{Dropout, Lora, Place};
use crate::kernels::{Mat, MatMut, matmul, transpose_columns};

/// `A` `[r, inputs]`, then `B` `[outputs, r]`; of rank 0 where the layer has no adapter.
#[derive(Clone, Copy)]
pub(super) struct LoraPair<'a> {
    pub(super) a: &'a [f32],
    pub(super) b: &'a [f32],
    pub(super) rank: usize,
    pub(super) scale: f32,
    /// The mask on the input of `A`.
    dropout: Option<Dropout>,
}

/// The pairs of a block's linears, one after the other, as they lie in its adapter vector.
pub(super) struct Pairs<'a> {
    lora: Option<Lora>,
    linear: usize,
    rest: &'a [f32],
}

impl<'a> Pairs<'a> {
    /// Those in `vector`, or none for any linear.
    pub(super) fn new(lora: Option<Lora>, vector: &'a [f32]) -> Self {
        Self {
            lora,
            linear: 0,
            rest: vector,
        }
    }

    /// The length that the vector needs for linears of these inputs and outputs.
    pub(super) fn len(lora: Option<Lora>, sizes: impl Iterator<Item = [usize; 2]>) -> usize {
        let rank = |i| lora.map_or(0, |lora| lora.rank_of(Place::Block(i)));
        let sizes = sizes.enumerate();
        sizes
            .map(|(i, [inputs, outputs])| rank(i) * (inputs + outputs))
            .sum()
    }

    /// The next linear's.
    pub(super) fn next(&mut self, [inputs, outputs]: [usize; 2]) -> LoraPair<'a> {
        let place = Place::Block(self.linear);
        let rank = self.lora.map_or(0, |lora| lora.rank_of(place));
        let (a, rest) = self.rest.split_at(rank * inputs);
        let (b, rest) = rest.split_at(rank * outputs);
        (self.rest, self.linear) = (rest, self.linear + 1);
        LoraPair {
            a,
            b,
            rank,
            scale: self.lora.map_or(0.0, |lora| lora.scale() as f32),
            dropout: self.lora.and_then(|lora| lora.mask(place)),
        }
    }
}

/// Buffers of the gradients.
#[derive(Default)]
pub(super) struct LoraScratch {
    masked: Buffer,
    u: Buffer,
    pub(super) du: Buffer,
    db_t: Buffer,
}

impl LoraPair<'_> {
    /// Length of the pair in the adapter vector.
    pub(super) fn len(&self) -> usize {
        self.a.len() + self.b.len()
    }

    /// Whether it can be added into the weight: it exists and has no mask.
    pub(super) fn can_be_added(&self) -> bool {
        self.rank > 0 && self.dropout.is_none()
    }

    /// `x A^T`.
    pub(super) fn low_rank<'b>(&self, x: &[f32], out: &'b mut Buffer) -> Mat<'b> {
        let inputs = self.a.len() / self.rank;
        let rows = x.len() / inputs;
        let out = slice(out, rows * self.rank);
        let a = Mat::new(self.a, self.rank, inputs).t();
        let low = MatMut::new(out, rows, self.rank);
        matmul(low, Mat::new(x, rows, inputs), a, 0.0, 1.0);
        Mat::new(out, rows, self.rank)
    }

    /// `s dy B`, the gradient of [`low_rank`](Self::low_rank).
    pub(super) fn low_rank_gradient<'b>(&self, dy: Mat<'_>, out: &'b mut Buffer) -> Mat<'b> {
        let (rows, outputs) = (dy.rows(), self.b.len() / self.rank);
        let out = slice(out, rows * self.rank);
        let b = Mat::new(self.b, outputs, self.rank);
        matmul(MatMut::new(out, rows, self.rank), dy, b, 0.0, self.scale);
        Mat::new(out, rows, self.rank)
    }

    /// The mask on inputs whose first row is number `first` of the batch.
    pub(super) fn mask(&self, first: usize) -> Option<Dropout> {
        let inputs = self.a.len().checked_div(self.rank)?;
        self.dropout.map(|dropout| dropout.skip(first * inputs))
    }

    /// Writes the pair's gradient for inputs `x` whose first row is number `first` of the batch.
    pub(super) fn gradient(
        &self,
        x: &[f32],
        first: usize,
        dy: Mat<'_>,
        grad: &mut [f32],
        scratch: &mut LoraScratch,
    ) {
        let (rank, rows) = (self.rank, dy.rows());
        let (inputs, outputs) = (self.a.len() / rank, self.b.len() / rank);
        let (da, db) = grad.split_at_mut(self.a.len());
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
        transpose_columns(db_t, outputs, 0, db, rank);
        let du = self.low_rank_gradient(dy, &mut scratch.du);
        let x = Mat::new(x, rows, inputs);
        matmul(MatMut::new(da, rank, inputs), du.t(), x, 0.0, 1.0);
    }
}
