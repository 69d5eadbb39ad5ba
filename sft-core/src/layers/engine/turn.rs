//! What is done to the queries and keys of each head before their product: a norm, then a rotary
//! embedding.

use candle_core::Result;

use super::buffer::{Buffer, slice};
use super::heads::DotProduct;
use super::norm::Norm;
use super::piece::Tokens;
use crate::kernels::rotate;
use crate::layers::parts::{AttentionWeights, Rotary};

/// The norms of queries and keys and the rotary embedding, where they are.
#[derive(Debug)]
pub(super) struct Turn {
    norms: [Option<Norm>; 2],
    rotary: Option<Rotary>,
}

/// The same for one pass over samples up to some length.
pub(super) struct ReadyTurn<'a> {
    turn: &'a Turn,
    sizes: DotProduct,
    /// Cosines and sines, each `[positions, n]`.
    turns: [Vec<f32>; 2],
}

impl Turn {
    pub(super) fn new(weights: &AttentionWeights) -> Result<Self> {
        let norm = |norm: &Option<_>| norm.as_ref().map(Norm::new).transpose();
        Ok(Self {
            norms: [norm(&weights.query_norm)?, norm(&weights.key_norm)?],
            rotary: weights.rotary.clone(),
        })
    }

    /// Memory of the weights.
    pub(super) fn bytes(&self) -> usize {
        self.norms.iter().flatten().map(Norm::bytes).sum()
    }

    pub(super) fn ready(&self, sizes: DotProduct, positions: usize) -> ReadyTurn<'_> {
        let turns = self.rotary.as_ref().map(|rotary| rotary.turns(positions));
        ReadyTurn {
            turn: self,
            sizes,
            turns: turns.unwrap_or_default(),
        }
    }
}

impl ReadyTurn<'_> {
    /// Queries, keys and values side by side, the former two turned: in `room` where that changes
    /// them.
    pub(super) fn forward<'r>(
        &self,
        samples: &[Tokens],
        qkv: &'r [f32],
        room: &'r mut Buffer,
    ) -> &'r [f32] {
        if self.is_identity() {
            return qkv;
        }
        let turned = slice(room, qkv.len());
        turned.copy_from_slice(qkv);
        let rows = qkv.chunks_exact(self.sizes.stride());
        for ((position, turned), from) in self.rows(samples, turned).zip(rows) {
            for (norm, columns) in self.turn.norms.iter().zip(self.columns()) {
                let turned = &mut turned[columns.clone()];
                if let Some(norm) = norm {
                    norm.forward(&from[columns], turned);
                }
                self.rotate(position, turned, 1.0);
            }
        }
        turned
    }

    /// The gradient of `qkv` in place of that of what [`Self::forward`] made of it.
    pub(super) fn backward(
        &self,
        samples: &[Tokens],
        qkv: &[f32],
        dqkv: &mut [f32],
        room: &mut Buffer,
    ) {
        if self.is_identity() {
            return;
        }
        let rows = qkv.chunks_exact(self.sizes.stride());
        for ((position, dturned), from) in self.rows(samples, dqkv).zip(rows) {
            for (norm, columns) in self.turn.norms.iter().zip(self.columns()) {
                let dturned = &mut dturned[columns.clone()];
                self.rotate(position, dturned, -1.0);
                if let Some(norm) = norm {
                    let dnormed = slice(room, dturned.len());
                    dnormed.copy_from_slice(dturned);
                    dturned.fill(0.0);
                    norm.backward(&from[columns], dnormed, dturned);
                }
            }
        }
    }

    fn is_identity(&self) -> bool {
        self.turn.rotary.is_none() && self.turn.norms.iter().all(Option::is_none)
    }

    /// Where a row has its queries and its keys.
    fn columns(&self) -> [std::ops::Range<usize>; 2] {
        let width = self.sizes.head_width;
        let [queries, keys] = [self.sizes.heads, self.sizes.kv_heads].map(|heads| heads * width);
        [0..queries, queries..queries + keys]
    }

    /// The rows of samples with their positions.
    fn rows<'r>(
        &self,
        samples: &'r [Tokens],
        rows: &'r mut [f32],
    ) -> impl Iterator<Item = (usize, &'r mut [f32])> + use<'r> {
        let positions = samples.iter().flat_map(|tokens| 0..tokens.all);
        positions.zip(rows.chunks_exact_mut(self.sizes.stride()))
    }

    fn rotate(&self, position: usize, heads: &mut [f32], sign: f32) {
        if let Some(rotary) = &self.turn.rotary {
            let n = rotary.inverse_frequencies.len();
            let [cos, sin] = self
                .turns
                .each_ref()
                .map(|turns| &turns[position * n..][..n]);
            rotate(heads, self.sizes.head_width, cos, sin, sign);
        }
    }
}
