//! A frozen weight in the precision that it is kept in.
//!
//! Whoever computes with a weight reads tiles of it in f32, so another precision is a matter of this
//! file alone.

use std::ops::Range;

use candle_core::Result;

use crate::kernels::{Mat, transpose_columns};
use crate::layers::parts::Matrix;
use crate::mapped::MappedFloats;

/// The matrix `[outputs, inputs]` of frozen linear layers, in f32, row after row.
#[derive(Debug)]
pub(super) struct FrozenWeight {
    /// Matrices below each other.
    parts: Vec<Values>,
    inputs: usize,
    len: usize,
}

/// Where numbers are.
#[derive(Debug)]
enum Values {
    Memory(Vec<f32>),
    File(MappedFloats),
}

impl Values {
    fn of(matrix: &Matrix) -> Result<Self> {
        Ok(match matrix {
            Matrix::Memory(tensor) => Self::Memory(tensor.flatten_all()?.to_vec1()?),
            Matrix::File { values, .. } => Self::File(values.clone()),
        })
    }

    fn as_slice(&self) -> &[f32] {
        match self {
            Self::Memory(values) => values,
            Self::File(values) => values.as_slice(),
        }
    }

    /// Takes in what is below, or gives it back where that is elsewhere.
    fn join(&mut self, below: Self) -> Option<Self> {
        match (self, below) {
            (Self::Memory(values), Self::Memory(below)) => {
                values.extend(below);
                None
            }
            (Self::File(values), Self::File(below)) => {
                (!values.join(&below)).then_some(Self::File(below))
            }
            (_, below) => Some(below),
        }
    }
}

impl FrozenWeight {
    /// Matrices `[outputs, inputs]` below each other: copied, those of a mapped file left in it.
    pub(super) fn stack(matrices: &[&Matrix]) -> Result<Self> {
        let (mut parts, mut inputs, mut len) = (Vec::<Values>::new(), 0, 0);
        for matrix in matrices {
            inputs = matrix.inputs()?;
            len += matrix.outputs()? * inputs;
            let below = Values::of(matrix)?;
            let apart = match parts.last_mut() {
                Some(above) => above.join(below),
                None => Some(below),
            };
            parts.extend(apart);
        }
        Ok(Self { parts, inputs, len })
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(super) fn outputs(&self) -> usize {
        self.len / self.inputs
    }

    /// Elements, all outputs of all inputs.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Memory that the weight takes.
    pub(super) fn bytes(&self) -> usize {
        self.len * size_of::<f32>()
    }

    /// Gives back the memory of what can be read again.
    pub(super) fn release(&self) {
        for part in &self.parts {
            if let Values::File(values) = part {
                values.release();
            }
        }
    }

    /// Writes some of the rows into `out` `[rows, inputs]`.
    pub(super) fn read_rows(&self, rows: Range<usize>, mut out: &mut [f32]) {
        let mut wanted = rows.start * self.inputs..rows.end * self.inputs;
        for part in self.parts.iter().map(Values::as_slice) {
            let here = wanted.start.min(part.len())..wanted.end.min(part.len());
            let (written, others) = std::mem::take(&mut out).split_at_mut(here.len());
            written.copy_from_slice(&part[here.clone()]);
            out = others;
            wanted =
                wanted.start.max(part.len()) - part.len()..wanted.end.max(part.len()) - part.len();
        }
    }

    /// Writes as many columns as there is room for, starting with number `first`, as the rows of
    /// `out` `[columns, outputs]`.
    pub(super) fn read_columns(&self, first: usize, out: &mut [f32]) {
        let (pitch, mut row) = (self.outputs(), 0);
        for part in self.parts.iter().map(Values::as_slice) {
            transpose_columns(part, self.inputs, first, &mut out[row..], pitch);
            row += part.len() / self.inputs;
        }
    }

    /// The whole matrix where a product can read it as it lies: not where it is in parts, which have to be read
    /// in tiles.
    pub(super) fn in_place(&self) -> Option<Mat<'_>> {
        match self.parts.as_slice() {
            [whole] => Some(Mat::new(whole.as_slice(), self.outputs(), self.inputs)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    fn matrix(rows: u32, from: f32) -> Matrix {
        let values: Vec<_> = (0..rows * 3).map(|i| from + i as f32).collect();
        Matrix::Memory(Tensor::from_vec(values, (rows as usize, 3), &Device::Cpu).unwrap())
    }

    fn check(weight: &FrozenWeight) {
        assert_eq!((weight.inputs(), weight.len(), weight.bytes()), (3, 9, 36));
        let mut rows = vec![0.0; 6];
        weight.read_rows(1..3, &mut rows);
        assert_eq!(rows, [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        weight.read_rows(2..3, &mut rows[..3]);
        assert_eq!(rows[..3], [6.0, 7.0, 8.0]);
        let mut columns = vec![0.0; 6];
        weight.read_columns(1, &mut columns);
        assert_eq!(columns, [1.0, 4.0, 7.0, 2.0, 5.0, 8.0]);
    }

    #[test]
    fn tiles_are_parts_of_the_matrices_below_each_other() {
        let weight = FrozenWeight::stack(&[&matrix(2, 0.0), &matrix(1, 6.0)]).unwrap();
        check(&weight);
        assert!(weight.in_place().is_some());
        let values = |matrix: Matrix| match matrix {
            Matrix::Memory(tensor) => tensor.flatten_all().unwrap().to_vec1().unwrap(),
            Matrix::File { .. } => Vec::new(),
        };
        let parts = [matrix(2, 0.0), matrix(1, 6.0)].map(|part| Values::Memory(values(part)));
        let apart = FrozenWeight {
            parts: parts.into(),
            ..weight
        };
        check(&apart);
        assert!(apart.in_place().is_none());
    }
}
