//! The vision transformer in plain candle operations.
//!
//! Slower and larger than [`Vit`](super::Vit), but differentiable in every
//! weight: it pre-trains models, and it is what the block engine is tested against.

use candle_core::{D, Device, Result, Tensor};

use super::{Stem, VitConfig, VitWeights, config::block_path};
use crate::adapter::{LinearSpec, Lora, ModelSpec, Place};
use crate::data::Inputs;
use crate::layers::LowRank;
use crate::model::splittable::{Hidden, Model};

/// A vision transformer whose weights may be candle variables.
#[derive(Clone, Debug)]
pub struct PlainVit {
    stem: Stem,
    blocks: Vec<Block>,
    norm: Norm,
    spec: ModelSpec,
}

impl PlainVit {
    /// The model with these weights, which it shares.
    ///
    /// # Errors
    /// A tensor operation failed.
    pub fn new(config: &VitConfig, weights: &VitWeights) -> Result<Self> {
        Ok(Self {
            stem: Stem::new(config, weights)?,
            blocks: (0..config.num_hidden_layers)
                .map(|i| Block::new(config, weights, i))
                .collect(),
            norm: Norm::new(weights, "vit.layernorm", config.layer_norm_eps),
            spec: config.spec(),
        })
    }

    /// The features `[B, D]` of images `[B, C, H, H]`, without adapters.
    ///
    /// # Errors
    /// Images of another size.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let embedded = self.stem.embed(images, None)?;
        let hidden = self
            .blocks
            .iter()
            .try_fold(embedded, |x, block| block.forward(&x, None))?;
        self.finish(&Hidden::even(hidden))
    }
}

impl Model for PlainVit {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn device(&self) -> &Device {
        self.norm.gain.device()
    }

    fn embed(&self, inputs: &Inputs, adapter: Option<(&Tensor, Lora)>) -> Result<Hidden> {
        Ok(Hidden::even(self.stem.embed(inputs.pixels()?, adapter)?))
    }

    fn block(&self, index: usize, hidden: &Hidden, adapter: &Tensor, lora: Lora) -> Result<Hidden> {
        let state = self.blocks[index].forward(&hidden.state, Some((adapter, lora)))?;
        Ok(hidden.with_state(state))
    }

    fn finish(&self, hidden: &Hidden) -> Result<Tensor> {
        self.norm
            .forward(&hidden.state.narrow(1, 0, 1)?.squeeze(1)?)
    }
}

#[derive(Clone, Debug)]
struct Norm {
    gain: Tensor,
    bias: Tensor,
    eps: f64,
}

impl Norm {
    fn new(weights: &VitWeights, path: &str, eps: f64) -> Self {
        let get = |part| weights.get(&format!("{path}.{part}")).clone();
        Self {
            gain: get("weight"),
            bias: get("bias"),
            eps,
        }
    }

    /// Composed of differentiable operations: candle's own layer norm passes no gradient on.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = centred.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        normed.broadcast_mul(&self.gain)?.broadcast_add(&self.bias)
    }
}

#[derive(Clone, Debug)]
struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    fn forward(&self, x: &Tensor, lora: Option<LowRank>) -> Result<Tensor> {
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

#[derive(Clone, Debug)]
struct Block {
    heads: usize,
    norms: [Norm; 2],
    /// q, k, v, o, fc1, fc2
    linears: Vec<(LinearSpec, Linear)>,
}

impl Block {
    fn new(config: &VitConfig, weights: &VitWeights, index: usize) -> Self {
        let path = block_path(index);
        let norm = |name| Norm::new(weights, &format!("{path}.{name}"), config.layer_norm_eps);
        let linear = |spec: LinearSpec| {
            let weight = weights
                .get(&format!("{path}.{}.weight", spec.path.checkpoint))
                .clone();
            let bias = weights
                .find(&format!("{path}.{}.bias", spec.path.checkpoint))
                .cloned();
            (spec, Linear { weight, bias })
        };
        Self {
            heads: config.num_attention_heads,
            norms: [norm("layernorm_before"), norm("layernorm_after")],
            linears: config.spec().block.into_iter().map(linear).collect(),
        }
    }

    fn forward(&self, x: &Tensor, adapter: Option<(&Tensor, Lora)>) -> Result<Tensor> {
        let pairs = self.pairs(adapter)?;
        let linear = |i: usize, x: &Tensor| self.linears[i].1.forward(x, pairs[i].clone());
        let normed = self.norms[0].forward(x)?;
        let context = self.attention(
            &linear(0, &normed)?,
            &linear(1, &normed)?,
            &linear(2, &normed)?,
        )?;
        let x = (x + linear(3, &context)?)?;
        let normed = self.norms[1].forward(&x)?;
        &x + linear(5, &linear(4, &normed)?.gelu_erf()?)?
    }

    /// The adapter of each linear.
    fn pairs(&self, adapter: Option<(&Tensor, Lora)>) -> Result<Vec<Option<LowRank>>> {
        let Some((adapter, lora)) = adapter else {
            return Ok(vec![None; self.linears.len()]);
        };
        let mut start = 0;
        let pair = |(i, (spec, _)): (usize, &(LinearSpec, Linear))| {
            let sizes = [spec.inputs, spec.outputs];
            let pair = LowRank::new(lora, Place::Block(i), sizes, adapter, start);
            start += lora.rank_of(Place::Block(i)) * (spec.inputs + spec.outputs);
            pair
        };
        self.linears.iter().enumerate().map(pair).collect()
    }

    /// Multi-head attention of `[B, S, D]` tensors.
    fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let (batch, tokens, width) = q.dims3()?;
        let split = |x: &Tensor| {
            x.reshape((batch, tokens, self.heads, ()))?
                .transpose(1, 2)?
                .contiguous()
        };
        let scale = 1.0 / ((width / self.heads) as f64).sqrt();
        let scores = (split(q)?.matmul(&split(k)?.t()?.contiguous()?)? * scale)?;
        // Composed softmax: candle's `softmax_last_dim` passes no gradient on.
        let shifted = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?;
        let weights = shifted.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        weights
            .matmul(&split(v)?)?
            .transpose(1, 2)?
            .reshape((batch, tokens, width))
    }
}
