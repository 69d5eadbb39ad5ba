//! The compression problem of a codec with one knob: the coarsest step that is accurate enough.

use serde::{Deserialize, Serialize};

use super::compression_problem::CompressionProblem;
use super::step_curve::StepCurve;
use crate::error::{Result, check, check_rate};

/// What a codec with one knob may do, and what it must achieve; see [`StepCurve`] for the knob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepCompression {
    /// Accuracy over the step, a fraction of 1.
    pub accuracy: StepCurve,
    /// Least accuracy `A_th`, finite: the accuracy without compression less the loss allowed.
    pub accuracy_min: f64,
    /// Compressed bits over raw bits `β` over the step, positive.
    pub rate: StepCurve,
}

/// A step of a codec.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepSetting {
    /// The step.
    pub step: f64,
    /// Compressed bits over raw bits `β`.
    pub beta: f64,
    /// Accuracy that the curve predicts.
    pub accuracy: f64,
}

impl StepCompression {
    /// Checks every field.
    ///
    /// # Errors
    /// A field outside its documented range, curves without a step in common.
    pub fn validate(&self) -> Result<()> {
        let wanted = self.accuracy_min;
        check(wanted.is_finite(), "accuracy_min", wanted, "finite")?;
        for (index, &beta) in self.rate.values().iter().enumerate() {
            check_rate("rate.value", beta).map_err(|error| error.at(index))?;
        }
        let (low, high) = self.range();
        check(
            low <= high,
            "the first step of rate or accuracy",
            low,
            "at most the last of both",
        )
    }

    /// The steps that both curves cover, from the first to the last.
    pub fn range(&self) -> (f64, f64) {
        let (rate, accuracy) = (self.rate.range(), self.accuracy.range());
        (rate.0.max(accuracy.0), rate.1.min(accuracy.1))
    }
}

/// Solves the compression problem of one knob exactly.
///
/// Variable: the step `s`. Objective: least `β(s)`. Constraints: `A(s) ≥ A_th` (27b), `s` in the
/// range of both curves. `None`: no step is accurate enough. Neither `β` nor `A` rises with `s`, so
/// the coarsest step that is accurate enough has the fewest bits, at every cut layer and bandwidth;
/// of the steps with as few bits the finest is taken, which is the most accurate. `O(log steps)`
/// after the checks.
///
/// # Errors
/// As [`StepCompression::validate`].
pub fn best_step(problem: &StepCompression) -> Result<Option<StepSetting>> {
    problem.validate()?;
    let (low, high) = problem.range();
    let coarsest = problem.accuracy.coarsest(problem.accuracy_min);
    let step = coarsest.filter(|&step| step >= low);
    let setting = |step| {
        Some(StepSetting {
            step,
            beta: problem.rate.at(step)?,
            accuracy: problem.accuracy.at(step)?,
        })
    };
    let finest = |coarsest: f64| problem.rate.finest_like(coarsest.min(high));
    Ok(step
        .and_then(finest)
        .and_then(|step| setting(step.max(low))))
}

impl CompressionProblem for StepCompression {
    type Setting = StepSetting;

    fn best(&self) -> Result<Option<StepSetting>> {
        best_step(self)
    }

    fn beta(setting: &StepSetting) -> f64 {
        setting.beta
    }
}
