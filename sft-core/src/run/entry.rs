//! The tensors of a checkpoint on their way into its file.

use std::borrow::Cow;

use safetensors::{Dtype, View};

/// A tensor of which the file has the bytes, and memory only while they are written.
pub(super) struct Entry<'a> {
    shape: Vec<usize>,
    values: Values<'a>,
}

enum Values<'a> {
    F32(&'a [f32]),
    U32(Vec<u32>),
    U8(Cow<'a, [u8]>),
}

impl<'a> Entry<'a> {
    pub(super) fn matrix(values: &'a [f32], rows: usize) -> Self {
        Self {
            shape: vec![rows, values.len() / rows.max(1)],
            values: Values::F32(values),
        }
    }

    pub(super) fn numbers(values: Vec<u32>) -> Self {
        Self {
            shape: vec![values.len()],
            values: Values::U32(values),
        }
    }

    pub(super) fn bytes(values: impl Into<Cow<'a, [u8]>>) -> Self {
        let values = values.into();
        Self {
            shape: vec![values.len()],
            values: Values::U8(values),
        }
    }
}

impl<'a> From<&'a [f32]> for Entry<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self {
            shape: vec![values.len()],
            values: Values::F32(values),
        }
    }
}

impl View for Entry<'_> {
    fn dtype(&self) -> Dtype {
        match self.values {
            Values::F32(_) => Dtype::F32,
            Values::U32(_) => Dtype::U32,
            Values::U8(_) => Dtype::U8,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match &self.values {
            Values::F32(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Values::U32(values) => values.iter().flat_map(|n| n.to_le_bytes()).collect(),
            Values::U8(bytes) => Cow::Borrowed(bytes),
        }
    }

    fn data_len(&self) -> usize {
        match &self.values {
            Values::F32(values) => 4 * values.len(),
            Values::U32(values) => 4 * values.len(),
            Values::U8(bytes) => bytes.len(),
        }
    }
}
