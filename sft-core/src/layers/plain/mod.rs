//! Frozen layers in candle's operations: slower and larger than the engine, but on every device, and
//! differentiable in every weight. What the engine is tested against.

mod attention;
mod ragged;

use candle_core::{D, Result, Tensor};

use self::ragged::Ragged;
use super::LowRank;
use super::parts::{
    Activation, AttentionWeights, BlockWeights, LinearWeights, MlpWeights, NormKind, NormOrder,
    NormWeights,
};
use crate::adapter::{Lora, Place};

impl NormWeights {
    /// Composed of differentiable operations: candle's own norms pass no gradient on.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let centred = match self.kind {
            NormKind::Layer => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
            NormKind::Rms => x.clone(),
        };
        let square = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = centred.broadcast_div(&(square + self.eps)?.sqrt()?)?;
        let normed = normed.broadcast_mul(&self.gain)?;
        match &self.bias {
            Some(bias) => normed.broadcast_add(bias),
            None => Ok(normed),
        }
    }
}

impl LinearWeights {
    /// Rows `[T, outputs]` of `[T, inputs]`.
    fn forward(&self, x: &Tensor, lora: Option<LowRank>) -> Result<Tensor> {
        let mut y = x.matmul(&self.weight.tensor()?.t()?)?;
        if let Some(bias) = &self.bias {
            y = y.broadcast_add(bias)?;
        }
        if let Some(lora) = lora {
            y = (y + lora.change(x)?)?;
        }
        Ok(y)
    }
}

impl Activation {
    pub(super) fn forward(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => x.gelu_erf(),
            Self::GeluTanh => x.gelu(),
            Self::Silu => x.silu(),
            Self::Relu => x.relu(),
        }
    }
}

impl BlockWeights {
    /// The block's output `[B, S, D]` for `x`, of whose samples `lengths` tokens each are real, all
    /// without `lengths`.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        lengths: Option<Vec<usize>>,
        adapter: Option<(&Tensor, Lora)>,
    ) -> Result<Tensor> {
        self.attention.check()?;
        let batch = Ragged::new(x, lengths)?;
        let mut pairs = self.pairs(adapter)?.into_iter();
        let mut linear =
            |linear: &LinearWeights, x: &Tensor| linear.forward(x, pairs.next().flatten());
        let x = batch.pack(x)?;

        let input = self.input(&self.attention_norm, &x)?;
        let AttentionWeights { qkv, .. } = &self.attention;
        let parts = qkv.iter().map(|part| linear(part, &input));
        let qkv = Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, D::Minus1)?;
        let context = self.attention.attend(&batch, &qkv)?;
        let branch = linear(&self.attention.output, &context)?;
        let branch = changed(
            branch,
            self.attention_out_norm.as_ref(),
            self.attention_scale.as_ref(),
        )?;
        let x = self.output(&self.attention_norm, (x + branch)?)?;

        let input = self.input(&self.mlp_norm, &x)?;
        let MlpWeights {
            gate,
            up,
            down,
            activation,
        } = &self.mlp;
        let hidden = match gate {
            Some(gate) => {
                let gate = activation.forward(&linear(gate, &input)?)?;
                (gate * linear(up, &input)?)?
            }
            None => activation.forward(&linear(up, &input)?)?,
        };
        let branch = linear(down, &hidden)?;
        let branch = changed(branch, self.mlp_out_norm.as_ref(), self.mlp_scale.as_ref())?;
        let x = self.output(&self.mlp_norm, (x + branch)?)?;
        batch.unpack(&x)
    }

    /// What a branch reads of the residual stream.
    fn input(&self, norm: &NormWeights, x: &Tensor) -> Result<Tensor> {
        match self.order {
            NormOrder::Before => norm.forward(x),
            NormOrder::After => Ok(x.clone()),
        }
    }

    /// The residual stream after a branch, from its sum with the branch.
    fn output(&self, norm: &NormWeights, sum: Tensor) -> Result<Tensor> {
        match self.order {
            NormOrder::Before => Ok(sum),
            NormOrder::After => norm.forward(&sum),
        }
    }

    /// The adapter of each linear.
    fn pairs(&self, adapter: Option<(&Tensor, Lora)>) -> Result<Vec<Option<LowRank>>> {
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
fn changed(branch: Tensor, norm: Option<&NormWeights>, factors: Option<&Tensor>) -> Result<Tensor> {
    let branch = match norm {
        Some(norm) => norm.forward(&branch)?,
        None => branch,
    };
    match factors {
        Some(factors) => branch.broadcast_mul(factors),
        None => Ok(branch),
    }
}
