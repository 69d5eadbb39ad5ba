use serde::{Deserialize, Serialize};
use sft_opt::plan::{StepFit, StepPoint};

use crate::flags::step_codec;

/// What crossed of the raw bytes of activations with labels, and of gradients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// Of activations.
    pub up: f64,
    /// Of gradients.
    pub down: f64,
}

/// What the runs with one step did, in the mean over the seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRun {
    /// The step.
    pub step: f64,
    /// Test accuracy.
    pub accuracy: f64,
    /// In the first round, where every sample is new, calibration and bases included.
    pub first: Shares,
    /// In the rounds after it, where samples come again; none if there were none.
    pub later: Option<Shares>,
}

/// Accuracies measured over steps, and the curve fitted to them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepSurface {
    /// The flags of the runs.
    pub settings: serde_json::Value,
    /// The kind of codec of the activation: `transform` for `transform:STEP`.
    pub codec: String,
    /// Mean test accuracy without compression.
    pub raw_accuracy: f64,
    /// What every step did, the steps ascending.
    pub points: Vec<StepRun>,
    /// The curve fitted to the accuracies, and its residual.
    pub fit: StepFit,
}

impl StepSurface {
    pub(super) fn check(&self) -> Result<(), String> {
        let count = self.points.len();
        if count < 2 {
            return Err(format!("points must have at least two, got {count}"));
        }
        let steps: Vec<f64> = self.points.iter().map(|point| point.step).collect();
        if steps != self.fit.curve.steps() {
            return Err("points must have the steps of fit.curve, one each".into());
        }
        for (index, point) in self.points.iter().enumerate() {
            step_codec(&self.codec, point.step).map_err(|e| e.to_string())?;
            is_fraction(&format!("points[{index}].accuracy"), point.accuracy)?;
            for share in [Some(point.first), point.later].into_iter().flatten() {
                let legal = |share: f64| share > 0.0 && share.is_finite();
                if !(legal(share.up) && legal(share.down)) {
                    let (up, down) = (share.up, share.down);
                    return Err(format!(
                        "points[{index}] must have finite and positive shares, got up {up}, down {down}"
                    ));
                }
            }
        }
        (self.fit.curve.values().iter())
            .try_for_each(|&value| is_fraction("the values of fit.curve", value))
    }

    /// The accuracies as points of a fit.
    pub fn accuracies(points: &[StepRun]) -> Vec<StepPoint> {
        let point = |run: &StepRun| StepPoint {
            step: run.step,
            value: run.accuracy,
        };
        points.iter().map(point).collect()
    }
}

fn is_fraction(name: &str, value: f64) -> Result<(), String> {
    let legal = (0.0..=1.0).contains(&value);
    (legal.then_some(())).ok_or_else(|| format!("{name} must be in 0..=1, got {value}"))
}
