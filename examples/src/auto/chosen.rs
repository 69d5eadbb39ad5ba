//! The setting that is chosen, whatever codec the surface is of.

use std::fmt;

use sft_core::Result;
use sft_core::split::CutCodec;
use sft_opt::Compression;
use sft_opt::plan::{CompressionProblem, Rate, Setting, StepCompression, StepSetting};

use super::rates::{Activation, Later, Rates, bits, curve};
use crate::flags::{LevelsFlag, step_codec};
use crate::surface::Surface;

/// A setting of the activation's codec.
#[derive(Clone, Debug)]
pub enum Chosen {
    /// Of a kind of codec with a kept fraction and levels.
    Levels(LevelsFlag, Setting),
    /// Of a kind of codec with one step.
    Step(String, StepSetting),
}

impl Chosen {
    /// Compressed bits over raw bits.
    pub fn beta(&self) -> f64 {
        match self {
            Self::Levels(_, setting) => setting.beta,
            Self::Step(_, setting) => setting.beta,
        }
    }

    /// Accuracy by the surface.
    pub fn accuracy(&self) -> f64 {
        match self {
            Self::Levels(_, setting) => setting.accuracy,
            Self::Step(_, setting) => setting.accuracy,
        }
    }

    /// The codec.
    pub(super) fn codec(&self) -> Result<CutCodec> {
        match self {
            Self::Levels(kind, setting) => {
                Ok(kind.codec(setting.keep, setting.levels() as u32)?.into())
            }
            Self::Step(kind, setting) => step_codec(kind, setting.step),
        }
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Levels(_, setting) => {
                write!(f, "keep {:.3}, {} levels", setting.keep, setting.levels())
            }
            Self::Step(_, setting) => write!(f, "step {:.3}", setting.step),
        }
    }
}

/// What a surface covers.
pub(super) fn covered(surface: &Surface) -> String {
    let (name, (low, high)) = match surface {
        Surface::Levels(surface) => ("keep", surface.keep_range()),
        Surface::Steps(surface) => ("step", surface.fit.curve.range()),
    };
    format!("{name} {low} to {high}")
}

/// The compression problem of one cut, and the kind of codec.
pub(super) enum AtCut {
    Levels(LevelsFlag, Compression),
    Steps(String, StepCompression),
}

impl AtCut {
    pub(super) fn new(accuracy_min: f64, rates: &Rates<'_>, later: Option<&Later>) -> Result<Self> {
        match &rates.activation {
            Activation::Levels(surface, grid) => {
                let (keep_min, keep_max) = surface.keep_range();
                let (bits_min, bits_max) = bits(surface);
                let compression = Compression {
                    accuracy: surface.fit.accuracy,
                    accuracy_min,
                    keep_min,
                    keep_max,
                    bits_min,
                    bits_max,
                    rate: Rate::Table(grid.clone()),
                };
                Ok(Self::Levels(surface.codec, compression))
            }
            Activation::Steps(surface, first) => {
                let same = vec![1.0; first.len()];
                let later = later.map_or(&same, |later| &later.up);
                let compression = StepCompression {
                    accuracy: surface.fit.curve.clone(),
                    accuracy_min,
                    rate: curve(surface, first, later)?,
                };
                Ok(Self::Steps(surface.codec.clone(), compression))
            }
        }
    }
}

impl CompressionProblem for AtCut {
    type Setting = Chosen;

    fn best(&self) -> sft_opt::Result<Option<Chosen>> {
        Ok(match self {
            Self::Levels(kind, problem) => {
                (problem.best()?).map(|setting| Chosen::Levels(*kind, setting))
            }
            Self::Steps(kind, problem) => {
                (problem.best()?).map(|setting| Chosen::Step(kind.clone(), setting))
            }
        })
    }

    fn beta(setting: &Chosen) -> f64 {
        setting.beta()
    }
}
