//! An accuracy surface as a file: what `accuracy_sweep` writes and `vit_finetune --auto` reads.

/// Over kept fraction and bits.
mod levels;
/// Over one step.
mod steps;

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use sft_core::{Error, Result};

use crate::flags::LevelsFlag;

pub use levels::LevelsSurface;
pub use steps::{Shares, StepRun, StepSurface};

/// The surface of the embedded digits model, measured by `accuracy_sweep --seeds 1,2,3`.
const DIGITS: &str = include_str!("../results/digits_steps.json");

/// Measured accuracies and what is fitted to them.
#[derive(Clone, Debug)]
pub enum Surface {
    /// Of a codec with a kept fraction and levels.
    Levels(LevelsSurface),
    /// Of a codec with one step.
    Steps(StepSurface),
}

impl Surface {
    /// The surface in `path`, or that of the embedded digits model.
    ///
    /// # Errors
    /// A file that cannot be read or holds no surface.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Self::parse(DIGITS.as_bytes(), Path::new("the embedded surface"));
        };
        let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
        Self::parse(&bytes, path)
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let read = serde_json::from_slice(bytes);
        let value: Value = read.map_err(|e| Error::file(path, e))?;
        // The kind of codec says what else there is.
        let surface = if LevelsFlag::deserialize(&value["codec"]).is_ok() {
            LevelsSurface::deserialize(value).map(Self::Levels)
        } else {
            StepSurface::deserialize(value).map(Self::Steps)
        };
        let surface = surface.map_err(|e| Error::file(path, e))?;
        surface.check().map_err(|e| Error::file(path, e))?;
        Ok(surface)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let raw = self.raw_accuracy();
        if !(0.0..=1.0).contains(&raw) {
            return Err(format!("raw_accuracy must be in 0..=1, got {raw}"));
        }
        match self {
            Self::Levels(surface) => surface.check(),
            Self::Steps(surface) => surface.check(),
        }
    }

    /// The flags of the runs behind it.
    pub fn settings(&self) -> &Value {
        match self {
            Self::Levels(surface) => &surface.settings,
            Self::Steps(surface) => &surface.settings,
        }
    }

    /// Mean test accuracy without compression.
    pub fn raw_accuracy(&self) -> f64 {
        match self {
            Self::Levels(surface) => surface.raw_accuracy,
            Self::Steps(surface) => surface.raw_accuracy,
        }
    }
}
