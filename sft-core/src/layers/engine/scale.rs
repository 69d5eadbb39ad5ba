//! `LayerScale` (Touvron et al. 2021): a frozen factor for each feature of a branch before it is added
//! to the residual stream.

use candle_core::{Result, Tensor};

use crate::kernels::kernels;

/// The factors, `[D]`.
#[derive(Debug)]
pub(super) struct LayerScale(Vec<f32>);

impl LayerScale {
    pub(super) fn new(factors: &Tensor) -> Result<Self> {
        Ok(Self(factors.to_vec1()?))
    }

    /// Memory of the weights.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.0.as_slice())
    }

    /// Scales a branch and adds the residual stream.
    pub(super) fn forward(&self, residual: &[f32], branch: &mut [f32]) {
        scale_and_add(&self.0, residual, branch);
    }

    /// Writes the branch's gradient.
    pub(super) fn backward(&self, dy: &[f32], dbranch: &mut [f32]) {
        scale_rows(&self.0, dy, dbranch);
    }
}

kernels! {
    /// `rows = residual + factors * rows`.
    fn scale_and_add(factors: &[f32], residual: &[f32], rows: &mut [f32]) {
        let width = factors.len();
        for (row, residual) in rows.chunks_exact_mut(width).zip(residual.chunks_exact(width)) {
            for ((value, residual), factor) in row.iter_mut().zip(residual).zip(factors) {
                *value = residual + factor * *value;
            }
        }
    }

    /// `out = factors * rows`.
    fn scale_rows(factors: &[f32], rows: &[f32], out: &mut [f32]) {
        let width = factors.len();
        for (out, row) in out.chunks_exact_mut(width).zip(rows.chunks_exact(width)) {
            for ((out, value), factor) in out.iter_mut().zip(row).zip(factors) {
                *out = factor * value;
            }
        }
    }
}
