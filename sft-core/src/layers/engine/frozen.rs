//! A frozen weight in the precision that it is kept in.
//!
//! Whoever computes with a weight reads tiles of it in f32, so another precision is a matter of this
//! file alone.

use std::ops::Range;

use candle_core::{Result, Tensor};

use crate::kernels::{Mat, transpose_columns};

/// The matrix `[outputs, inputs]` of frozen linear layers, in f32, row after row.
#[derive(Debug)]
pub(super) struct FrozenWeight {
    values: Vec<f32>,
    inputs: usize,
}

impl FrozenWeight {
    /// Matrices `[outputs, inputs]` below each other.
    pub(super) fn stack(matrices: &[&Tensor]) -> Result<Self> {
        let count = matrices.iter().map(|matrix| matrix.elem_count()).sum();
        let (mut values, mut inputs) = (Vec::with_capacity(count), 0);
        for matrix in matrices {
            inputs = matrix.dim(1)?;
            values.extend(matrix.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(Self { values, inputs })
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(super) fn outputs(&self) -> usize {
        self.values.len() / self.inputs
    }

    /// Elements, all outputs of all inputs.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Memory that the weight takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.values.as_slice())
    }

    /// Writes some of the rows into `out` `[rows, inputs]`.
    pub(super) fn read_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        out.copy_from_slice(&self.values[rows.start * self.inputs..rows.end * self.inputs]);
    }

    /// Writes as many columns as there is room for, starting with number `first`, as the rows of
    /// `out` `[columns, outputs]`.
    pub(super) fn read_columns(&self, first: usize, out: &mut [f32]) {
        transpose_columns(&self.values, self.inputs, first, out);
    }

    /// The whole matrix where a product can read it as it lies; a weight in another precision than
    /// f32 has to be read in tiles.
    #[expect(clippy::unnecessary_wraps, reason = "f32 is the only precision so far")]
    pub(super) fn in_place(&self) -> Option<Mat<'_>> {
        Some(Mat::new(&self.values, self.outputs(), self.inputs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn tiles_are_parts_of_the_matrices_below_each_other() {
        let matrix = |rows: u32, from: f32| {
            let values: Vec<_> = (0..rows * 3).map(|i| from + i as f32).collect();
            Tensor::from_vec(values, (rows as usize, 3), &Device::Cpu).unwrap()
        };
        let weight = FrozenWeight::stack(&[&matrix(2, 0.0), &matrix(1, 6.0)]).unwrap();
        assert_eq!((weight.inputs(), weight.len(), weight.bytes()), (3, 9, 36));
        let mut rows = vec![0.0; 6];
        weight.read_rows(1..3, &mut rows);
        assert_eq!(rows, [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        let mut columns = vec![0.0; 6];
        weight.read_columns(1, &mut columns);
        assert_eq!(columns, [1.0, 4.0, 7.0, 2.0, 5.0, 8.0]);
    }
}
