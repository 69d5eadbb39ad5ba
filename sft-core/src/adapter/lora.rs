//! LoRA adapters: their sizes, and how they lie in flat vectors.
//!
//! A linear layer `W` becomes `W + s B A` with `A` `[r, inputs]`
//! Gaussian, `B` `[outputs, r]` zero and `s = alpha / r`. The adapter of one
//! block is one vector: `A` then `B` of each adapted linear, in the model's order. Those before the
//! blocks are a vector of their own, and so is the head's.

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use super::{LinearSpec, ModelSpec, Place, TargetModules, Targets};
use crate::seed::{self, derive, mix};
use crate::{Error, Result};

/// The largest rank that is believed: far beyond any use, small enough for every product of sizes.
const MAX_RANK: usize = 1 << 16;

/// Rank, scale, targets and dropout of the adapters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lora {
    rank: usize,
    alpha: f64,
    targets: Targets,
    /// Blocks from the first on that have no adapter.
    frozen_blocks: usize,
    dropout: f64,
    /// Where the masks of the forward pass come from; without it nothing is dropped.
    mask_seed: Option<u64>,
}

impl Lora {
    /// The adapters that a run or a plan describes, their targets resolved in a model.
    ///
    /// # Errors
    /// As [`Lora::new`] and [`Lora::with_dropout`], or a target that the model does not have.
    pub(crate) fn of(
        spec: &ModelSpec,
        rank: usize,
        alpha: f64,
        targets: &TargetModules,
        dropout: f64,
    ) -> Result<Self> {
        let lora = Self::new(rank, alpha)?.with_targets(targets.resolve(spec)?);
        lora.with_dropout(dropout)
    }

    /// Adapters of `rank` r, 1 to 65,536, on every linear layer of the blocks, scaled by `alpha` / r, `alpha`
    /// positive and finite, without dropout.
    ///
    /// # Errors
    /// A rank outside its range, or an `alpha` that is not positive and finite.
    pub fn new(rank: usize, alpha: f64) -> Result<Self> {
        if rank == 0 {
            return Err(Error::argument("rank", "must be at least 1, got 0"));
        }
        if rank > MAX_RANK {
            let reason = format!("must be at most {MAX_RANK}, got {rank}");
            return Err(Error::argument("rank", reason));
        }
        if !(alpha.is_finite() && alpha > 0.0) {
            return Err(Error::argument(
                "alpha",
                format!("must be positive, got {alpha}"),
            ));
        }
        Ok(Self {
            rank,
            alpha,
            targets: Targets::ALL_LINEAR,
            frozen_blocks: 0,
            dropout: 0.0,
            mask_seed: None,
        })
    }

    /// The same on these layers only.
    #[must_use]
    pub fn with_targets(self, targets: Targets) -> Self {
        Self { targets, ..self }
    }

    /// The same without adapters on so many blocks from the first on, whatever the targets: where
    /// these are all blocks of a device, its half of the model is frozen.
    #[must_use]
    pub fn with_frozen_blocks(self, frozen_blocks: usize) -> Self {
        Self {
            frozen_blocks,
            ..self
        }
    }

    /// The same with this fraction of an adapter's inputs dropped while training, in [0, 1).
    ///
    /// # Errors
    /// A fraction outside [0, 1).
    pub fn with_dropout(self, dropout: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&dropout) {
            let reason = format!("must be in [0, 1), got {dropout}");
            return Err(Error::argument("lora_dropout", reason));
        }
        Ok(Self { dropout, ..self })
    }

    /// The same with dropout switched on, its masks drawn from `seed`.
    ///
    /// The masks depend on the seed, the block, the layer and the element, on nothing else.
    #[must_use]
    pub fn training(self, seed: u64) -> Self {
        Self {
            mask_seed: (self.dropout > 0.0).then_some(seed),
            ..self
        }
    }

    /// The same of another rank, 1 to 65,536, and the same scale.
    pub(crate) fn with_rank(self, rank: usize) -> Self {
        if rank == self.rank {
            return self;
        }
        let alpha = self.scale() * rank as f64;
        Self {
            rank,
            alpha,
            ..self
        }
    }

    /// The same for one block: its masks are its own, and it may be frozen.
    pub(crate) fn in_block(self, block: usize) -> Self {
        let frozen = block < self.frozen_blocks;
        Self {
            mask_seed: self.mask_seed.map(|seed| derive(seed, &[block as u64])),
            targets: if frozen { Targets::NONE } else { self.targets },
            ..self
        }
    }

    /// Whether dropout is switched on.
    pub(crate) fn is_masked(self) -> bool {
        self.mask_seed.is_some()
    }

    /// The mask on the input of a layer's adapter.
    pub(crate) fn mask(self, place: Place) -> Option<Dropout> {
        let own = |seed| match place {
            Place::Block(i) => derive(seed, &[i as u64]),
            Place::Embedding(i) => derive(seed, &[seed::EMBEDDING_ADAPTER, i as u64]),
            Place::Head => derive(seed, &[seed::HEAD_ADAPTER, 0]),
        };
        self.mask_seed.map(|seed| Dropout {
            seed: own(seed),
            fraction: self.dropout,
        })
    }

    /// The rank r.
    pub fn rank(self) -> usize {
        self.rank
    }

    /// The rank of the adapter on a layer: r, or 0 where it has none.
    pub(crate) fn rank_of(self, place: Place) -> usize {
        if self.targets.contains(place) {
            self.rank
        } else {
            0
        }
    }

    /// The numerator of the scale.
    pub fn alpha(self) -> f64 {
        self.alpha
    }

    /// The factor alpha / r on `B A`.
    pub fn scale(self) -> f64 {
        self.alpha / self.rank as f64
    }

    /// The layers that get an adapter.
    pub fn targets(self) -> Targets {
        self.targets
    }

    /// Blocks from the first on that have no adapter.
    pub fn frozen_blocks(self) -> usize {
        self.frozen_blocks
    }

    /// Whether nothing is trained before or in the first `cut` blocks, which are at least one.
    pub(crate) fn freezes(self, cut: usize) -> bool {
        self.frozen_blocks > 0 && self.frozen_blocks >= cut
    }

    /// The fraction of an adapter's inputs that is dropped while training.
    pub fn dropout(self) -> f64 {
        self.dropout
    }

    /// Parameters of the adapters of one block that is not frozen.
    pub fn block_parameters(self, spec: &ModelSpec) -> usize {
        self.parameters(Place::Block, &spec.block)
    }

    /// Parameters of the adapters before the blocks.
    pub fn embedding_parameters(self, spec: &ModelSpec) -> usize {
        self.parameters(Place::Embedding, &spec.embedding)
    }

    /// Parameters of the adapter of a head of `outputs` outputs; 0 where it has none.
    pub fn head_parameters(self, spec: &ModelSpec, outputs: usize) -> usize {
        self.rank_of(Place::Head) * (spec.width + outputs)
    }

    fn parameters(self, place: fn(usize) -> Place, layers: &[LinearSpec]) -> usize {
        let layers = layers.iter().enumerate();
        let count = layers.map(|(i, l)| self.rank_of(place(i)) * (l.inputs + l.outputs));
        count.sum()
    }

    /// The initial adapters of layers, one after the other: `A` from N(0, 1/r^2), `B` zero.
    pub(crate) fn initial(
        self,
        place: fn(usize) -> Place,
        layers: &[LinearSpec],
        rng: &mut impl Rng,
    ) -> Vec<f32> {
        let layers = layers.iter().enumerate();
        let each = layers.map(|(i, l)| self.initial_of(place(i), [l.inputs, l.outputs], rng));
        each.collect::<Vec<_>>().concat()
    }

    /// One layer's initial adapter; empty where it has none.
    pub(crate) fn initial_of(
        self,
        place: Place,
        [inputs, outputs]: [usize; 2],
        rng: &mut impl Rng,
    ) -> Vec<f32> {
        let (rank, deviation) = (self.rank_of(place), 1.0 / self.rank as f64);
        let a = (0..rank * inputs).map(|_| (deviation * normal(rng)) as f32);
        let mut values: Vec<_> = a.collect();
        values.resize(rank * (inputs + outputs), 0.0);
        values
    }
}

/// A dropout mask that is computed, not kept: element `i` is dropped if the hash of seed and `i`
/// falls below the fraction, and scaled by `1 / (1 - fraction)` otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropout {
    seed: u64,
    fraction: f64,
}

impl Dropout {
    /// The mask from element `count` on.
    pub(crate) fn skip(self, count: usize) -> Self {
        let seed = self.seed.wrapping_add(count as u64);
        Self { seed, ..self }
    }

    /// Multiplies every element by its factor.
    pub(crate) fn apply(self, values: &mut [f32]) {
        // Below 2^64 since the fraction is below 1.
        let threshold = (self.fraction * 2f64.powi(64)) as u64;
        let scale = (1.0 / (1.0 - self.fraction)) as f32;
        for (i, value) in values.iter_mut().enumerate() {
            let dropped = mix(self.seed.wrapping_add(i as u64)) < threshold;
            *value *= if dropped { 0.0 } else { scale };
        }
    }
}

/// A draw from the standard normal distribution.
pub(crate) fn normal(rng: &mut impl Rng) -> f64 {
    StandardNormal.sample(rng)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_drops_its_fraction_and_keeps_the_mean() {
        for fraction in [0.1, 0.5, 0.9] {
            let mask = |seed| {
                let mut values = vec![1.0; 100_000];
                Dropout { seed, fraction }.apply(&mut values);
                values
            };
            let values = mask(1);
            let dropped = values.iter().filter(|&&v| v == 0.0).count() as f64 / 1e5;
            let mean = values.iter().copied().map(f64::from).sum::<f64>() / 1e5;
            // Five standard errors.
            let error = 5.0 * (fraction * (1.0 - fraction) / 1e5).sqrt();
            assert!((dropped - fraction).abs() < error, "{fraction}: {dropped}");
            assert!(
                (mean - 1.0).abs() < error / (1.0 - fraction),
                "{fraction}: {mean}"
            );
            assert_eq!(values, mask(1));
            assert_ne!(values, mask(2));
        }
    }
}
