//! The MLP of a block: two linears with an activation between, or three of which one is a gate.

use candle_core::{Result, bail};

use super::buffer::{Buffer, sized, slice};
use super::linear::{Adapted, Linear, LinearScratch, Pass};
use super::lora::Pairs;
use super::piece::Piece;
use crate::kernels::{gate, multiply};
use crate::layers::parts::{Activation, MlpWeights};

/// The frozen linears of an MLP.
#[derive(Debug)]
pub(super) struct Mlp {
    activation: Activation,
    /// Gate and up side by side where there is a gate.
    up: Linear,
    down: Linear,
}

/// An MLP with its adapters, ready for one pass.
pub(super) struct AdaptedMlp<'a> {
    activation: Activation,
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
        let MlpWeights { gate, up, down, .. } = weights;
        let hidden = down.inputs()?;
        for layer in gate.iter().chain([up]) {
            if layer.outputs()? != hidden {
                bail!("an MLP of {hidden} features got {}", layer.outputs()?)
            }
        }
        Ok(Self {
            activation: weights.activation,
            up: match gate {
                Some(gate) => Linear::new([gate, up])?,
                None => Linear::new([up])?,
            },
            down: Linear::new([down])?,
        })
    }

    /// The linears in the order of the adapter vector.
    pub(super) fn linears(&self) -> [&Linear; 2] {
        [&self.up, &self.down]
    }

    /// Memory of the weights.
    pub(super) fn bytes(&self) -> usize {
        self.up.bytes() + self.down.bytes()
    }

    /// Ready for a pass through the first linears and one through the last.
    pub(super) fn adapted<'a>(
        &'a self,
        pairs: &mut Pairs<'a>,
        [up, down]: [Pass; 2],
    ) -> AdaptedMlp<'a> {
        AdaptedMlp {
            activation: self.activation,
            up: self.up.adapted(pairs, up),
            down: self.down.adapted(pairs, down),
        }
    }
}

impl AdaptedMlp<'_> {
    /// Length of the MLP's part of the adapter vector.
    pub(super) fn parameters(&self) -> usize {
        self.up.parameters() + self.down.parameters()
    }

    /// Features between the linears, M.
    fn width(&self) -> usize {
        self.down.inputs()
    }

    fn is_gated(&self) -> bool {
        self.up.outputs() > self.width()
    }

    /// Computes what backward needs: the hidden layer before its activation, `[W, M]`, beside the
    /// gates before theirs, `[W, 2 M]`.
    pub(super) fn hidden(&self, input: Piece<'_>, saved: &mut Buffer) {
        let rows = input.x.len() / self.down.outputs();
        let hidden = sized(saved, rows * self.up.outputs());
        self.up.forward(input.x, input.first, None, hidden);
    }

    /// Writes the output `[W, D]`, added to `residual` where there is one, from what [`hidden`](Self::hidden) saved.
    pub(super) fn output(
        &self,
        saved: &[f32],
        first: usize,
        residual: Option<&[f32]>,
        y: &mut [f32],
        scratch: &mut MlpScratch,
    ) {
        let rows = saved.len() / self.up.outputs();
        let hidden = slice(&mut scratch.hidden, rows * self.width());
        self.activate(saved, hidden);
        self.down.forward(hidden, first, residual, y);
    }

    fn activate(&self, saved: &[f32], hidden: &mut [f32]) {
        if !self.is_gated() {
            return self.activation.write(saved, hidden);
        }
        let saved = saved.chunks_exact(self.up.outputs());
        for (saved, hidden) in saved.zip(hidden.chunks_exact_mut(self.width())) {
            let (gate, up) = saved.split_at(hidden.len());
            self.activation.write(gate, hidden);
            multiply(hidden, up);
        }
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
        let rows = saved.len() / self.up.outputs();
        let hidden = slice(&mut scratch.hidden, rows * self.width());
        self.activate_with_slopes(saved, hidden);
        self.down.adapter_gradient(hidden, first, dy, ddown, linear);
        let dhidden = hidden;
        self.down.input_gradient(dy, first, dhidden, linear);
        let dsaved = self.through_slopes(saved, dhidden);
        self.up
            .adapter_gradient(input.x, first, dsaved, dup, linear);
        self.up.input_gradient(dsaved, first, dinput, linear);
    }

    /// The hidden layer, and in place of what was saved its derivatives by that.
    fn activate_with_slopes(&self, saved: &mut [f32], hidden: &mut [f32]) {
        if !self.is_gated() {
            return self.activation.write_with_slopes(saved, hidden);
        }
        let saved = saved.chunks_exact_mut(self.up.outputs());
        for (saved, hidden) in saved.zip(hidden.chunks_exact_mut(self.width())) {
            let (slopes, up) = saved.split_at_mut(hidden.len());
            self.activation.write_with_slopes(slopes, hidden);
            gate(hidden, slopes, up);
        }
    }

    /// The gradient of what was saved, in place of the derivatives or of the hidden layer's gradient.
    fn through_slopes<'s>(&self, slopes: &'s mut [f32], dhidden: &'s mut [f32]) -> &'s [f32] {
        if !self.is_gated() {
            multiply(dhidden, slopes);
            return dhidden;
        }
        let rows = slopes.chunks_exact_mut(self.up.outputs());
        for (slopes, dhidden) in rows.zip(dhidden.chunks_exact(self.width())) {
            let (gate, up) = slopes.split_at_mut(dhidden.len());
            multiply(gate, dhidden);
            multiply(up, dhidden);
        }
        slopes
    }
}
