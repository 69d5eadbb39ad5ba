//! The block as a candle operation on hidden states and an adapter vector.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::linear::{LoraPair, LoraPairGrad};
use super::{BlockWeights, Saved};
use crate::Lora;

/// A shared frozen block; cloning shares the weights.
#[derive(Clone, Debug)]
pub(crate) struct FrozenBlock(Arc<BlockWeights>);

impl FrozenBlock {
    pub(crate) fn new(weights: BlockWeights) -> Self {
        Self(Arc::new(weights))
    }

    /// The block's output `[B, S, D]` for `hidden` `[B, S, D]` and a flat `adapter`.
    pub(crate) fn apply(&self, hidden: &Tensor, adapter: &Tensor, lora: Lora) -> Result<Tensor> {
        let (hidden, adapter) = (hidden.contiguous()?, adapter.contiguous()?);
        let input_gradient = hidden.track_op();
        let tracked = input_gradient || adapter.track_op();
        let op = BlockOp {
            weights: self.0.clone(),
            lora,
            input_gradient,
            saved: tracked.then(Mutex::default),
        };
        if tracked {
            hidden.apply_op2(&adapter, op)
        } else {
            hidden.apply_op2_no_bwd(&adapter, &op)
        }
    }
}

struct BlockOp {
    weights: Arc<BlockWeights>,
    lora: Lora,
    input_gradient: bool,
    saved: Option<Mutex<Option<Saved>>>,
}

impl BlockOp {
    /// Inputs and outputs of the adapted linears, in the adapter's order.
    fn sizes(&self) -> [(usize, usize); 6] {
        let w = &self.weights;
        let [q, k, v] = &w.qkv;
        [q, k, v, &w.out, &w.fc1, &w.fc2].map(|l| (l.weight.len() / l.bias.len(), l.bias.len()))
    }

    fn pairs<'a>(&self, mut adapter: &'a [f32]) -> [LoraPair<'a>; 6] {
        let scale = self.lora.scale() as f32;
        let mut linear = 0;
        self.sizes().map(|(inputs, outputs)| {
            let (rank, dropout) = (self.lora.rank_of(linear), self.lora.mask(linear));
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
        })
    }

    fn pair_grads<'a>(&self, mut grad: &'a mut [f32]) -> [LoraPairGrad<'a>; 6] {
        let mut linear = 0;
        self.sizes().map(|(inputs, outputs)| {
            let rank = self.lora.rank_of(linear);
            linear += 1;
            let (a, rest) = std::mem::take(&mut grad).split_at_mut(rank * inputs);
            let (b, rest) = rest.split_at_mut(rank * outputs);
            grad = rest;
            LoraPairGrad { a, b }
        })
    }

    /// The number of samples, once the shapes of both arguments are right.
    fn check(&self, hidden: &Shape, adapter: &Shape) -> Result<usize> {
        let (samples, _, width) = hidden.dims3()?;
        let needed: usize = (self.sizes().iter().enumerate())
            .map(|(linear, (i, o))| self.lora.rank_of(linear) * (i + o))
            .sum();
        if width != self.weights.width() || adapter.dims() != [needed] {
            let want = self.weights.width();
            bail!("a block of width {want} with an adapter of {needed} got {hidden:?}, {adapter:?}")
        }
        Ok(samples)
    }
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
        let samples = self.check(hidden_layout.shape(), adapter_layout.shape())?;
        let x = contiguous(hidden, hidden_layout)?;
        let adapter = contiguous(adapter, adapter_layout)?;
        let (y, state) = self.weights.forward(x, samples, &self.pairs(adapter));
        if let Some(saved) = &self.saved {
            *saved
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(state);
        }
        Ok((CpuStorage::F32(y), hidden_layout.shape().clone()))
    }

    fn bwd(
        &self,
        hidden: &Tensor,
        adapter: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(saved) = &self.saved else {
            bail!("backward of an untracked block")
        };
        let saved = saved
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        let Some(saved) = saved else {
            bail!("a block's backward can run once only")
        };
        let (mut dadapter, mut dx) = (vec![0.0; adapter.elem_count()], None);
        with_slices(
            [hidden, adapter, &grad.contiguous()?],
            |[x, adapter, dy]| {
                let (pairs, grads) = (self.pairs(adapter), self.pair_grads(&mut dadapter));
                dx = self
                    .weights
                    .backward(x, &saved, &pairs, dy, grads, self.input_gradient);
            },
        )?;
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
fn with_slices<const N: usize>(
    tensors: [&Tensor; N],
    body: impl FnOnce([&[f32]; N]),
) -> Result<()> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices: [&[f32]; N] = [&[]; N];
    for ((storage, layout), slice) in guards.iter().zip(&mut slices) {
        let candle_core::Storage::Cpu(storage) = &**storage else {
            bail!("a transformer block runs on the CPU")
        };
        *slice = contiguous(storage, layout)?;
    }
    body(slices);
    Ok(())
}
