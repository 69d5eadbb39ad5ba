//! LoRA adapters: where they attach and how one block's lie in a flat vector.
//!
//! A linear layer `W` of a block becomes `W + s B A` with `A` `[r, inputs]`
//! Gaussian, `B` `[outputs, r]` zero and `s = alpha / r`. The adapter of one
//! block is one vector: `A` then `B` of each adapted linear, in the model's order.

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::{Error, Result};

/// A linear layer that takes an adapter; the same in every block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearSpec {
    /// The layer's name within its block, as in the checkpoint.
    pub name: &'static str,
    /// Input features.
    pub inputs: usize,
    /// Output features.
    pub outputs: usize,
}

/// Rank and scale of the adapters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lora {
    rank: usize,
    alpha: f64,
}

impl Lora {
    /// Adapters of `rank` r >= 1 scaled by `alpha` / r, `alpha` positive and finite.
    ///
    /// # Errors
    /// A rank of 0, or an `alpha` that is not positive and finite.
    pub fn new(rank: usize, alpha: f64) -> Result<Self> {
        if rank == 0 {
            return Err(Error::argument("rank", "must be at least 1, got 0"));
        }
        if !(alpha.is_finite() && alpha > 0.0) {
            return Err(Error::argument(
                "alpha",
                format!("must be positive, got {alpha}"),
            ));
        }
        Ok(Self { rank, alpha })
    }

    /// The rank r.
    pub fn rank(self) -> usize {
        self.rank
    }

    /// The numerator of the scale.
    pub fn alpha(self) -> f64 {
        self.alpha
    }

    /// The factor alpha / r on `B A`.
    pub fn scale(self) -> f64 {
        self.alpha / self.rank as f64
    }

    /// Parameters that one block's adapter holds.
    pub fn parameters(self, linears: &[LinearSpec]) -> usize {
        linears
            .iter()
            .map(|l| self.rank * (l.inputs + l.outputs))
            .sum()
    }

    /// One block's initial adapter: `A` from N(0, 1/r^2), `B` zero.
    pub fn initial(self, linears: &[LinearSpec], rng: &mut impl Rng) -> Vec<f32> {
        let deviation = 1.0 / self.rank as f64;
        let mut values = Vec::with_capacity(self.parameters(linears));
        for linear in linears {
            let a = (0..self.rank * linear.inputs).map(|_| (deviation * normal(rng)) as f32);
            values.extend(a);
            values.resize(values.len() + self.rank * linear.outputs, 0.0);
        }
        values
    }
}

/// A draw from the standard normal distribution.
pub(crate) fn normal(rng: &mut impl Rng) -> f64 {
    StandardNormal.sample(rng)
}
