//! Who computes a model's frozen layers.

use candle_core::{Device, Result, Tensor, bail};

use super::engine::{FrozenBlock, FrozenNorm};
use super::low_rank::with_gradients;
use super::parts::{BlockWeights, NormWeights};
use crate::adapter::Lora;

/// Who computes a model's frozen layers, and where.
#[derive(Clone, Debug)]
pub enum Backend {
    /// This crate's engine on the CPU: blocks with a backward pass written by hand, which computes
    /// the gradients of hidden states and adapters only.
    Engine {
        /// Whether blocks keep only their input for the backward pass, which then computes each
        /// block's forward pass again (gradient checkpointing); the results are the same bits.
        checkpointing: bool,
    },
    /// Candle's operations on a device. Slower on the CPU, and differentiable in weights that are
    /// variables on that device.
    Candle(Device),
}

impl Default for Backend {
    /// The engine without checkpointing.
    fn default() -> Self {
        Self::Engine {
            checkpointing: false,
        }
    }
}

impl Backend {
    /// Where the tensors are.
    pub fn device(&self) -> &Device {
        match self {
            Self::Engine { .. } => &Device::Cpu,
            Self::Candle(device) => device,
        }
    }

    /// What `value` makes of `x` and an adapter, and of them alone.
    ///
    /// The engine puts it into the graph as one operation with `gradients`, which gives the
    /// gradients of `x`, where it is in a graph, and of the adapter, from that of the value. Candle
    /// differentiates `value` itself.
    pub(crate) fn adapted(
        &self,
        [x, adapter]: [&Tensor; 2],
        value: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor>,
        gradients: impl Fn(&Tensor) -> Result<(Option<Tensor>, Tensor)> + Send + Sync + 'static,
    ) -> Result<Tensor> {
        match self {
            Self::Candle(_) => value(x, adapter),
            Self::Engine { .. } => {
                let value = value(&x.detach(), &adapter.detach())?;
                with_gradients(&value, [x, adapter], gradients)
            }
        }
    }
}

/// A frozen transformer block; cloning shares the weights.
#[derive(Clone, Debug)]
pub(crate) enum Block {
    Engine(FrozenBlock),
    Candle(Box<BlockWeights>),
}

impl Block {
    pub(crate) fn new(weights: &BlockWeights, backend: &Backend) -> Result<Self> {
        Ok(match backend {
            Backend::Engine { checkpointing } => {
                Self::Engine(FrozenBlock::new(weights, *checkpointing)?)
            }
            Backend::Candle(device) => Self::Candle(Box::new(weights.to_device(device)?)),
        })
    }

    /// Memory of the weights.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Engine(block) => block.bytes(),
            Self::Candle(block) => block.bytes(),
        }
    }

    /// The block's output for `hidden` `[B, S, D]` and the flat vector of its adapters: `[B, S, D]`,
    /// of which the engine computes the first `wanted` tokens of each sample only, where that is
    /// given.
    ///
    /// Of each sample the first `lengths` tokens are real, 1 to S, all without `lengths`; the output is
    /// zero in the rows of padding, and so is the gradient of `hidden`. Masks of dropout are numbered by
    /// the real rows of the batch.
    pub(crate) fn forward(
        &self,
        hidden: &Tensor,
        lengths: Option<&[u32]>,
        adapter: Option<(&Tensor, Lora)>,
        wanted: Option<usize>,
    ) -> Result<Tensor> {
        let lengths = ragged(hidden, lengths)?;
        match self {
            Self::Engine(block) => block.forward(hidden, lengths, adapter, wanted),
            Self::Candle(block) => block.forward(hidden, lengths, adapter),
        }
    }
}

/// The tokens of each sample, where not all have as many as the hidden state has room for.
fn ragged(hidden: &Tensor, lengths: Option<&[u32]>) -> Result<Option<Vec<usize>>> {
    let Some(lengths) = lengths else {
        return Ok(None);
    };
    let (samples, tokens, _) = hidden.dims3()?;
    let lengths: Vec<_> = lengths.iter().map(|&length| length as usize).collect();
    if lengths.len() != samples {
        bail!(
            "lengths must be as many as samples, {samples}, got {}",
            lengths.len()
        )
    }
    if let Some(length) = lengths
        .iter()
        .find(|&length| !(1..=tokens).contains(length))
    {
        bail!("lengths must be 1 to {tokens}, got {length}")
    }
    let even = lengths.iter().all(|&length| length == tokens);
    Ok((!even).then_some(lengths))
}

/// A frozen normalisation outside the blocks; cloning shares the weights.
#[derive(Clone, Debug)]
pub(crate) enum Norm {
    Engine(FrozenNorm),
    Candle(NormWeights),
}

impl Norm {
    pub(crate) fn new(weights: &NormWeights, backend: &Backend) -> Result<Self> {
        Ok(match backend {
            Backend::Engine { .. } => Self::Engine(FrozenNorm::new(weights)?),
            Backend::Candle(device) => Self::Candle(weights.to_device(device)?),
        })
    }

    /// Memory of the weights.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Engine(norm) => norm.bytes(),
            Self::Candle(norm) => norm.bytes(),
        }
    }

    /// The normalised rows of `x` `[.., D]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Engine(norm) => norm.forward(x),
            Self::Candle(norm) => norm.forward(x),
        }
    }
}
