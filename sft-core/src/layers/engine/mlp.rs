//! The MLP of a block: two linears with a GELU between.

use candle_core::Result;

use super::buffer::{Buffer, sized, slice};
use super::linear::{Adapted, Linear, LinearScratch, Pass};
use super::lora::Pairs;
use super::piece::Piece;
use crate::kernels::{gelu, gelu_and_slope, multiply};
use crate::layers::parts::MlpWeights;

/// The frozen linears of an MLP.
#[derive(Debug)]
pub(super) struct Mlp {
    up: Linear,
    down: Linear,
}

/// An MLP with its adapters, ready for one pass.
pub(super) struct AdaptedMlp<'a> {
    up: Adapted<'a>,
    down: Adapted<'a>,
}

/// What one piece needs beside what is saved.
#[derive(Default)]
pub(super) struct MlpScratch {
    hidden: Buffer,
    linear: LinearScratch,
}

impl Mlp {
    pub(super) fn new(weights: &MlpWeights) -> Result<Self> {
        Ok(Self {
            up: Linear::new([&weights.up])?,
            down: Linear::new([&weights.down])?,
        })
    }

    /// The linears in the order of the adapter vector.
    pub(super) fn linears(&self) -> [&Linear; 2] {
        [&self.up, &self.down]
    }

    pub(super) fn adapted<'a>(&'a self, pairs: &mut Pairs<'a>, pass: Pass) -> AdaptedMlp<'a> {
        AdaptedMlp {
            up: self.up.adapted(pairs, pass),
            down: self.down.adapted(pairs, pass),
        }
    }
}

impl AdaptedMlp<'_> {
    /// Length of the MLP's part of the adapter vector.
    pub(super) fn parameters(&self) -> usize {
        self.up.parameters() + self.down.parameters()
    }

    /// Computes what backward needs: the hidden layer before its GELU, `[T, M]`.
    pub(super) fn hidden(&self, input: Piece<'_>, saved: &mut Buffer) {
        let rows = input.x.len() / self.down.outputs();
        let hidden = sized(saved, rows * self.up.outputs());
        self.up.forward(input.x, input.first, None, hidden);
    }

    /// Writes the output `[T, D]`, added to `residual` where there is one, from what [`hidden`](Self::hidden) saved.
    pub(super) fn output(
        &self,
        saved: &[f32],
        first: usize,
        residual: Option<&[f32]>,
        y: &mut [f32],
        scratch: &mut MlpScratch,
    ) {
        let hidden = slice(&mut scratch.hidden, saved.len());
        gelu(saved, hidden);
        self.down.forward(hidden, first, residual, y);
    }

    /// Writes the gradients of the adapters and of the input; uses up what was saved.
    pub(super) fn backward(
        &self,
        input: Piece<'_>,
        saved: &mut [f32],
        dy: &[f32],
        grad: &mut [f32],
        dinput: &mut [f32],
        scratch: &mut MlpScratch,
    ) {
        let (dup, ddown) = grad.split_at_mut(self.up.parameters());
        let (first, linear) = (input.first, &mut scratch.linear);
        let hidden = slice(&mut scratch.hidden, saved.len());
        gelu_and_slope(saved, hidden);
        self.down.adapter_gradient(hidden, first, dy, ddown, linear);
        let dhidden = hidden;
        self.down.input_gradient(dy, first, dhidden, linear);
        multiply(dhidden, saved);
        self.up
            .adapter_gradient(input.x, first, dhidden, dup, linear);
        self.up.input_gradient(dhidden, first, dinput, linear);
    }
}
