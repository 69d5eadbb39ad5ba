use std::borrow::Cow;

use crate::dtype::{Dtype, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::error::{Error, ErrorKind, Result};

/// Most dimensions a tensor may have.
pub(crate) const MAX_DIMS: usize = 8;
/// Most elements a tensor may have: positions are 32-bit numbers, and vectors of up to 8 bytes an
/// element can be asked for on every machine.
pub(crate) const MAX_ELEMENTS: usize = if usize::BITS > 32 {
    i32::MAX as usize
} else {
    isize::MAX as usize / 8
};

/// The elements of a tensor, by their type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Elements<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Half precision, as bits.
    F16(&'a [u16]),
    /// Bfloat16, as bits.
    Bf16(&'a [u16]),
}

impl<'a> Elements<'a> {
    /// The number of elements.
    #[allow(clippy::len_without_is_empty, reason = "a view is not a collection")]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(data) => data.len(),
            Self::F16(bits) | Self::Bf16(bits) => bits.len(),
        }
    }

    /// The elements as `f32`, which every one of them is exactly.
    pub fn to_f32(&self) -> Cow<'a, [f32]> {
        match self {
            Self::F32(data) => Cow::Borrowed(data),
            Self::F16(bits) => bits.iter().map(|&bits| f16_to_f32(bits)).collect(),
            Self::Bf16(bits) => bits.iter().map(|&bits| bf16_to_f32(bits)).collect(),
        }
    }

    /// The type of the elements.
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::F16(_) => Dtype::F16,
            Self::Bf16(_) => Dtype::Bf16,
        }
    }
}

/// A borrowed dense tensor in row-major order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorView<'a> {
    elements: Elements<'a>,
    shape: &'a [usize],
}

impl<'a> TensorView<'a> {
    /// Views `data` as a row-major `f32` tensor of `shape`, 1 to 8 dimensions; a
    /// dimension may be zero. The last dimension is that of the channels.
    ///
    /// # Errors
    /// `InvalidArgument` if the number of dimensions is not in 1..=8 or the
    /// product of `shape` is not `data.len()`; `TooLarge` above 2³¹ − 1 elements
    /// (2²⁸ − 1 on 32-bit machines).
    pub fn new(data: &'a [f32], shape: &'a [usize]) -> Result<Self> {
        Self::of(Elements::F32(data), shape)
    }

    /// As [`new`](Self::new) for elements of any type.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of(elements: Elements<'a>, shape: &'a [usize]) -> Result<Self> {
        let expected = element_count(shape)?;
        let len = elements.len();
        if expected != len {
            return Err(Error::invalid(format!(
                "shape {shape:?} has {expected} elements, but data has {len}"
            )));
        }
        Ok(Self { elements, shape })
    }

    /// The elements in row-major order.
    pub fn elements(&self) -> Elements<'a> {
        self.elements
    }

    /// The length of each dimension, outermost first.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }
}

/// An owned dense tensor in row-major order: what [`decode`](crate::decode) returns.
///
/// The elements are held as `f32` whatever their type in the frame, which
/// [`dtype`](Self::dtype) tells: every half-precision number is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: Dtype,
    pub(crate) data: Vec<f32>,
}

impl Default for Tensor {
    /// An empty tensor of one dimension, to decode into.
    fn default() -> Self {
        Self {
            shape: vec![0],
            dtype: Dtype::F32,
            data: Vec::new(),
        }
    }
}

impl Tensor {
    /// A tensor of `f32` in row-major order, 1 to 8 dimensions.
    ///
    /// # Errors
    /// As [`TensorView::new`].
    pub fn new(data: Vec<f32>, shape: &[usize]) -> Result<Self> {
        TensorView::new(&data, shape)?;
        Ok(Self {
            shape: shape.to_vec(),
            dtype: Dtype::F32,
            data,
        })
    }

    /// Makes this the empty tensor, in the same memory.
    pub(crate) fn clear(&mut self) {
        self.dtype = Dtype::F32;
        self.data.clear();
        self.shape.clear();
        self.shape.push(0);
    }

    /// The length of each dimension, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The type of the elements of the tensor that was encoded.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The elements in row-major order.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The elements in row-major order, to change.
    pub(crate) fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The elements without a copy, dropping the shape.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// The bits of the elements as half-precision numbers, to nearest; finite
    /// elements of a tensor that was encoded as such stay finite.
    pub fn to_f16_bits(&self) -> Vec<u16> {
        self.to_bits(Dtype::F16, f32_to_f16)
    }

    /// The bits of the elements as bfloat16, to nearest; finite elements of a
    /// tensor that was encoded as such stay finite.
    pub fn to_bf16_bits(&self) -> Vec<u16> {
        self.to_bits(Dtype::Bf16, f32_to_bf16)
    }

    /// A codec may decode a magnitude to more than the largest that went in.
    fn to_bits(&self, dtype: Dtype, convert: fn(f32) -> u16) -> Vec<u16> {
        let saturate = self.dtype == dtype;
        let fit = |&x: &f32| if saturate { dtype.saturate(x) } else { x };
        self.data.iter().map(fit).map(convert).collect()
    }

    /// A borrowed view of the elements as `f32`.
    pub fn view(&self) -> TensorView<'_> {
        TensorView {
            elements: Elements::F32(&self.data),
            shape: &self.shape,
        }
    }
}

/// Elements in a row, one index into all dimensions but the last.
pub(crate) fn row_len(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(1)
}

/// The number of elements of `shape`.
///
/// The product of the non-zero dimensions is bounded too, so that no partial
/// product can overflow, not even in a tensor without elements.
pub(crate) fn element_count(shape: &[usize]) -> Result<usize> {
    if !(1..=MAX_DIMS).contains(&shape.len()) {
        return Err(Error::invalid(format!(
            "shape must have 1 to {MAX_DIMS} dimensions, got {}",
            shape.len()
        )));
    }
    shape
        .iter()
        .filter(|&&d| d != 0)
        .try_fold(1_usize, |product, &d| product.checked_mul(d))
        .filter(|&product| product <= MAX_ELEMENTS)
        .map(|product| if shape.contains(&0) { 0 } else { product })
        .ok_or_else(|| {
            Error::new(
                ErrorKind::TooLarge,
                format!("shape {shape:?} has more than {MAX_ELEMENTS} elements"),
            )
        })
}
