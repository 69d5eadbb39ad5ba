//! The block as a candle operation on hidden states and an adapter vector.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Device, Layout, Result, Shape, Tensor, bail};

use super::block::{AdaptedBlock, Block, Saved, Scratch};
use super::linear::Pass;
use super::lora::Pairs;
use super::piece::Wanted;
use super::pieces::{Activations, backward, forward};
use super::ragged::Ragged;
use crate::adapter::Lora;
use crate::layers::parts::BlockWeights;

/// A shared frozen block; cloning shares the weights.
#[derive(Clone, Debug)]
pub(crate) struct FrozenBlock {
    frozen: Arc<Frozen>,
    checkpointing: bool,
}

#[derive(Debug)]
struct Frozen {
    block: Block,
    /// What earlier steps saved, for the memory of the next.
    spare: Mutex<Vec<Saved>>,
}

impl FrozenBlock {
    /// A block with copies of these weights, those in a mapped file apart. With `checkpointing` it keeps
    /// nothing for the backward pass but its two arguments.
    pub(crate) fn new(weights: &BlockWeights, checkpointing: bool) -> Result<Self> {
        let (block, spare) = (Block::new(weights)?, Mutex::default());
        Ok(Self {
            frozen: Arc::new(Frozen { block, spare }),
            checkpointing,
        })
    }

    /// Memory of the weights.
    pub(crate) fn bytes(&self) -> usize {
        self.frozen.block.bytes()
    }

    /// The block's output for `hidden` `[B, S, D]` and a flat vector of adapters: `[B, S, D]`, or
    /// `[B, W, D]` with the `wanted` tokens of each sample, one after the other. Padding behind `lengths`
    /// tokens is not computed.
    pub(crate) fn forward(
        &self,
        hidden: &Tensor,
        lengths: Option<Vec<usize>>,
        adapter: Option<(&Tensor, Lora)>,
        wanted: Wanted,
    ) -> Result<Tensor> {
        let hidden = hidden.contiguous()?;
        let (adapter, lora) = match adapter {
            Some((adapter, lora)) => (adapter.contiguous()?, Some(lora)),
            None => (Tensor::from_slice(&[0.0f32; 0], 0, &Device::Cpu)?, None),
        };
        let input_gradient = hidden.track_op();
        let tracked = input_gradient || adapter.track_op();
        let op = BlockOp {
            frozen: self.frozen.clone(),
            lora,
            input_gradient,
            lengths,
            wanted,
            keep: tracked && !self.checkpointing,
            saved: Mutex::default(),
        };
        if tracked {
            hidden.apply_op2(&adapter, op)
        } else {
            hidden.apply_op2_no_bwd(&adapter, &op)
        }
    }
}

/// A block that reads one text a few tokens at a time.
pub(crate) struct BlockReader<'a> {
    block: AdaptedBlock<'a>,
    scratch: Scratch,
    /// What the attention keeps of the tokens that were read.
    seen: Vec<f32>,
}

impl FrozenBlock {
    /// The block with a flat vector of adapters, to read texts of at most so many tokens; it holds a copy of
    /// the weights with the adapters added.
    pub(crate) fn reader<'a>(
        &'a self,
        adapter: &'a [f32],
        lora: Lora,
        most: usize,
    ) -> Result<BlockReader<'a>> {
        let block = &self.frozen.block;
        let (needed, got) = (Pairs::len(Some(lora), block.sizes()), adapter.len());
        if needed != got {
            bail!("a block with an adapter of {needed} got {got} values")
        }
        let pairs = Pairs::new(Some(lora), adapter);
        Ok(BlockReader {
            block: AdaptedBlock::new(block, most, pairs, Pass::Forward),
            scratch: Scratch::default(),
            seen: Vec::new(),
        })
    }
}

impl BlockReader<'_> {
    /// The block's output for the rows `[N, D]` of the next tokens.
    pub(crate) fn read(&mut self, x: &[f32]) -> Vec<f32> {
        self.block.extend(x, &mut self.seen, &mut self.scratch)
    }

    /// Begins with another text.
    pub(crate) fn forget(&mut self) {
        self.seen.clear();
    }
}

struct BlockOp {
    frozen: Arc<Frozen>,
    /// None without adapters.
    lora: Option<Lora>,
    input_gradient: bool,
    /// Tokens of each sample, where not all have the same.
    lengths: Option<Vec<usize>>,
    wanted: Wanted,
    /// Whether the forward pass keeps what it computed, or backward computes it again.
    keep: bool,
    saved: Mutex<Option<Vec<Saved>>>,
}

impl BlockOp {
    fn adapted<'a>(&'a self, batch: &Ragged, adapter: &'a [f32], pass: Pass) -> AdaptedBlock<'a> {
        let pairs = Pairs::new(self.lora, adapter);
        AdaptedBlock::new(&self.frozen.block, batch.room.all, pairs, pass)
    }

    fn width(&self) -> usize {
        self.frozen.block.width()
    }

    /// The samples, once the shapes of both arguments are right.
    fn batch(&self, hidden: &Shape, adapter: &Shape) -> Result<Ragged> {
        let (samples, tokens, width) = hidden.dims3()?;
        let needed = Pairs::len(self.lora, self.frozen.block.sizes());
        if width != self.frozen.block.width() || tokens == 0 || adapter.dims() != [needed] {
            let want = self.frozen.block.width();
            bail!("a block of width {want} with an adapter of {needed} got {hidden:?}, {adapter:?}")
        }
        let lengths = self.lengths.as_deref();
        Ok(Ragged::new(samples, tokens, self.wanted, lengths))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CustomOp2 for BlockOp {
    fn name(&self) -> &'static str {
        "transformer-block"
    }

    fn cpu_fwd(
        &self,
        hidden: &CpuStorage,
        hidden_layout: &Layout,
        adapter: &CpuStorage,
        adapter_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let batch = self.batch(hidden_layout.shape(), adapter_layout.shape())?;
        let x = contiguous(hidden, hidden_layout)?;
        let x = batch.pack(x, self.width(), |tokens| tokens.all);
        let adapter = contiguous(adapter, adapter_layout)?;
        let spare = || lock(&self.frozen.spare).pop().unwrap_or_default();
        let keep = self.keep.then_some(&spare);
        let block = self.adapted(&batch, adapter, Pass::Forward);
        let (y, saved) = forward(&block, &batch.samples, &x, keep);
        *lock(&self.saved) = saved;
        let y = batch.unpack(y, self.width(), |tokens| tokens.wanted);
        let shape = (batch.samples.len(), batch.room.wanted, self.width());
        Ok((CpuStorage::F32(y), Shape::from(shape)))
    }

    fn bwd(
        &self,
        hidden: &Tensor,
        adapter: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut saved = lock(&self.saved).take();
        if self.keep && saved.is_none() {
            bail!("a block's backward can run once only")
        }
        let (batch, width) = (self.batch(hidden.shape(), adapter.shape())?, self.width());
        let (dadapter, dx) = with_slices(
            [hidden, adapter, &grad.contiguous()?],
            |[x, adapter, dy]| {
                let x = batch.pack(x, width, |tokens| tokens.all);
                let dy = batch.pack(dy, width, |tokens| tokens.wanted);
                let rows = x.len() / width;
                let block = self.adapted(&batch, adapter, Pass::Backward { rows });
                let samples = &batch.samples;
                let backward = |from| backward(&block, samples, &x, from, &dy, self.input_gradient);
                if let Some(saved) = &mut saved {
                    return backward(Activations::Saved(saved));
                }
                let pairs = Pairs::new(self.lora, adapter);
                let again = AdaptedBlock::again(&self.frozen.block, batch.room.all, pairs);
                backward(Activations::Again(&again))
            },
        )?;
        lock(&self.frozen.spare).extend(saved.into_iter().flatten());
        let dx = dx
            .map(|dx| batch.unpack(dx, width, |tokens| tokens.all))
            .map(|dx| Tensor::from_vec(dx, hidden.shape(), hidden.device()))
            .transpose()?;
        let dadapter = Tensor::from_vec(dadapter, adapter.shape(), adapter.device())?;
        Ok((dx, adapter.track_op().then_some(dadapter)))
    }
}

fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("an operation of the engine needs contiguous arguments"),
    }
}

/// Calls `body` with the elements of contiguous CPU tensors.
pub(crate) fn with_slices<const N: usize, R>(
    tensors: [&Tensor; N],
    body: impl FnOnce([&[f32]; N]) -> R,
) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices: [&[f32]; N] = [&[]; N];
    for ((storage, layout), slice) in guards.iter().zip(&mut slices) {
        let candle_core::Storage::Cpu(storage) = &**storage else {
            bail!("an operation of the engine runs on the CPU")
        };
        *slice = contiguous(storage, layout)?;
    }
    Ok(body(slices))
}
