//! An accuracy surface as a file: what `accuracy_sweep` writes and `vit_finetune --auto` reads.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sft_core::{Error, Result};
use sft_opt::plan::{AccuracyPoint, Fit};

use crate::flags::LevelsFlag;

/// The surface of the embedded digits model, measured by `accuracy_sweep --seeds 1,2,3`.
const DIGITS: &str = include_str!("../results/digits_surface.json");

/// Accuracies measured over kept fractions and bits, and the cubic fitted to them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Surface {
    /// The flags of the runs.
    pub settings: serde_json::Value,
    /// The kind of codec of the activation.
    pub codec: LevelsFlag,
    /// Mean test accuracy without compression.
    pub raw_accuracy: f64,
    /// Mean test accuracy of every setting.
    pub points: Vec<AccuracyPoint>,
    /// The fitted surface (section IV-C), its residual and where it is not monotone.
    pub fit: Fit,
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
        let surface: Self = serde_json::from_slice(bytes).map_err(|e| Error::file(path, e))?;
        if surface.points.is_empty() {
            return Err(Error::file(path, "points is empty: at least one is needed"));
        }
        if !(0.0..=1.0).contains(&surface.raw_accuracy) {
            let reason = format!(
                "raw_accuracy must be in 0..=1, got {}",
                surface.raw_accuracy
            );
            return Err(Error::file(path, reason));
        }
        Ok(surface)
    }

    /// Least and largest kept fraction measured.
    pub fn keep_range(&self) -> (f64, f64) {
        range(self.points.iter().map(|point| point.keep))
    }

    /// Least and largest number of bits measured.
    pub fn bits_range(&self) -> (f64, f64) {
        range(self.points.iter().map(|point| point.bits))
    }
}

fn range(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    (low, values.fold(f64::NEG_INFINITY, f64::max))
}
