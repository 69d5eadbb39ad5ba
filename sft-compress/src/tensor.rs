use crate::error::{Error, ErrorKind, Result};

/// Most dimensions a tensor may have.
pub(crate) const MAX_DIMS: usize = 8;
/// Most elements a tensor may have; positions are 32-bit numbers.
const MAX_ELEMENTS: usize = i32::MAX as usize;

/// A borrowed dense `f32` tensor in row-major order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorView<'a> {
    data: &'a [f32],
    shape: &'a [usize],
}

impl<'a> TensorView<'a> {
    /// Views `data` as a row-major tensor of `shape`, 1 to 8 dimensions; a
    /// dimension may be zero.
    ///
    /// # Errors
    /// `InvalidArgument` if the number of dimensions is not in 1..=8 or the
    /// product of `shape` is not `data.len()`; `TooLarge` above 2³¹ − 1 elements.
    pub fn new(data: &'a [f32], shape: &'a [usize]) -> Result<Self> {
        let elements = element_count(shape)?;
        if elements != data.len() {
            return Err(Error::invalid(format!(
                "shape {shape:?} has {elements} elements, but data has {}",
                data.len()
            )));
        }
        Ok(Self { data, shape })
    }

    /// The elements in row-major order.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// The length of each dimension, outermost first.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }
}

/// An owned dense `f32` tensor in row-major order, as [`decode`](crate::decode) returns it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Tensor {
    pub(crate) fn new(shape: Vec<usize>, data: Vec<f32>) -> Self {
        debug_assert_eq!(element_count(&shape), Ok(data.len()));
        Self { shape, data }
    }

    /// The length of each dimension, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements in row-major order.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The elements without a copy, dropping the shape.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// A borrowed view of the tensor.
    pub fn view(&self) -> TensorView<'_> {
        TensorView {
            data: &self.data,
            shape: &self.shape,
        }
    }
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
