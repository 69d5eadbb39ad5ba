//! The rows of a batch that hold tokens, in candle's operations.

use candle_core::{DType, Result, Tensor};

/// A batch of `[B, S, D]` whose samples may be shorter than S.
pub(super) struct Ragged {
    pub(super) samples: usize,
    pub(super) tokens: usize,
    /// Tokens of each sample; none where all have S.
    pub(super) lengths: Option<Vec<usize>>,
    /// For each row of `[B * S]` the number of its token, or that of tokens where it is padding.
    places: Option<Tensor>,
    /// The rows that hold tokens.
    rows: Option<Tensor>,
}

impl Ragged {
    pub(super) fn new(x: &Tensor, lengths: Option<Vec<usize>>) -> Result<Self> {
        let (samples, tokens, _) = x.dims3()?;
        let mut batch = Self {
            samples,
            tokens,
            lengths,
            places: None,
            rows: None,
        };
        if let Some(lengths) = &batch.lengths {
            let all = lengths.iter().sum::<usize>() as u32;
            let (mut places, mut rows) = (vec![all; samples * tokens], Vec::new());
            for (sample, &length) in lengths.iter().enumerate() {
                let first = sample * tokens;
                for (row, place) in places.iter_mut().enumerate().skip(first).take(length) {
                    *place = rows.len() as u32;
                    rows.push(row as u32);
                }
            }
            batch.places = Some(Tensor::new(places, x.device())?);
            batch.rows = Some(Tensor::new(rows, x.device())?);
        }
        Ok(batch)
    }

    /// The rows `[T, D]` of `x` that hold tokens.
    pub(super) fn pack(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.flatten(0, 1)?;
        match &self.rows {
            Some(rows) => x.index_select(rows, 0),
            None => Ok(x),
        }
    }

    /// `[B, S, D]`, padding zero.
    pub(super) fn unpack(&self, x: &Tensor) -> Result<Tensor> {
        let width = x.dim(1)?;
        let x = match &self.places {
            Some(places) => {
                let zero = Tensor::zeros((1, width), DType::F32, x.device())?;
                Tensor::cat(&[x, &zero], 0)?.index_select(places, 0)?
            }
            None => x.clone(),
        };
        x.reshape((self.samples, self.tokens, width))
    }
}
