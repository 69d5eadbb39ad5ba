//! How attention or MLP is tied to the residual stream.
//!
//! The branch reads the stream or its norm, [`Branch::input`]. What its last linear wrote goes through
//! a norm and factors where they are and is added to the stream; the stream after the branch is that
//! sum or its norm, [`Branch::after`].

use candle_core::{Result, Tensor};

use super::buffer::{Buffer, slice};
use super::norm::Norm;
use super::scale::LayerScale;
use crate::kernels::add;
use crate::layers::parts::{NormOrder, NormWeights};

/// The frozen parts around a branch.
#[derive(Debug)]
pub(super) struct Branch {
    order: NormOrder,
    norm: Norm,
    out_norm: Option<Norm>,
    scale: Option<LayerScale>,
}

/// Buffers of a branch's backward pass.
#[derive(Default)]
pub(super) struct BranchScratch {
    sum: Buffer,
    scaled: Buffer,
    written: Buffer,
}

impl Branch {
    pub(super) fn new(
        order: NormOrder,
        norm: &NormWeights,
        out_norm: Option<&NormWeights>,
        scale: Option<&Tensor>,
    ) -> Result<Self> {
        Ok(Self {
            order,
            norm: Norm::new(norm)?,
            out_norm: out_norm.map(Norm::new).transpose()?,
            scale: scale.map(LayerScale::new).transpose()?,
        })
    }

    /// Features of a row, D.
    pub(super) fn width(&self) -> usize {
        self.norm.width()
    }

    /// Memory of the weights.
    pub(super) fn bytes(&self) -> usize {
        self.norm.bytes()
            + self.out_norm.as_ref().map_or(0, Norm::bytes)
            + self.scale.as_ref().map_or(0, LayerScale::bytes)
    }

    /// Whether nothing stands between the last linear and the stream, so that the linear writes the
    /// sum.
    pub(super) fn is_direct(&self) -> bool {
        self.out_norm.is_none() && self.scale.is_none()
    }

    /// Whether what the linear writes is the stream after the branch.
    pub(super) fn writes_output(&self) -> bool {
        self.is_direct() && self.order == NormOrder::Before
    }

    /// Whether the backward pass needs what the linear wrote.
    pub(super) fn needs_written(&self) -> bool {
        self.out_norm.is_some() || self.order == NormOrder::After
    }

    /// The rows that the branch reads for the stream `x`.
    pub(super) fn input<'r>(&self, x: &'r [f32], room: &'r mut Buffer) -> &'r [f32] {
        match self.order {
            NormOrder::Before => self.normed(x, room),
            NormOrder::After => x,
        }
    }

    /// The stream `residual` with the branch, from what its last linear wrote.
    fn sum<'r>(&self, residual: &[f32], written: &'r [f32], room: &'r mut Buffer) -> &'r [f32] {
        if self.is_direct() {
            return written;
        }
        let sum = slice(room, written.len());
        match &self.out_norm {
            Some(norm) => norm.forward(written, sum),
            None => sum.copy_from_slice(written),
        }
        match &self.scale {
            Some(scale) => scale.forward(residual, sum),
            None => add(sum, residual),
        }
        sum
    }

    /// The stream after the branch, from its sum with it.
    fn output<'r>(&self, sum: &'r [f32], room: &'r mut Buffer) -> &'r [f32] {
        match self.order {
            NormOrder::Before => sum,
            NormOrder::After => self.normed(sum, room),
        }
    }

    /// The stream after the branch, from the stream before it and what the last linear wrote.
    pub(super) fn after<'r>(
        &self,
        residual: &[f32],
        written: &'r [f32],
        [sum, out]: &'r mut [Buffer; 2],
    ) -> &'r [f32] {
        self.output(self.sum(residual, written, sum), out)
    }

    fn normed<'r>(&self, x: &[f32], room: &'r mut Buffer) -> &'r [f32] {
        let out = slice(room, x.len());
        self.norm.forward(x, out);
        out
    }

    /// The gradient of what the last linear wrote, and in `dsum` that of the sum, from that of the
    /// stream after the branch; `written` may be empty unless it [is needed](Self::needs_written).
    pub(super) fn backward<'d>(
        &self,
        residual: &[f32],
        written: &[f32],
        dy: &[f32],
        dsum: &'d mut [f32],
        scratch: &'d mut BranchScratch,
    ) -> &'d [f32] {
        match self.order {
            NormOrder::Before => dsum.copy_from_slice(dy),
            NormOrder::After => {
                dsum.fill(0.0);
                let sum = self.sum(residual, written, &mut scratch.sum);
                self.norm.backward(sum, dy, dsum);
            }
        }
        let mut dbranch: &[f32] = dsum;
        if let Some(scale) = &self.scale {
            let dscaled = slice(&mut scratch.scaled, dy.len());
            scale.backward(dbranch, dscaled);
            dbranch = dscaled;
        }
        if let Some(norm) = &self.out_norm {
            let dwritten = slice(&mut scratch.written, dy.len());
            dwritten.fill(0.0);
            norm.backward(written, dbranch, dwritten);
            dbranch = dwritten;
        }
        dbranch
    }

    /// Adds to `dx` the gradient of the stream `x` for that of the rows which the branch read.
    pub(super) fn input_gradient(&self, x: &[f32], dinput: &[f32], dx: &mut [f32]) {
        match self.order {
            NormOrder::Before => self.norm.backward(x, dinput, dx),
            NormOrder::After => add(dx, dinput),
        }
    }
}
