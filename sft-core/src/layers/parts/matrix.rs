//! The matrix of a linear layer.

use candle_core::{Device, Result, Tensor};

use super::bytes;
use crate::mapped::MappedFloats;

/// A frozen matrix `[outputs, inputs]`.
#[derive(Clone, Debug)]
pub(crate) enum Matrix {
    Memory(Tensor),
    /// In a mapped file, row after row.
    File {
        values: MappedFloats,
        outputs: usize,
        inputs: usize,
    },
}

impl From<Tensor> for Matrix {
    fn from(tensor: Tensor) -> Self {
        Self::Memory(tensor)
    }
}

impl Matrix {
    pub(crate) fn inputs(&self) -> Result<usize> {
        match self {
            Self::Memory(tensor) => tensor.dim(1),
            Self::File { inputs, .. } => Ok(*inputs),
        }
    }

    pub(crate) fn outputs(&self) -> Result<usize> {
        match self {
            Self::Memory(tensor) => tensor.dim(0),
            Self::File { outputs, .. } => Ok(*outputs),
        }
    }

    /// Memory of the elements.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Memory(tensor) => bytes(tensor),
            Self::File { values, .. } => size_of_val(values.as_slice()),
        }
    }

    /// As candle's operations take it: a variable stays one, what is in a file is copied.
    pub(crate) fn tensor(&self) -> Result<Tensor> {
        match self {
            Self::Memory(tensor) => Ok(tensor.clone()),
            Self::File {
                values,
                outputs,
                inputs,
            } => Tensor::from_slice(values.as_slice(), (*outputs, *inputs), &Device::Cpu),
        }
    }

    pub(crate) fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self::Memory(self.tensor()?.to_device(device)?))
    }
}
