//! Frozen layers in candle's operations: slower and larger than the engine, but on every device, and
//! differentiable in every weight. What the engine is tested against.

use candle_core::{D, Result, Tensor};

use super::LowRank;
use super::parts::{AttentionWeights, BlockWeights, LinearWeights, NormWeights};
use crate::adapter::{Lora, Place};

impl NormWeights {
    /// Composed of differentiable operations: candle's own layer norm passes no gradient on.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = centred.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        normed.broadcast_mul(&self.gain)?.broadcast_add(&self.bias)
    }
}

impl LinearWeights {
    pub(super) fn forward(&self, x: &Tensor, lora: Option<LowRank>) -> Result<Tensor> {
        let (batch, tokens, inputs) = x.dims3()?;
        let x = x.reshape((batch * tokens, inputs))?;
        let mut y = x.matmul(&self.weight.t()?)?;
        if let Some(bias) = &self.bias {
            y = y.broadcast_add(bias)?;
        }
        if let Some(lora) = lora {
            y = (y + lora.change(&x)?)?;
        }
        y.reshape((batch, tokens, ()))
    }
}

impl AttentionWeights {
    /// Multi-head attention of `[B, S, heads * d]` queries and `[B, S, kv_heads * d]` keys and values.
    pub(super) fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let (batch, tokens, _) = q.dims3()?;
        let (width, group) = (self.head_width()?, self.heads / self.kv_heads()?);
        let split = |x: &Tensor, repeats: usize| {
            let x = x.reshape((batch, tokens, (), 1, width))?;
            let x = x.repeat((1, 1, 1, repeats, 1))?;
            let x = x.reshape((batch, tokens, self.heads, width))?;
            x.transpose(1, 2)?.contiguous()
        };
        let scale = 1.0 / (width as f64).sqrt();
        let keys = split(k, group)?.t()?.contiguous()?;
        let scores = (split(q, 1)?.matmul(&keys)? * scale)?;
        // Composed softmax: candle's `softmax_last_dim` passes no gradient on.
        let shifted = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?;
        let weights = shifted.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        weights
            .matmul(&split(v, group)?)?
            .transpose(1, 2)?
            .reshape((batch, tokens, self.heads * width))
    }
}

impl BlockWeights {
    /// The block's output `[B, S, D]`.
    pub(super) fn forward(&self, x: &Tensor, adapter: Option<(&Tensor, Lora)>) -> Result<Tensor> {
        let mut pairs = self.pairs(adapter)?.into_iter();
        let mut linear =
            |linear: &LinearWeights, x: &Tensor| linear.forward(x, pairs.next().flatten());
        let Self { attention, mlp, .. } = self;
        let normed = self.attention_norm.forward(x)?;
        let context = attention.attend(
            &linear(&attention.query, &normed)?,
            &linear(&attention.key, &normed)?,
            &linear(&attention.value, &normed)?,
        )?;
        let branch = linear(&attention.output, &context)?;
        let x = (x + scaled(branch, self.attention_scale.as_ref())?)?;
        let normed = self.mlp_norm.forward(&x)?;
        let hidden = linear(&mlp.up, &normed)?.gelu_erf()?;
        let branch = linear(&mlp.down, &hidden)?;
        x + scaled(branch, self.mlp_scale.as_ref())?
    }

    /// The adapter of each linear.
    pub(super) fn pairs(&self, adapter: Option<(&Tensor, Lora)>) -> Result<Vec<Option<LowRank>>> {
        let Some((adapter, lora)) = adapter else {
            return Ok(Vec::new());
        };
        let mut start = 0;
        let pair = |(i, linear): (usize, &LinearWeights)| {
            let sizes = [linear.inputs()?, linear.outputs()?];
            let pair = LowRank::new(lora, Place::Block(i), sizes, adapter, start);
            start += lora.rank_of(Place::Block(i)) * (sizes[0] + sizes[1]);
            pair
        };
        self.linears().enumerate().map(pair).collect()
    }
}

/// A branch as it is added to the residual stream.
fn scaled(branch: Tensor, factors: Option<&Tensor>) -> Result<Tensor> {
    match factors {
        Some(factors) => branch.broadcast_mul(factors),
        None => Ok(branch),
    }
}
