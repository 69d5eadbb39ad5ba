//! A frozen normalisation, as a part of a block and as an operation of its own.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use crate::kernels::{layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
use crate::layers::parts::{NormKind, NormWeights};

/// Gain and bias of a frozen normalisation.
#[derive(Debug)]
pub(super) struct Norm {
    kind: NormKind,
    gain: Vec<f32>,
    /// Empty for an RMS norm.
    bias: Vec<f32>,
    eps: f32,
}

impl Norm {
    pub(super) fn new(weights: &NormWeights) -> Result<Self> {
        let width = weights.gain.dim(0)?;
        let bias = match (weights.kind, &weights.bias) {
            (NormKind::Layer, Some(bias)) => bias.to_vec1()?,
            (NormKind::Layer, None) => vec![0.0; width],
            (NormKind::Rms, None) => Vec::new(),
            (NormKind::Rms, Some(_)) => bail!("an RMS norm has no bias"),
        };
        Ok(Self {
            kind: weights.kind,
            gain: weights.gain.to_vec1()?,
            bias,
            eps: weights.eps as f32,
        })
    }

    /// Features of a row, D.
    pub(super) fn width(&self) -> usize {
        self.gain.len()
    }

    /// Memory of the weights.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.gain.as_slice()) + size_of_val(self.bias.as_slice())
    }

    /// Writes the normalised rows of `x`.
    pub(super) fn forward(&self, x: &[f32], out: &mut [f32]) {
        match self.kind {
            NormKind::Layer => layer_norm(x, &self.gain, &self.bias, self.eps, out),
            NormKind::Rms => rms_norm(x, &self.gain, self.eps, out),
        }
    }

    /// Adds the gradient of the rows `x` to `dx`.
    pub(super) fn backward(&self, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        match self.kind {
            NormKind::Layer => layer_norm_backward(x, &self.gain, self.eps, dy, dx),
            NormKind::Rms => rms_norm_backward(x, &self.gain, self.eps, dy, dx),
        }
    }
}

/// A normalisation outside the blocks as one operation, without gradients of its weights;
/// cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct FrozenNorm(Arc<Norm>);

impl FrozenNorm {
    pub(crate) fn new(weights: &NormWeights) -> Result<Self> {
        Ok(Self(Arc::new(Norm::new(weights)?)))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes()
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.contiguous()?.apply_op1(self.clone())
    }
}

impl CustomOp1 for FrozenNorm {
    fn name(&self) -> &'static str {
        "frozen-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("a norm needs contiguous features")
        };
        let x = &storage.as_slice::<f32>()?[start..end];
        let mut out = vec![0.0; x.len()];
        self.0.forward(x, &mut out);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let dy = grad.flatten_all()?.to_vec1::<f32>()?;
        let values = x.flatten_all()?.to_vec1::<f32>()?;
        let mut dx = vec![0.0; dy.len()];
        self.0.backward(&values, &dy, &mut dx);
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}
