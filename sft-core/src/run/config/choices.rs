use std::fmt;

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::run::Scheme;

/// The update rule of the adapters and the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// AdamW with beta 0.9 and 0.999.
    Adamw,
}

/// How the learning rates fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Not at all.
    Constant,
    /// By lr_decay from round to round, as in the paper.
    Exponential,
    /// Along half a cosine to 0 at the end of the last round.
    Cosine,
}

/// How the links change from round to round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum FadingKind {
    /// Every link keeps its mean.
    None,
    /// Rayleigh block fading, a new draw in every round.
    Rayleigh,
}

/// What is trained of a device's half of a model that is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum DeviceAdaptersKind {
    /// Its LoRA adapters.
    Lora,
    /// Nothing.
    None,
}

/// Where the model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// The block engine for processors.
    Cpu,
    /// candle's operations on the first NVIDIA GPU.
    Cuda,
    /// candle's operations on the first Apple GPU.
    Metal,
}

/// Schemes as a list of names, or as one text with commas between.
pub(super) fn schemes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Scheme>, D::Error> {
    from.deserialize_any(Schemes)
}

struct Schemes;

impl<'de> Visitor<'de> for Schemes {
    type Value = Vec<Scheme>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("names of schemes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<Scheme>, E> {
        let parsed: Result<_, String> = text.split(',').map(str::parse).collect();
        parsed.map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Vec<Scheme>, A::Error> {
        let mut schemes = Vec::new();
        while let Some(name) = names.next_element::<String>()? {
            schemes.push(name.parse().map_err(A::Error::custom)?);
        }
        Ok(schemes)
    }
}
