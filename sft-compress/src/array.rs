use ndarray::{ArrayBase, ArrayD, Data, Dimension, IxDyn};

use crate::error::{Error, Result};
use crate::tensor::{Elements, Tensor, TensorView};

/// Arrays of any number of dimensions (feature `ndarray`).
impl<'a> TensorView<'a> {
    /// Views an array of `f32` in row-major order.
    ///
    /// ```
    /// # fn main() -> sft_compress::Result<()> {
    /// use ndarray::{Array3, ArrayD};
    /// use sft_compress::{Codec, TensorView, decode};
    ///
    /// let x = Array3::from_shape_fn((2, 4, 8), |(i, j, k)| (i + j) as f32 - k as f32);
    /// let frame = Codec::activation(0.2, 8)?.encode(TensorView::of_array(&x)?, 7)?;
    /// let y: ArrayD<f32> = decode(&frame)?.into_array();
    /// assert_eq!(y.shape(), x.shape());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` if the array is not in row-major order without gaps,
    /// as after a transposition; as [`new`](Self::new).
    pub fn of_array<S, D>(array: &'a ArrayBase<S, D>) -> Result<Self>
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        Self::of(Elements::F32(row_major(array)?), array.shape())
    }

    /// Views an array of half-precision numbers, as bits.
    ///
    /// # Errors
    /// As [`of_array`](Self::of_array).
    pub fn of_f16_array<S, D>(bits: &'a ArrayBase<S, D>) -> Result<Self>
    where
        S: Data<Elem = u16>,
        D: Dimension,
    {
        Self::of(Elements::F16(row_major(bits)?), bits.shape())
    }

    /// Views an array of bfloat16, as bits.
    ///
    /// # Errors
    /// As [`of_array`](Self::of_array).
    pub fn of_bf16_array<S, D>(bits: &'a ArrayBase<S, D>) -> Result<Self>
    where
        S: Data<Elem = u16>,
        D: Dimension,
    {
        Self::of(Elements::Bf16(row_major(bits)?), bits.shape())
    }
}

/// Arrays of any number of dimensions (feature `ndarray`).
impl Tensor {
    /// The elements as an array of the tensor's shape, without a copy.
    #[allow(clippy::missing_panics_doc, reason = "a tensor's data fits its shape")]
    pub fn into_array(self) -> ArrayD<f32> {
        ArrayD::from_shape_vec(IxDyn(&self.shape), self.data)
            .expect("a tensor's data fits its shape")
    }
}

fn row_major<S, D>(array: &ArrayBase<S, D>) -> Result<&[S::Elem]>
where
    S: Data,
    D: Dimension,
{
    array.as_slice().ok_or_else(|| {
        Error::invalid(format!(
            "array must be in row-major order without gaps, got shape {:?} with strides {:?}; \
             as_standard_layout() makes it so",
            array.shape(),
            array.strides()
        ))
    })
}
