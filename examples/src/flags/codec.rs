//! A codec as the value of a flag.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize, Serializer};
use sft_compress::Codec;

/// A codec by the name of its constructor, with that constructor's numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CodecFlag {
    /// `KIND:KEEP:LEVELS`.
    Levels(LevelsFlag, f64, u32),
    /// `dead-zone:STEP`.
    DeadZone(f64),
    /// `raw`.
    Raw,
}

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

impl CodecFlag {
    /// The codec.
    ///
    /// # Errors
    /// A number outside its range.
    pub fn codec(self) -> sft_compress::Result<Codec> {
        match self {
            Self::Levels(LevelsFlag::Paper, keep, levels) => Codec::paper(keep, levels),
            Self::Levels(LevelsFlag::Activation, keep, levels) => Codec::activation(keep, levels),
            Self::Levels(LevelsFlag::Gradient, keep, levels) => Codec::gradient(keep, levels),
            Self::DeadZone(step) => Codec::dead_zone(step),
            Self::Raw => Ok(Codec::raw()),
        }
    }
}

impl LevelsFlag {
    fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Activation => "activation",
            Self::Gradient => "gradient",
        }
    }
}

impl FromStr for CodecFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let kind = |name: &str| LevelsFlag::from_str(name, false).map_err(|_| expected());
        let flag = match parts[..] {
            [name, keep, levels] => Self::Levels(kind(name)?, number(keep)?, number(levels)?),
            ["dead-zone", step] => Self::DeadZone(number(step)?),
            ["raw"] => Self::Raw,
            _ => return Err(expected()),
        };
        flag.codec().map_err(|error| error.to_string())?;
        Ok(flag)
    }
}

fn expected() -> String {
    "expected dead-zone:STEP, activation:KEEP:LEVELS, gradient:KEEP:LEVELS, paper:KEEP:LEVELS or raw"
        .into()
}

fn number<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: fmt::Display,
{
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

impl fmt::Display for CodecFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Levels(kind, keep, levels) => write!(f, "{}:{keep}:{levels}", kind.name()),
            Self::DeadZone(step) => write!(f, "dead-zone:{step}"),
            Self::Raw => f.write_str("raw"),
        }
    }
}

impl Serialize for CodecFlag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
