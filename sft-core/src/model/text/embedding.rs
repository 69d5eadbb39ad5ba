//! What comes before the blocks: vectors of tokens and of where they stand.

use candle_core::{Device, Result, Tensor, bail};

use super::{TextConfig, TextWeights};
use crate::layers::{Backend, Norm, bytes};

/// The embedding of token ids.
#[derive(Clone, Debug)]
pub(super) struct Embedding {
    /// `[V, D]`
    tokens: Tensor,
    scale: Option<f64>,
    /// `[S, D]` for the first, second, .. token of a sample, with what all tokens have.
    positions: Option<Tensor>,
    norm: Option<Norm>,
    /// The most tokens of a sample.
    most: usize,
}

impl Embedding {
    pub(super) fn new(
        config: &TextConfig,
        weights: &TextWeights,
        backend: &Backend,
    ) -> Result<Self> {
        let (names, form) = (config.family.names(), config.embedding);
        let get = |path| weights.0.get(&format!("{}.weight", names.at(path)));
        let mut positions = names.positions.map(get).transpose()?;
        if let Some(rows) = &positions {
            positions = Some(rows.narrow(0, form.first, config.tokens)?);
        }
        if let (Some(rows), Some(path)) = (&positions, names.types) {
            positions = Some(rows.broadcast_add(&get(path)?.narrow(0, 0, 1)?)?);
        }
        let device = backend.device();
        let norm = names
            .embedding_norm
            .map(|path| weights.norm(config, &names.at(path)));
        let norm = norm.transpose()?.map(|norm| Norm::new(&norm, backend));
        Ok(Self {
            tokens: get(names.tokens)?.to_device(device)?,
            scale: form.scale,
            positions: positions.map(|rows| rows.to_device(device)).transpose()?,
            norm: norm.transpose()?,
            most: config.tokens,
        })
    }

    /// The vectors of the vocabulary, `[V, D]`.
    pub(super) fn tokens(&self) -> &Tensor {
        &self.tokens
    }

    /// Memory of the weights.
    pub(super) fn bytes(&self) -> usize {
        let positions = self.positions.as_ref().map_or(0, bytes);
        bytes(&self.tokens) + positions + self.norm.as_ref().map_or(0, Norm::bytes)
    }

    /// `[B, S]` ids to `[B, S, D]` tokens; those of padding are zero.
    pub(super) fn embed(&self, ids: &Tensor, lengths: &[u32]) -> Result<Tensor> {
        let (batch, tokens) = ids.dims2()?;
        self.check(ids, lengths)?;
        let (kept, real) = (mask(lengths, tokens), ids.device());
        let ids = (ids * Tensor::from_vec(kept.clone(), (batch, tokens), real)?)?;
        let device = self.tokens.device();
        let mut rows = self
            .tokens
            .index_select(&ids.flatten_all()?.to_device(device)?, 0)?;
        if let Some(scale) = self.scale {
            rows = (rows * scale)?;
        }
        let mut state = rows.reshape((batch, tokens, ()))?;
        if let Some(positions) = &self.positions {
            state = state.broadcast_add(&positions.narrow(0, 0, tokens)?)?;
        }
        if let Some(norm) = &self.norm {
            state = norm.forward(&state)?;
        }
        if kept.contains(&0) {
            let kept = kept.into_iter().map(|kept| kept as f32).collect();
            state = state.broadcast_mul(&Tensor::from_vec(kept, (batch, tokens, 1), device)?)?;
        }
        Ok(state)
    }

    fn check(&self, ids: &Tensor, lengths: &[u32]) -> Result<()> {
        let ((batch, tokens), vocabulary) = (ids.dims2()?, self.tokens.dim(0)?);
        if tokens > self.most {
            bail!("the model takes at most {} tokens, got {tokens}", self.most)
        }
        let fits = |length: &u32| (1..=tokens).contains(&(*length as usize));
        if lengths.len() != batch || !lengths.iter().all(fits) {
            bail!("{batch} samples must have 1 to {tokens} tokens each, got {lengths:?}")
        }
        let ids = ids.to_device(&Device::Cpu)?.to_vec2::<u32>()?;
        let real = ids
            .iter()
            .zip(lengths)
            .flat_map(|(ids, length)| &ids[..*length as usize]);
        match real.max() {
            Some(id) if *id as usize >= vocabulary => {
                bail!("the vocabulary has {vocabulary} tokens, got the id {id}")
            }
            _ => Ok(()),
        }
    }
}

/// One for each token of a sample, zero for its padding.
fn mask(lengths: &[u32], tokens: usize) -> Vec<u32> {
    let row = |&length: &u32| (0..tokens as u32).map(move |token| u32::from(token < length));
    lengths.iter().flat_map(row).collect()
}
