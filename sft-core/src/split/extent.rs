//! How large the tensors of a mini-batch are, and which rows of them are padding: these do not cross.

use candle_core::Result;

use crate::model::Hidden;

/// The sizes of a tensor of some samples.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    /// `[B, S, D]` of a hidden state, `[R, D]` of features.
    padded: Vec<usize>,
    /// Tokens of each sample; empty where all have S.
    lengths: Vec<usize>,
    /// `[T, D]` of all tokens.
    packed: [usize; 2],
}

impl Extent {
    /// Of samples with these numbers of tokens, none above S, or with S each.
    pub(super) fn new(padded: [usize; 3], lengths: Option<&[u32]>) -> Self {
        let [samples, tokens, width] = padded;
        let lengths = lengths.unwrap_or_default().iter();
        let lengths: Vec<_> = lengths.map(|&length| length as usize).collect();
        let rows = if lengths.is_empty() {
            samples * tokens
        } else {
            lengths.iter().sum()
        };
        Self {
            padded: padded.into(),
            lengths,
            packed: [rows, width],
        }
    }

    pub(super) fn of(hidden: &Hidden) -> Result<Self> {
        let padded = hidden.state.dims3()?.into();
        Ok(Self::new(padded, hidden.lengths.as_deref()))
    }

    /// Of the features of these samples, which have no padding: a row a sample, or a row a token.
    pub(super) fn features(&self, of_tokens: bool) -> Self {
        let [tokens, width] = self.packed;
        let (rows, lengths) = if of_tokens {
            (tokens, self.lengths.clone())
        } else {
            (self.padded[0], Vec::new())
        };
        Self {
            padded: vec![rows, width],
            lengths,
            packed: [rows, width],
        }
    }

    /// Whether memory holds padding.
    fn is_padded(&self) -> bool {
        self.padded != self.packed && !self.lengths.is_empty()
    }

    /// The shape in memory.
    pub(super) fn padded(&self) -> &[usize] {
        &self.padded
    }

    /// Tokens of each sample; empty where all have S.
    pub(super) fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// The shape that crosses: that in memory, or `[T, D]` where samples have their own lengths.
    pub(super) fn crossing(&self) -> &[usize] {
        if self.lengths.is_empty() {
            &self.padded
        } else {
            &self.packed
        }
    }

    /// What crosses of values in memory.
    pub(super) fn pack(&self, values: Vec<f32>) -> Vec<f32> {
        if !self.is_padded() {
            return values;
        }
        let (tokens, width) = (self.padded[1], self.packed[1]);
        let mut packed = Vec::with_capacity(self.packed.iter().product());
        let samples = values.chunks_exact((tokens * width).max(1));
        for (rows, length) in samples.zip(&self.lengths) {
            packed.extend_from_slice(&rows[..length * width]);
        }
        packed
    }

    /// The values in memory of what crossed, with zeros as padding.
    pub(super) fn unpack(&self, values: Vec<f32>) -> Vec<f32> {
        if !self.is_padded() {
            return values;
        }
        let [samples, tokens, width] = [self.lengths.len(), self.padded[1], self.packed[1]];
        let (mut padded, mut rest) = (vec![0.0; samples * tokens * width], values.as_slice());
        let rows = padded.chunks_exact_mut((tokens * width).max(1));
        for (rows, length) in rows.zip(&self.lengths) {
            let (own, others) = rest.split_at(length * width);
            rows[..own.len()].copy_from_slice(own);
            rest = others;
        }
        padded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_does_not_cross() {
        let ragged = Extent::new([2, 3, 2], Some(&[1, 3]));
        let values: Vec<f32> = (1..=12).map(|i| i as f32).collect();
        assert_eq!(ragged.crossing(), [4, 2]);
        let packed = ragged.pack(values.clone());
        assert_eq!(packed, [1., 2., 7., 8., 9., 10., 11., 12.]);
        let again = ragged.unpack(packed);
        assert_eq!(again, [1., 2., 0., 0., 0., 0., 7., 8., 9., 10., 11., 12.]);

        let tokens = ragged.features(true);
        assert_eq!(
            (tokens.crossing(), tokens.lengths()),
            (&[4, 2][..], &[1, 3][..])
        );
        assert_eq!(tokens.unpack(tokens.pack(values.clone())), values);
        assert_eq!(ragged.features(false).crossing(), [2, 2]);

        let even = Extent::new([2, 3, 2], None);
        assert_eq!(even.crossing(), [2, 3, 2]);
        assert_eq!(even.unpack(even.pack(values.clone())), values);
    }
}
