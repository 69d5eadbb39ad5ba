//! What a frozen block is made of, whoever computes it: the weights as the model's files name them.

use candle_core::{Device, Result, Tensor};

/// A frozen linear layer.
#[derive(Clone, Debug)]
pub(crate) struct LinearWeights {
    /// `[outputs, inputs]`
    pub(crate) weight: Tensor,
    /// `[outputs]`
    pub(crate) bias: Option<Tensor>,
}

/// A frozen layer normalisation.
#[derive(Clone, Debug)]
pub(crate) struct NormWeights {
    /// `[D]`
    pub(crate) gain: Tensor,
    /// `[D]`
    pub(crate) bias: Tensor,
    pub(crate) eps: f64,
}

/// A frozen multi-head attention. Keys and values may have fewer heads than queries, each of which
/// then serves as many queries' heads that follow each other (grouped heads).
#[derive(Clone, Debug)]
pub(crate) struct AttentionWeights {
    /// Heads of the queries.
    pub(crate) heads: usize,
    pub(crate) query: LinearWeights,
    pub(crate) key: LinearWeights,
    pub(crate) value: LinearWeights,
    pub(crate) output: LinearWeights,
}

/// A frozen MLP of two layers with a GELU between.
#[derive(Clone, Debug)]
pub(crate) struct MlpWeights {
    pub(crate) up: LinearWeights,
    pub(crate) down: LinearWeights,
}

/// A frozen pre-norm block: `h = x + attention(norm(x))`, then `h + mlp(norm(h))`. Either branch may be
/// scaled feature by feature before it is added (`LayerScale`).
///
/// The linears lie in the adapter vector in the order of the fields.
#[derive(Clone, Debug)]
pub(crate) struct BlockWeights {
    pub(crate) attention_norm: NormWeights,
    pub(crate) attention: AttentionWeights,
    /// `[D]`
    pub(crate) attention_scale: Option<Tensor>,
    pub(crate) mlp_norm: NormWeights,
    pub(crate) mlp: MlpWeights,
    /// `[D]`
    pub(crate) mlp_scale: Option<Tensor>,
}

impl LinearWeights {
    pub(crate) fn inputs(&self) -> Result<usize> {
        self.weight.dim(1)
    }

    pub(crate) fn outputs(&self) -> Result<usize> {
        self.weight.dim(0)
    }

    fn to_device(&self, device: &Device) -> Result<Self> {
        let bias = self.bias.as_ref().map(|bias| bias.to_device(device));
        Ok(Self {
            weight: self.weight.to_device(device)?,
            bias: bias.transpose()?,
        })
    }
}

impl NormWeights {
    /// Memory of the weights.
    pub(super) fn bytes(&self) -> usize {
        bytes(&self.gain) + bytes(&self.bias)
    }

    pub(super) fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self {
            gain: self.gain.to_device(device)?,
            bias: self.bias.to_device(device)?,
            eps: self.eps,
        })
    }
}

impl AttentionWeights {
    /// Features of a head.
    pub(super) fn head_width(&self) -> Result<usize> {
        Ok(self.query.outputs()? / self.heads)
    }

    /// Heads of keys and values.
    pub(super) fn kv_heads(&self) -> Result<usize> {
        Ok(self.key.outputs()? / self.head_width()?)
    }
}

impl BlockWeights {
    /// The linears that may be adapted, in the order of the adapter vector.
    pub(super) fn linears(&self) -> impl Iterator<Item = &LinearWeights> {
        let AttentionWeights {
            query,
            key,
            value,
            output,
            ..
        } = &self.attention;
        let MlpWeights { up, down } = &self.mlp;
        [query, key, value, output, up, down].into_iter()
    }

    /// Memory of the weights.
    pub(super) fn bytes(&self) -> usize {
        let linears = self.linears().map(|linear| {
            let bias = linear.bias.as_ref().map_or(0, bytes);
            bytes(&linear.weight) + bias
        });
        let scales = [&self.attention_scale, &self.mlp_scale]
            .into_iter()
            .flatten();
        linears.chain(scales.map(bytes)).sum::<usize>()
            + self.attention_norm.bytes()
            + self.mlp_norm.bytes()
    }

    /// The same on another device; a variable that is there stays one.
    pub(super) fn to_device(&self, device: &Device) -> Result<Self> {
        let Self { attention, mlp, .. } = self;
        let linear = |linear: &LinearWeights| linear.to_device(device);
        let scale = |scale: &Option<Tensor>| {
            let scale = scale.as_ref().map(|scale| scale.to_device(device));
            scale.transpose()
        };
        Ok(Self {
            attention_norm: self.attention_norm.to_device(device)?,
            attention: AttentionWeights {
                heads: attention.heads,
                query: linear(&attention.query)?,
                key: linear(&attention.key)?,
                value: linear(&attention.value)?,
                output: linear(&attention.output)?,
            },
            attention_scale: scale(&self.attention_scale)?,
            mlp_norm: self.mlp_norm.to_device(device)?,
            mlp: MlpWeights {
                up: linear(&mlp.up)?,
                down: linear(&mlp.down)?,
            },
            mlp_scale: scale(&self.mlp_scale)?,
        })
    }
}

/// Memory of a tensor's elements.
pub(crate) fn bytes(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}
