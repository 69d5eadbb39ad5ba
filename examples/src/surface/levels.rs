use serde::{Deserialize, Serialize};
use sft_opt::plan::{AccuracyPoint, Fit};

use crate::flags::LevelsFlag;

/// Accuracies measured over kept fractions and bits, and the cubic fitted to them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LevelsSurface {
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

impl LevelsSurface {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.points.is_empty() {
            return Err("points is empty: at least one is needed".into());
        }
        Ok(())
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
