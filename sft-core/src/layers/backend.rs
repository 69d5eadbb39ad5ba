//! Who computes a model's frozen layers.

use candle_core::{Device, Result, Tensor, bail};

use super::engine::{BlockReader, FrozenBlock, FrozenNorm, Wanted};
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
    /// of which the engine computes the `wanted` tokens of each sample only, one after the other in
    /// `[B, W, D]`.
    ///
    /// Of each sample the first `lengths` tokens are real, 1 to S, all without `lengths`; the output is
    /// zero in the rows of padding, and so is the gradient of `hidden`. Masks of dropout are numbered by
    /// the real rows of the batch, so that with them all tokens are computed.
    pub(crate) fn forward(
        &self,
        hidden: &Tensor,
        lengths: Option<&[u32]>,
        adapter: Option<(&Tensor, Lora)>,
        wanted: Wanted,
    ) -> Result<Tensor> {
        let lengths = ragged(hidden, lengths)?;
        let is_masked = adapter.is_some_and(|(_, lora)| lora.is_masked());
        let wanted = if is_masked { Wanted::All } else { wanted };
        match self {
            Self::Engine(block) => block.forward(hidden, lengths, adapter, wanted),
            Self::Candle(block) => block.forward(hidden, lengths, adapter),
        }
    }
}

/// A block that reads one text a few tokens at a time.
pub(crate) enum Reader<'a> {
    /// It keeps keys and values.
    Engine(Box<BlockReader<'a>>),
    /// It keeps what it read, and computes all of it anew: slow and plain.
    Candle {
        block: &'a BlockWeights,
        adapter: Tensor,
        lora: Lora,
        /// `[N, D]` of the tokens that were read.
        seen: Option<Tensor>,
    },
}

impl Block {
    /// The block with a flat vector of adapters, to read texts of at most so many tokens.
    pub(crate) fn reader<'a>(
        &'a self,
        adapter: &'a [f32],
        lora: Lora,
        most: usize,
    ) -> Result<Reader<'a>> {
        Ok(match self {
            Self::Engine(block) => Reader::Engine(Box::new(block.reader(adapter, lora, most)?)),
            Self::Candle(block) => Reader::Candle {
                adapter: Tensor::from_slice(adapter, adapter.len(), block.device())?,
                block,
                lora,
                seen: None,
            },
        })
    }
}

impl Reader<'_> {
    /// The block's output `[N, D]` for the next N tokens.
    pub(crate) fn read(&mut self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Engine(reader) => {
                let y = reader.read(&x.flatten_all()?.to_vec1::<f32>()?);
                Tensor::from_vec(y, x.shape(), x.device())
            }
            Self::Candle {
                block,
                adapter,
                lora,
                seen,
            } => {
                let all = match seen.take() {
                    Some(seen) => Tensor::cat(&[&seen, x], 0)?,
                    None => x.clone(),
                };
                *seen = Some(all.clone());
                let y = block.forward(&all.unsqueeze(0)?, None, Some((adapter, *lora)))?;
                let (rows, new) = (all.dim(0)?, x.dim(0)?);
                y.squeeze(0)?.narrow(0, rows - new, new)
            }
        }
    }

    /// Begins with another text.
    pub(crate) fn forget(&mut self) {
        match self {
            Self::Engine(reader) => reader.forget(),
            Self::Candle { seen, .. } => *seen = None,
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
