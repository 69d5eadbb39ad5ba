//! How the learning rates change over a run.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The factor on the learning rates: a linear warm-up, times a decay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Rounds, also fractions of one, over which the rates rise from 0 in every step.
    pub warmup_rounds: f64,
    /// How the rates fall.
    pub decay: Decay,
}

/// How the learning rates fall.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Not at all.
    Constant,
    /// By this factor, in (0, 1], from round to round, as in the paper.
    Exponential(f64),
    /// Along half a cosine from the end of the warm-up to 0 at the end of the last round.
    Cosine,
}

impl Schedule {
    /// A decay without warm-up.
    pub fn new(decay: Decay) -> Self {
        Self {
            warmup_rounds: 0.0,
            decay,
        }
    }

    /// Whether the factor depends on the number of rounds, and not on the round alone.
    pub(crate) fn depends_on_rounds(&self) -> bool {
        self.decay == Decay::Cosine
    }

    pub(crate) fn validate(&self, rounds: usize) -> Result<()> {
        if let Decay::Exponential(factor) = self.decay {
            let holds = factor > 0.0 && factor <= 1.0;
            Error::require(holds, "lr_decay", factor, "in (0, 1]")?;
        }
        let (warmup, accepted) = (self.warmup_rounds, format!("in [0, {rounds})"));
        let holds = (0.0..rounds as f64).contains(&warmup);
        Error::require(holds, "warmup_rounds", warmup, &accepted)
    }

    /// The factor for step `step` of `steps` in a round, counted from 1, of `rounds`.
    pub fn factor(&self, round: usize, rounds: usize, step: u64, steps: u64) -> f64 {
        let before = (round - 1) as f64 + step as f64 / steps as f64;
        let after = (round - 1) as f64 + (step + 1) as f64 / steps as f64;
        let decay = match self.decay {
            Decay::Constant => 1.0,
            Decay::Exponential(factor) => (1..round).fold(1.0, |product, _| product * factor),
            Decay::Cosine => {
                let past = (before - self.warmup_rounds).max(0.0);
                let progress = past / (rounds as f64 - self.warmup_rounds);
                0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
        };
        if after < self.warmup_rounds {
            return decay * after / self.warmup_rounds;
        }
        decay
    }
}
