//! A scalar whose gradient is known before it is asked for.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

/// A scalar of this value on the CPU, whose gradient with respect to `x` is a given tensor.
///
/// # Errors
/// A gradient of another shape than `x`.
pub(crate) fn with_gradient(x: &Tensor, value: f32, gradient: Tensor) -> Result<Tensor> {
    x.apply_op1(WithGradient { value, gradient })
}

/// A scalar whose gradient with respect to a tensor is `gradient`.
///
/// # Errors
/// A gradient of another shape than the tensor's.
pub(crate) fn inject(tensor: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    Ok(if tensor.device().is_cpu() {
        with_gradient(tensor, 0.0, gradient.clone())?
    } else {
        (tensor * gradient)?.sum_all()?
    })
}

struct WithGradient {
    value: f32,
    gradient: Tensor,
}

impl CustomOp1 for WithGradient {
    fn name(&self) -> &'static str {
        "with-gradient"
    }

    fn cpu_fwd(&self, _: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        if layout.shape() != self.gradient.shape() {
            bail!(
                "the gradient's shape is {:?}, the tensor's {:?}",
                self.gradient.shape(),
                layout.shape()
            )
        }
        Ok((CpuStorage::F32(vec![self.value]), Shape::from(())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        self.gradient.broadcast_mul(upstream).map(Some)
    }
}
