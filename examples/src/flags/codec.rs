//! A codec as the value of a flag.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize, Serializer};
use sft_compress::Codec;

/// A codec by the name of its constructor, with that constructor's numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CodecFlag {
    /// `paper:KEEP:LEVELS`.
    Paper(f64, u32),
    /// `activation:KEEP:LEVELS`.
    Activation(f64, u32),
    /// `gradient:KEEP:LEVELS`.
    Gradient(f64, u32),
    /// `dead-zone:STEP`.
    DeadZone(f64),
    /// `raw`.
    Raw,
}

impl CodecFlag {
    /// The codec.
    ///
    /// # Errors
    /// A number outside its range.
    pub fn codec(self) -> sft_compress::Result<Codec> {
        match self {
            Self::Paper(keep, levels) => Codec::paper(keep, levels),
            Self::Activation(keep, levels) => Codec::activation(keep, levels),
            Self::Gradient(keep, levels) => Codec::gradient(keep, levels),
            Self::DeadZone(step) => Codec::dead_zone(step),
            Self::Raw => Ok(Codec::raw()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Paper(..) => "paper",
            Self::Activation(..) => "activation",
            Self::Gradient(..) => "gradient",
            Self::DeadZone(_) => "dead-zone",
            Self::Raw => "raw",
        }
    }
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

impl LevelsFlag {
    /// The codec at a kept fraction and a number of levels.
    pub fn at(self, keep: f64, levels: u32) -> CodecFlag {
        match self {
            Self::Paper => CodecFlag::Paper(keep, levels),
            Self::Activation => CodecFlag::Activation(keep, levels),
            Self::Gradient => CodecFlag::Gradient(keep, levels),
        }
    }
}

impl FromStr for CodecFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let flag = match parts[..] {
            ["paper", keep, levels] => Self::Paper(number(keep)?, number(levels)?),
            ["activation", keep, levels] => Self::Activation(number(keep)?, number(levels)?),
            ["gradient", keep, levels] => Self::Gradient(number(keep)?, number(levels)?),
            ["dead-zone", step] => Self::DeadZone(number(step)?),
            ["raw"] => Self::Raw,
            _ => {
                return Err(
                    "expected dead-zone:STEP, activation:KEEP:LEVELS, gradient:KEEP:LEVELS, \
                     paper:KEEP:LEVELS or raw"
                        .into(),
                );
            }
        };
        flag.codec().map_err(|error| error.to_string())?;
        Ok(flag)
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: fmt::Display,
{
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

impl fmt::Display for CodecFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Paper(keep, levels)
            | Self::Activation(keep, levels)
            | Self::Gradient(keep, levels) => write!(f, ":{keep}:{levels}"),
            Self::DeadZone(step) => write!(f, ":{step}"),
            Self::Raw => Ok(()),
        }
    }
}

impl Serialize for CodecFlag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
