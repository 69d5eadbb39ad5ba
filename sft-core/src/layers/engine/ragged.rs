//! The rows of a batch that hold tokens.

use std::borrow::Cow;

use super::piece::{Tokens, Wanted};

/// Samples of a batch, of which each takes the room of as many tokens as the longest may have.
#[derive(Clone, Debug)]
pub(super) struct Ragged {
    pub(super) samples: Vec<Tokens>,
    pub(super) room: Tokens,
}

impl Ragged {
    /// `samples` with room for as many tokens, which all have, or of these `lengths`.
    pub(super) fn new(
        samples: usize,
        room: usize,
        wanted: Wanted,
        lengths: Option<&[usize]>,
    ) -> Self {
        let room = wanted.of(room);
        let samples = match lengths {
            Some(lengths) => lengths.iter().map(|&all| wanted.of(all)).collect(),
            None => vec![room; samples],
        };
        Self { samples, room }
    }

    fn is_even(&self) -> bool {
        self.samples.iter().all(|&tokens| tokens == self.room)
    }

    /// The rows of `x` that hold tokens, where each sample has room for `count(room)` rows of
    /// `width` and holds `count(sample)`.
    pub(super) fn pack<'x>(
        &self,
        x: &'x [f32],
        width: usize,
        count: fn(Tokens) -> usize,
    ) -> Cow<'x, [f32]> {
        if self.is_even() {
            return Cow::Borrowed(x);
        }
        let rooms = x.chunks_exact((count(self.room) * width).max(1));
        let real = rooms.zip(&self.samples);
        let real = real.flat_map(|(x, &tokens)| &x[..count(tokens) * width]);
        Cow::Owned(real.copied().collect())
    }

    /// The rows with padding of zeros.
    pub(super) fn unpack(
        &self,
        rows: Vec<f32>,
        width: usize,
        count: fn(Tokens) -> usize,
    ) -> Vec<f32> {
        if self.is_even() {
            return rows;
        }
        let room = count(self.room) * width;
        let (mut out, mut rest) = (vec![0.0; self.samples.len() * room], rows.as_slice());
        for (out, &tokens) in out.chunks_exact_mut(room.max(1)).zip(&self.samples) {
            let (own, others) = rest.split_at(count(tokens) * width);
            out[..own.len()].copy_from_slice(own);
            rest = others;
        }
        out
    }
}
