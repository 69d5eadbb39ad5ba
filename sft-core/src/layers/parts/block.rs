//! The weights of a block.

use candle_core::{Device, Result, Tensor};

use super::{AttentionWeights, LinearWeights, MlpWeights, NormWeights, bytes};

/// Where the norm of a branch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormOrder {
    /// Before the branch: `x + f(norm(x))`.
    Before,
    /// After its sum with the residual stream, as in BERT: `norm(x + f(x))`.
    After,
}

/// A frozen block of two branches, the attention and then the MLP, each added to the residual
/// stream with its norm before or after. Either branch may be normalised (Gemma's sandwich), then
/// scaled feature by feature (`LayerScale`) before it is added.
///
/// The linears lie in the adapter vector in the order query, key, value (or one of all three), output, gate,
/// up, down.
#[derive(Clone, Debug)]
pub(crate) struct BlockWeights {
    pub(crate) order: NormOrder,
    pub(crate) attention_norm: NormWeights,
    pub(crate) attention: AttentionWeights,
    pub(crate) attention_out_norm: Option<NormWeights>,
    /// `[D]`
    pub(crate) attention_scale: Option<Tensor>,
    pub(crate) mlp_norm: NormWeights,
    pub(crate) mlp: MlpWeights,
    pub(crate) mlp_out_norm: Option<NormWeights>,
    /// `[D]`
    pub(crate) mlp_scale: Option<Tensor>,
}

impl BlockWeights {
    /// The linears that may be adapted, in the order of the adapter vector.
    pub(crate) fn linears(&self) -> impl Iterator<Item = &LinearWeights> {
        let AttentionWeights { qkv, output, .. } = &self.attention;
        let MlpWeights { gate, up, down, .. } = &self.mlp;
        qkv.iter().chain([output]).chain(gate).chain([up, down])
    }

    /// Where the weights are.
    pub(crate) fn device(&self) -> &Device {
        self.attention_norm.gain.device()
    }

    /// Memory of the weights.
    pub(crate) fn bytes(&self) -> usize {
        let scales = [&self.attention_scale, &self.mlp_scale];
        let out_norms = [&self.attention_out_norm, &self.mlp_out_norm];
        let norms = [&self.attention_norm, &self.mlp_norm].into_iter();
        let norms = norms.chain(out_norms.into_iter().flatten());
        let norms = norms.chain(self.attention.norms());
        let linears = self.linears().map(LinearWeights::bytes);
        let scales = scales.into_iter().flatten().map(bytes);
        linears.chain(scales).sum::<usize>() + norms.map(NormWeights::bytes).sum::<usize>()
    }

    /// The same on another device; a variable that is there stays one.
    pub(crate) fn to_device(&self, device: &Device) -> Result<Self> {
        let scale = |scale: &Option<Tensor>| {
            let scale = scale.as_ref().map(|scale| scale.to_device(device));
            scale.transpose()
        };
        let out_norm = |norm: &Option<NormWeights>| {
            let norm = norm.as_ref().map(|norm| norm.to_device(device));
            norm.transpose()
        };
        Ok(Self {
            order: self.order,
            attention_norm: self.attention_norm.to_device(device)?,
            attention: self.attention.to_device(device)?,
            attention_out_norm: out_norm(&self.attention_out_norm)?,
            attention_scale: scale(&self.attention_scale)?,
            mlp_norm: self.mlp_norm.to_device(device)?,
            mlp: self.mlp.to_device(device)?,
            mlp_out_norm: out_norm(&self.mlp_out_norm)?,
            mlp_scale: scale(&self.mlp_scale)?,
        })
    }
}
