//! The last, frozen layer normalisation as one operation without gradients of its weights.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use crate::kernels::{layer_norm, layer_norm_backward};
use crate::layers::Norm;

/// A frozen layer normalisation of `[B, D]` features.
#[derive(Clone, Debug)]
pub(super) struct FeatureNorm(Arc<Norm>);

impl FeatureNorm {
    pub(super) fn new(norm: Norm) -> Self {
        Self(Arc::new(norm))
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.contiguous()?.apply_op1(self.clone())
    }
}

impl CustomOp1 for FeatureNorm {
    fn name(&self) -> &'static str {
        "feature-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("a layer norm needs contiguous features")
        };
        let x = &storage.as_slice::<f32>()?[start..end];
        let mut out = vec![0.0; x.len()];
        layer_norm(x, &self.0.gain, &self.0.bias, self.0.eps, &mut out);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let dy = grad.flatten_all()?.to_vec1::<f32>()?;
        let values = x.flatten_all()?.to_vec1::<f32>()?;
        let mut dx = vec![0.0; dy.len()];
        layer_norm_backward(&values, &self.0.gain, self.0.eps, &dy, &mut dx);
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}
