//! A frozen linear layer with a LoRA adapter: `y = x W^T + b + s (x A^T) B^T`.

use super::Linear;
use crate::adapter::Dropout;
use crate::kernels::{Mat, MatMut, matmul};

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

impl LoraPair<'_> {
    /// The input of `A`, where it is not `x` itself.
    fn masked(&self, x: &[f32]) -> Option<Vec<f32>> {
        self.dropout.map(|dropout| {
            let mut masked = x.to_vec();
            dropout.apply(&mut masked);
            masked
        })
    }
}

/// The same part of the adapter's gradient.
pub(super) struct LoraPairGrad<'a> {
    pub(super) a: &'a mut [f32],
    pub(super) b: &'a mut [f32],
}

impl Linear {
    fn outputs(&self) -> usize {
        self.bias.len()
    }

    fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    fn weight(&self) -> Mat<'_> {
        Mat::new(&self.weight, self.outputs(), self.inputs())
    }

    /// Writes `y` for the rows of `x` into every `stride`-th element row of `y`; returns `x A^T`.
    pub(super) fn forward(
        &self,
        x: &[f32],
        lora: LoraPair<'_>,
        y: &mut [f32],
        stride: usize,
    ) -> Vec<f32> {
        let (inputs, outputs, rank) = (self.inputs(), self.outputs(), lora.rank);
        let tokens = x.len() / inputs;
        for row in y.chunks_mut(stride) {
            row[..outputs].copy_from_slice(&self.bias);
        }
        matmul(
            MatMut::strided(y, tokens, outputs, stride),
            Mat::new(x, tokens, inputs),
            self.weight().t(),
            1.0,
            1.0,
        );
        if rank == 0 {
            return Vec::new();
        }
        let masked = lora.masked(x);
        let mut u = vec![0.0; tokens * rank];
        matmul(
            MatMut::new(&mut u, tokens, rank),
            Mat::new(masked.as_deref().unwrap_or(x), tokens, inputs),
            Mat::new(lora.a, rank, inputs).t(),
            0.0,
            1.0,
        );
        let b = Mat::new(lora.b, outputs, rank).t();
        let y = MatMut::strided(y, tokens, outputs, stride);
        matmul(y, Mat::new(&u, tokens, rank), b, 1.0, lora.scale);
        u
    }

    /// Writes the adapter's gradient and, where `dx` is given, adds the input's to it.
    pub(super) fn backward(
        &self,
        x: &[f32],
        u: &[f32],
        lora: LoraPair<'_>,
        dy: Mat<'_>,
        grad: LoraPairGrad<'_>,
        dx: Option<&mut [f32]>,
    ) {
        let (inputs, outputs, rank) = (self.inputs(), self.outputs(), lora.rank);
        let LoraPairGrad { a: da, b: db } = grad;
        let tokens = x.len() / inputs;
        let mut dx = dx;
        if let Some(dx) = dx.as_deref_mut() {
            matmul(MatMut::new(dx, tokens, inputs), dy, self.weight(), 1.0, 1.0);
        }
        if rank == 0 {
            return;
        }
        let mut du = vec![0.0; tokens * rank];
        let b = Mat::new(lora.b, outputs, rank);
        matmul(MatMut::new(&mut du, tokens, rank), dy, b, 0.0, lora.scale);
        let du = Mat::new(&du, tokens, rank);
        let u = Mat::new(u, tokens, rank);
        matmul(MatMut::new(db, outputs, rank), dy.t(), u, 0.0, lora.scale);
        let masked = lora.masked(x);
        matmul(
            MatMut::new(da, rank, inputs),
            du.t(),
            Mat::new(masked.as_deref().unwrap_or(x), tokens, inputs),
            0.0,
            1.0,
        );
        let Some(dx) = dx else { return };
        let a = Mat::new(lora.a, rank, inputs);
        let Some(dropout) = lora.dropout else {
            matmul(MatMut::new(dx, tokens, inputs), du, a, 1.0, 1.0);
            return;
        };
        let mut low = vec![0.0; dx.len()];
        matmul(MatMut::new(&mut low, tokens, inputs), du, a, 0.0, 1.0);
        dropout.apply(&mut low);
        for (dx, low) in dx.iter_mut().zip(low) {
            *dx += low;
        }
    }
}
