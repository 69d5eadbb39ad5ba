//! The kernels of the activations.

use crate::kernels::{
    gelu, gelu_and_slope, gelu_tanh, gelu_tanh_and_slope, relu, relu_and_slope, silu,
    silu_and_slope,
};
use crate::layers::parts::Activation;

impl Activation {
    /// Writes the activations of `x`.
    pub(super) fn write(self, x: &[f32], out: &mut [f32]) {
        match self {
            Self::Gelu => gelu(x, out),
            Self::GeluTanh => gelu_tanh(x, out),
            Self::Silu => silu(x, out),
            Self::Relu => relu(x, out),
        }
    }

    /// The same, and the derivatives in place of `x`.
    pub(super) fn write_with_slopes(self, x: &mut [f32], out: &mut [f32]) {
        match self {
            Self::Gelu => gelu_and_slope(x, out),
            Self::GeluTanh => gelu_tanh_and_slope(x, out),
            Self::Silu => silu_and_slope(x, out),
            Self::Relu => relu_and_slope(x, out),
        }
    }
}
