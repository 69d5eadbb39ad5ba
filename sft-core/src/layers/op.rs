//! The block as a candle operation on hidden states and an adapter vector.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::backward::Activations;
use super::linear::{LoraPair, Pass};
use super::{AdaptedBlock, BlockWeights, Saved, Tokens};
use crate::adapter::{Lora, Place};

/// A shared frozen block; cloning shares the weights.
#[derive(Clone, Debug)]
pub(crate) struct FrozenBlock(Arc<Frozen>);

#[derive(Debug)]
struct Frozen {
    weights: BlockWeights,
    /// What earlier steps saved, for the memory of the next.
    spare: Mutex<Vec<Saved>>,
}

impl FrozenBlock {
    pub(crate) fn new(weights: BlockWeights) -> Self {
        let spare = Mutex::default();
        Self(Arc::new(Frozen { weights, spare }))
    }

    /// The block's output for `hidden` `[B, S, D]` and a flat `adapter`: `[B, S, D]`, or `[B, W, D]`
    /// with the first `wanted` tokens of each sample.
    ///
    /// With `checkpointing` nothing is kept for the backward pass but the two arguments.
    pub(crate) fn apply(
        &self,
        hidden: &Tensor,
        adapter: &Tensor,
        lora: Lora,
        wanted: Option<usize>,
        checkpointing: bool,
    ) -> Result<Tensor> {
        let (hidden, adapter) = (hidden.contiguous()?, adapter.contiguous()?);
        let input_gradient = hidden.track_op();
        let tracked = input_gradient || adapter.track_op();
        let op = BlockOp {
            frozen: self.0.clone(),
            lora,
            input_gradient,
            wanted,
            keep: tracked && !checkpointing,
            saved: Mutex::default(),
        };
        if tracked {
            hidden.apply_op2(&adapter, op)
        } else {
            hidden.apply_op2_no_bwd(&adapter, &op)
        }
    }
}

struct BlockOp {
    frozen: Arc<Frozen>,
    lora: Lora,
    input_gradient: bool,
    /// Tokens of each sample whose hidden state is wanted, where not all are.
    wanted: Option<usize>,
    /// Whether the forward pass keeps what it computed, or backward computes it again.
    keep: bool,
    saved: Mutex<Option<Vec<Saved>>>,
}

impl BlockOp {
    fn adapted<'a>(
        &'a self,
        tokens: Tokens,
        mut adapter: &'a [f32],
        pass: Pass,
    ) -> AdaptedBlock<'a> {
        let scale = self.lora.scale() as f32;
        let mut linear = 0;
        let pairs = self.frozen.weights.sizes().map(|(inputs, outputs)| {
            let (rank, dropout) = (
                self.lora.rank_of(Place::Block(linear)),
                self.lora.mask(Place::Block(linear)),
            );
            linear += 1;
            let (a, rest) = adapter.split_at(rank * inputs);
            let (b, rest) = rest.split_at(rank * outputs);
            adapter = rest;
            LoraPair {
                a,
                b,
                rank,
                scale,
                dropout,
            }
        });
        AdaptedBlock::new(&self.frozen.weights, tokens, &pairs, pass)
    }

    fn tokens(&self, all: usize) -> Tokens {
        let wanted = self.wanted.map_or(all, |wanted| wanted.min(all));
        Tokens { all, wanted }
    }

    /// Samples and tokens, once the shapes of both arguments are right.
    fn check(&self, hidden: &Shape, adapter: &Shape) -> Result<(usize, Tokens)> {
        let (samples, tokens, width) = hidden.dims3()?;
        let needed: usize = (self.frozen.weights.sizes().iter().enumerate())
            .map(|(linear, (i, o))| self.lora.rank_of(Place::Block(linear)) * (i + o))
            .sum();
        if width != self.frozen.weights.width() || tokens == 0 || adapter.dims() != [needed] {
            let want = self.frozen.weights.width();
            bail!("a block of width {want} with an adapter of {needed} got {hidden:?}, {adapter:?}")
        }
        Ok((samples, self.tokens(tokens)))
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
        let (samples, tokens) = self.check(hidden_layout.shape(), adapter_layout.shape())?;
        let x = contiguous(hidden, hidden_layout)?;
        let adapter = contiguous(adapter, adapter_layout)?;
        let spare = || lock(&self.frozen.spare).pop().unwrap_or_default();
        let keep = self.keep.then_some(&spare);
        let (y, saved) = self
            .adapted(tokens, adapter, Pass::Forward)
            .forward(x, keep);
        *lock(&self.saved) = saved;
        let shape = Shape::from((samples, tokens.wanted, self.frozen.weights.width()));
        Ok((CpuStorage::F32(y), shape))
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
        let tokens = self.tokens(hidden.dim(1)?);
        let (dadapter, dx) = with_slices(
            [hidden, adapter, &grad.contiguous()?],
            |[x, adapter, dy]| {
                let block = self.adapted(tokens, adapter, Pass::Backward);
                let backward = |from| block.backward(x, from, dy, self.input_gradient);
                if let Some(saved) = &mut saved {
                    return backward(Activations::Saved(saved));
                }
                let again = self.adapted(tokens, adapter, Pass::Forward);
                backward(Activations::Again(&again))
            },
        )?;
        lock(&self.frozen.spare).extend(saved.into_iter().flatten());
        let dx = dx
            .map(|dx| Tensor::from_vec(dx, hidden.shape(), hidden.device()))
            .transpose()?;
        let dadapter = Tensor::from_vec(dadapter, adapter.shape(), adapter.device())?;
        Ok((dx, adapter.track_op().then_some(dadapter)))
    }
}

fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("a transformer block needs contiguous arguments"),
    }
}

/// Calls `body` with the elements of contiguous CPU tensors.
fn with_slices<const N: usize, R>(
    tensors: [&Tensor; N],
    body: impl FnOnce([&[f32]; N]) -> R,
) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices: [&[f32]; N] = [&[]; N];
    for ((storage, layout), slice) in guards.iter().zip(&mut slices) {
        let candle_core::Storage::Cpu(storage) = &**storage else {
            bail!("a transformer block runs on the CPU")
        };
        *slice = contiguous(storage, layout)?;
    }
    Ok(body(slices))
}
