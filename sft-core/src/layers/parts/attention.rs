//! The weights of an attention, and which tokens see which.

use std::ops::Range;

use candle_core::{Device, Result, bail};

use super::{LinearWeights, NormWeights};

/// A frozen multi-head attention. Keys and values may have fewer heads than queries, each of which
/// then serves as many queries' heads that follow each other (grouped heads).
#[derive(Clone, Debug)]
pub(crate) struct AttentionWeights {
    /// Heads of the queries.
    pub(crate) heads: usize,
    /// Features of a head, d; all heads together need not be as wide as the model.
    pub(crate) head_width: usize,
    /// The factor of the scores, usually 1 / sqrt(d).
    pub(crate) scale: f64,
    /// How queries and keys are turned by their positions.
    pub(crate) rotary: Option<Rotary>,
    /// Over the features of each head of the queries, before they are turned.
    pub(crate) query_norm: Option<NormWeights>,
    /// The same of the keys.
    pub(crate) key_norm: Option<NormWeights>,
    pub(crate) mask: Mask,
    /// Queries, keys and values: a linear each, or one whose outputs are all of them in this order.
    pub(crate) qkv: Vec<LinearWeights>,
    pub(crate) output: LinearWeights,
}

/// Rotary position embedding (Su et al. 2021): at position `t`, features `i` and `i + n` of a head are
/// turned by `t` times frequency `i` of `n`, and scaled. Later features than `2 n` stay as they are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rotary {
    /// Radians per position, at most d / 2 of them: `theta^(-i / n)`, as a model's scaling changes
    /// them. Hugging Face calls them inverse frequencies.
    pub(crate) inverse_frequencies: Vec<f32>,
    /// The factor of cosine and sine, usually 1.
    pub(crate) factor: f32,
}

/// Which tokens a token sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mask {
    /// All of its sample.
    None,
    /// Itself and those before it; of a window w, itself and the w - 1 before it.
    Causal { window: Option<usize> },
}

impl Mask {
    /// The tokens that the token at `position` of `tokens` sees.
    pub(crate) fn visible(self, position: usize, tokens: usize) -> Range<usize> {
        match self {
            Self::None => 0..tokens,
            Self::Causal { window } => {
                let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
                first..position + 1
            }
        }
    }
}

impl Rotary {
    /// Cosines, then sines, each `[positions, n]`.
    pub(crate) fn turns(&self, positions: usize) -> [Vec<f32>; 2] {
        let angles = || {
            let at = |t| self.inverse_frequencies.iter().map(move |w| t as f32 * w);
            (0..positions).flat_map(at)
        };
        [f32::cos, f32::sin].map(|part: fn(f32) -> f32| {
            let turns = angles().map(|angle| self.factor * part(angle));
            turns.collect()
        })
    }
}

impl AttentionWeights {
    /// Features of all heads' queries, keys and values.
    pub(crate) fn widths(&self) -> Result<[usize; 3]> {
        let outputs = self.qkv.iter().map(LinearWeights::outputs);
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        match outputs[..] {
            [queries, keys, values] => Ok([queries, keys, values]),
            [all] => {
                let queries = all.min(self.heads * self.head_width);
                let keys = (all - queries) / 2;
                Ok([queries, keys, all - queries - keys])
            }
            _ => bail!(
                "queries, keys and values are one linear or three, got {}",
                outputs.len()
            ),
        }
    }

    /// Heads of keys and values.
    pub(crate) fn kv_heads(&self) -> Result<usize> {
        Ok(self.widths()?[1] / self.head_width.max(1))
    }

    /// The sizes must fit each other.
    pub(crate) fn check(&self) -> Result<()> {
        let Self {
            heads, head_width, ..
        } = self;
        let [queries, keys, values] = self.widths()?;
        if *head_width == 0 || queries != heads * head_width {
            bail!("{heads} heads of {head_width} features do not make {queries} of queries")
        }
        if keys != values || !keys.is_multiple_of(*head_width) {
            bail!("heads of {head_width} features do not make {keys} of keys, {values} of values")
        }
        let kv_heads = keys / head_width;
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            bail!("heads of keys and values must divide {heads}, got {kv_heads}")
        }
        let turned = self.rotary.as_ref();
        let turned = turned.map_or(0, |rotary| 2 * rotary.inverse_frequencies.len());
        if turned > *head_width {
            bail!(
                "a rotary embedding of {turned} features needs heads of as many, got {head_width}"
            )
        }
        if self.mask == (Mask::Causal { window: Some(0) }) {
            bail!("a window must hold at least 1 token, got 0")
        }
        Ok(())
    }

    pub(crate) fn norms(&self) -> impl Iterator<Item = &NormWeights> {
        [&self.query_norm, &self.key_norm].into_iter().flatten()
    }

    pub(crate) fn to_device(&self, device: &Device) -> Result<Self> {
        let norm = |norm: &Option<NormWeights>| {
            let norm = norm.as_ref().map(|norm| norm.to_device(device));
            norm.transpose()
        };
        let qkv = self.qkv.iter().map(|linear| linear.to_device(device));
        Ok(Self {
            rotary: self.rotary.clone(),
            query_norm: norm(&self.query_norm)?,
            key_norm: norm(&self.key_norm)?,
            qkv: qkv.collect::<Result<_>>()?,
            output: self.output.to_device(device)?,
            ..*self
        })
    }
}
