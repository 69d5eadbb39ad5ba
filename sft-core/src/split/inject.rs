//! A backward pass that begins with a gradient from outside.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use crate::Result;

/// A scalar whose gradient with respect to a tensor is `gradient`.
///
/// # Errors
/// A gradient of another shape than the tensor's.
pub(super) fn inject(tensor: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    Ok(if tensor.device().is_cpu() {
        tensor.apply_op1(Inject(gradient.clone()))?
    } else {
        (tensor * gradient)?.sum_all()?
    })
}

/// A scalar whose gradient with respect to its argument is a given tensor.
struct Inject(Tensor);

impl CustomOp1 for Inject {
    fn name(&self) -> &'static str {
        "inject-gradient"
    }

    fn cpu_fwd(&self, _: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        if layout.shape() != self.0.shape() {
            candle_core::bail!(
                "the gradient's shape is {:?}, its tensor's {:?}",
                self.0.shape(),
                layout.shape()
            )
        }
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}
