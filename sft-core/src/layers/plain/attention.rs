//! Attention in candle's operations.

use candle_core::{D, Device, Result, Tensor};

use super::ragged::Ragged;
use crate::layers::parts::{AttentionWeights, Mask, NormWeights, Rotary};

/// The score of a token that is not seen: far below any other, and finite, so that a row of padding
/// that sees nothing has no NaN.
const UNSEEN: f32 = -1e30;

impl AttentionWeights {
    /// Attention of the rows of queries, keys and values side by side, `[T, (heads + 2 kv_heads) * d]`:
    /// `[T, heads * d]`.
    pub(super) fn attend(&self, batch: &Ragged, qkv: &Tensor) -> Result<Tensor> {
        let [queries, keys, values] = self.widths()?;
        let part = |start, width| qkv.narrow(D::Minus1, start, width)?.contiguous();
        let (q, k) = (&part(0, queries)?, &part(queries, keys)?);
        let v = &part(queries + keys, values)?;
        let turned = |x: &Tensor, norm: &Option<NormWeights>| {
            let x = batch.unpack(x)?;
            let x = x.reshape((batch.samples, batch.tokens, (), self.head_width))?;
            let x = match norm {
                Some(norm) => norm.forward(&x)?,
                None => x,
            };
            match &self.rotary {
                Some(rotary) => rotary.forward(&x),
                None => Ok(x),
            }
        };
        let q = self.per_head(&turned(q, &self.query_norm)?)?;
        let k = self.per_head(&turned(k, &self.key_norm)?)?;
        let v = batch.unpack(v)?;
        let v = self.per_head(&v.reshape((batch.samples, batch.tokens, (), self.head_width))?)?;
        let mut scores = (q.matmul(&k.t()?.contiguous()?)? * self.scale)?;
        if let Some(mask) = self.additive_mask(batch, q.device())? {
            scores = scores.broadcast_add(&mask)?;
        }
        // Composed softmax: candle's `softmax_last_dim` passes no gradient on.
        let shifted = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?;
        let weights = shifted.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        let context = weights.matmul(&v)?.transpose(1, 2)?;
        batch.pack(&context.flatten_from(2)?)
    }

    /// `[B, heads, S, d]` of `[B, S, heads or kv_heads, d]`.
    fn per_head(&self, x: &Tensor) -> Result<Tensor> {
        let (samples, tokens, heads, width) = x.dims4()?;
        let repeats = self.heads / heads;
        let x = x.reshape((samples, tokens, heads, 1, width))?;
        let x = x.repeat((1, 1, 1, repeats, 1))?;
        let x = x.reshape((samples, tokens, self.heads, width))?;
        x.transpose(1, 2)?.contiguous()
    }

    /// What is added to the scores `[B or 1, 1, S, S]`, where not all tokens see all.
    fn additive_mask(&self, batch: &Ragged, device: &Device) -> Result<Option<Tensor>> {
        let tokens = batch.tokens;
        if self.mask == Mask::None && batch.lengths.is_none() {
            return Ok(None);
        }
        let even = [tokens];
        let lengths = batch.lengths.as_deref().unwrap_or(&even);
        let mut mask = Vec::with_capacity(lengths.len() * tokens * tokens);
        for &length in lengths {
            for position in 0..tokens {
                let visible = self.mask.visible(position, length);
                let seen = |key| key < length && visible.contains(&key);
                mask.extend((0..tokens).map(|key| if seen(key) { 0.0 } else { UNSEEN }));
            }
        }
        Tensor::from_vec(mask, (lengths.len(), 1, tokens, tokens), device).map(Some)
    }
}

impl Rotary {
    /// `x` `[B, S, heads, d]`, turned.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, turned) = (x.dim(1)?, self.inverse_frequencies.len());
        let turns = self.turns(tokens);
        let turn = |turns| Tensor::from_vec(turns, (1, tokens, 1, turned), x.device());
        let [cos, sin] = turns.map(turn);
        let (cos, sin) = (cos?, sin?);
        let first = x.narrow(D::Minus1, 0, turned)?;
        let second = x.narrow(D::Minus1, turned, turned)?;
        let rest = x.narrow(D::Minus1, 2 * turned, x.dim(D::Minus1)? - 2 * turned)?;
        let a = (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?;
        let b = (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?;
        if rest.elem_count() == 0 {
            return Tensor::cat(&[a, b], D::Minus1);
        }
        Tensor::cat(&[a, b, rest], D::Minus1)
    }
}
