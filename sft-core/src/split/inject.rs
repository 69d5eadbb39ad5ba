//! A backward pass that begins with a gradient from outside.

use candle_core::Tensor;

use crate::Result;
use crate::layers::with_gradient;

/// A scalar whose gradient with respect to a tensor is `gradient`.
///
/// # Errors
/// A gradient of another shape than the tensor's.
pub(super) fn inject(tensor: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    Ok(if tensor.device().is_cpu() {
        with_gradient(tensor, 0.0, gradient.clone())?
    } else {
        (tensor * gradient)?.sum_all()?
    })
}
