//! What a frozen block is made of, whoever computes it: the weights as the model's files name them.

mod attention;
mod block;
mod matrix;
mod norm;

use candle_core::{Device, Result, Tensor};

pub(crate) use attention::{AttentionWeights, Mask, Rotary};
pub(crate) use block::{BlockWeights, NormOrder};
pub(crate) use matrix::Matrix;
pub(crate) use norm::{NormKind, NormWeights};

/// A frozen linear layer.
#[derive(Clone, Debug)]
pub(crate) struct LinearWeights {
    /// `[outputs, inputs]`
    pub(crate) weight: Matrix,
    /// `[outputs]`
    pub(crate) bias: Option<Tensor>,
}

/// A frozen MLP: `down(act(up(x)))`, or `down(act(gate(x)) * up(x))`.
#[derive(Clone, Debug)]
pub(crate) struct MlpWeights {
    pub(crate) gate: Option<LinearWeights>,
    pub(crate) up: LinearWeights,
    pub(crate) down: LinearWeights,
    pub(crate) activation: Activation,
}

/// The function between the linears of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// The exact GELU, `x Phi(x)`.
    Gelu,
    /// The GELU with a tanh in place of the error function.
    GeluTanh,
    /// `x sigmoid(x)`
    Silu,
    /// `max(x, 0)`
    Relu,
}

impl LinearWeights {
    pub(crate) fn inputs(&self) -> Result<usize> {
        self.weight.inputs()
    }

    pub(crate) fn outputs(&self) -> Result<usize> {
        self.weight.outputs()
    }

    /// Memory of the weights.
    fn bytes(&self) -> usize {
        self.weight.bytes() + self.bias.as_ref().map_or(0, bytes)
    }

    fn to_device(&self, device: &Device) -> Result<Self> {
        let bias = self.bias.as_ref().map(|bias| bias.to_device(device));
        Ok(Self {
            weight: self.weight.to_device(device)?,
            bias: bias.transpose()?,
        })
    }
}

impl MlpWeights {
    fn to_device(&self, device: &Device) -> Result<Self> {
        let gate = self.gate.as_ref().map(|gate| gate.to_device(device));
        Ok(Self {
            gate: gate.transpose()?,
            up: self.up.to_device(device)?,
            down: self.down.to_device(device)?,
            activation: self.activation,
        })
    }
}

/// Memory of a tensor's elements.
pub(crate) fn bytes(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}
