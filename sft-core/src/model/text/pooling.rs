//! Which tokens the features of a sample are made of.

use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use super::TextFamily;
use crate::layers::Wanted;
use crate::model::Hidden;

/// What a head reads of a sample's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The first token, which models like BERT have for the class, behind their pooler (BERT's, or the
    /// layer before the last of `RoBERTa`'s and `DistilBERT`'s classifiers; the identity where files
    /// have none).
    First,
    /// The last token that is no padding: all that a decoder has seen the whole sample with.
    Last,
    /// The mean of all tokens that are no padding.
    Mean,
}

impl Pooling {
    /// What the models of a family are made for: the last token of decoders, else the first.
    pub fn of(family: TextFamily) -> Self {
        if family.is_decoder() {
            Self::Last
        } else {
            Self::First
        }
    }

    /// Its name in files and flags.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Last => "last",
            Self::Mean => "mean",
        }
    }

    /// What it needs of the last block.
    pub(super) fn wanted(self) -> Wanted {
        match self {
            Self::First => Wanted::First(1),
            Self::Last => Wanted::Last(1),
            Self::Mean => Wanted::All,
        }
    }

    /// Rows `[B, D]` of a hidden state `[B, S, D]`, or of what it needs of one, each by `norm`.
    pub(super) fn pool(
        self,
        hidden: &Hidden,
        norm: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (batch, tokens, _) = hidden.state.dims3()?;
        let all = vec![tokens as u32; batch];
        let lengths = hidden.lengths.as_ref().unwrap_or(&all);
        match self {
            Self::First => norm(&hidden.state.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?),
            Self::Last => norm(&last(&hidden.state, lengths)?),
            Self::Mean => mean(&norm(&hidden.state)?, lengths),
        }
    }
}

/// The last row of each sample: the only one where the state has no other.
fn last(state: &Tensor, lengths: &[u32]) -> Result<Tensor> {
    let tokens = state.dim(1)? as u32;
    let rows = lengths.iter().enumerate();
    let rows = rows.map(|(i, &length)| i as u32 * tokens + length.min(tokens).saturating_sub(1));
    let rows = Tensor::from_vec(rows.collect::<Vec<_>>(), lengths.len(), state.device())?;
    state.flatten_to(1)?.index_select(&rows, 0)
}

fn mean(state: &Tensor, lengths: &[u32]) -> Result<Tensor> {
    let tokens = state.dim(1)?;
    let shares = lengths.iter().flat_map(|&length| {
        let share = 1.0 / length.max(1) as f32;
        (0..tokens as u32).map(move |token| if token < length { share } else { 0.0 })
    });
    let shape = (lengths.len(), tokens, 1);
    let shares = Tensor::from_vec(shares.collect::<Vec<_>>(), shape, state.device())?;
    state.broadcast_mul(&shares)?.sum(1)
}

/// The rows `[T, D]` of a hidden state `[B, S, D]` that are no padding.
pub(super) fn real_rows(hidden: &Hidden) -> Result<Tensor> {
    let (batch, tokens, _) = hidden.state.dims3()?;
    let rows = hidden.state.flatten_to(1)?;
    let Some(lengths) = &hidden.lengths else {
        return Ok(rows);
    };
    if lengths.len() != batch || lengths.iter().any(|&length| length as usize > tokens) {
        bail!("{batch} samples must have up to {tokens} tokens each, got {lengths:?}")
    }
    let real = lengths.iter().zip(0..).flat_map(|(&length, i)| {
        let first = i * tokens as u32;
        first..first + length
    });
    let real: Vec<_> = real.collect();
    if real.len() == batch * tokens {
        return Ok(rows);
    }
    rows.index_select(&Tensor::new(real, rows.device())?, 0)
}
