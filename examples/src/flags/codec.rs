//! A kind of codec as the value of a flag.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use sft_compress::{Codec, Result};

/// A kind of codec that has a kept fraction and levels.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LevelsFlag {
    /// Levels evenly in one range, Golomb and entropy codes.
    Paper,
    /// Levels logarithmically in one range, coded by context.
    Activation,
    /// Levels evenly in a range for each row (token), coded by context.
    Gradient,
}

impl LevelsFlag {
    /// The codec of this kind.
    ///
    /// # Errors
    /// A number outside its range.
    pub fn codec(self, keep: f64, levels: u32) -> Result<Codec> {
        match self {
            Self::Paper => Codec::paper(keep, levels),
            Self::Activation => Codec::activation(keep, levels),
            Self::Gradient => Codec::gradient(keep, levels),
        }
    }
}
