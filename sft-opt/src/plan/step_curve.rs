//! A measured quantity over a codec's one knob, and the fit that makes one of noisy runs.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, check, check_rate};

/// One measured run: a value at a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepPoint {
    /// The step, finite and positive.
    pub step: f64,
    /// What was measured, finite: a rate, an accuracy.
    pub value: f64,
}

/// A value that does not rise with a codec's step: its rate, or the accuracy it leaves.
///
/// The step stands for any one knob that trades bits against accuracy: a quantization step, a
/// wanted error. Between the steps the curve is linear in the logarithm of the step, as steps act
/// by their ratio; beyond the first and the last there is none. A table of rates is
/// [`new`](Self::new), accuracies of runs go through [`fit`](Self::fit).
///
/// ```
/// use sft_opt::plan::StepCurve;
///
/// let rate = StepCurve::new(vec![0.5, 2.0], vec![0.04, 0.02])?;
/// assert_eq!(rate.at(1.0), Some(0.03));
/// assert_eq!(rate.at(4.0), None);
/// # Ok::<(), sft_opt::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Lists", into = "Lists")]
pub struct StepCurve {
    step: Vec<f64>,
    value: Vec<f64>,
}

/// A fitted curve and how far it can be trusted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepFit {
    /// The curve.
    pub curve: StepCurve,
    /// Root of the mean squared difference between curve and points.
    pub rmse: f64,
    /// Largest difference.
    pub max_error: f64,
}

impl StepCurve {
    /// A curve through `value[k]` at `step[k]`.
    ///
    /// # Errors
    /// No step; steps that are not finite, positive and ascending; values that are not one for each
    /// step, finite and at most the one before.
    pub fn new(step: Vec<f64>, value: Vec<f64>) -> Result<Self> {
        if step.is_empty() {
            return Err(Error::Empty { name: "step" });
        }
        let before = |list: &[f64], index: usize| index.checked_sub(1).map(|before| list[before]);
        for (index, &x) in step.iter().enumerate() {
            let after = before(&step, index).is_none_or(|before| x > before);
            let legal = x > 0.0 && x.is_finite() && after;
            check(legal, "step", x, "finite, positive and ascending")
                .map_err(|error| error.at(index))?;
        }
        if value.len() != step.len() {
            return Err(Error::Value {
                name: "number of values",
                value: value.len() as f64,
                accepted: "one for each step",
            });
        }
        for (index, &y) in value.iter().enumerate() {
            let falls = before(&value, index).is_none_or(|before| y <= before);
            let accepted = "finite and at most the value before";
            check(y.is_finite() && falls, "value", y, accepted).map_err(|error| error.at(index))?;
        }
        Ok(Self { step, value })
    }

    /// The curve of least squares through measured points, in any order, steps repeated or not.
    ///
    /// Objective: `Σ (curve(step) − value)²` over all values that do not rise with the step
    /// (isotonic regression by pooling adjacent violators): the mean at each step, and the common
    /// mean of neighbours that noise has in the wrong order. `O(points·log points)`. A curve of few
    /// parameters would have to guess the shape: accuracy over the step is flat and then breaks
    /// off, by how much depends on model and task, and a polynomial swings between the two.
    ///
    /// # Errors
    /// A point outside its documented range; [`Error::Undetermined`] with fewer than two different
    /// steps.
    pub fn fit(points: &[StepPoint]) -> Result<StepFit> {
        for (index, point) in points.iter().enumerate() {
            check_rate("points.step", point.step)
                .and_then(|()| {
                    let value = point.value;
                    check(value.is_finite(), "points.value", value, "finite")
                })
                .map_err(|error| error.at(index))?;
        }
        let mut sorted = points.to_vec();
        sorted.sort_by(|a, b| a.step.total_cmp(&b.step));
        let means: Vec<Mean> = sorted
            .chunk_by(|a, b| a.step.total_cmp(&b.step).is_eq())
            .map(Mean::of)
            .collect();
        if means.len() < 2 {
            return Err(Error::Undetermined {
                name: "points",
                needs: "two different steps",
            });
        }
        let step = sorted.chunk_by(|a, b| a.step.total_cmp(&b.step).is_eq());
        let step = step.map(|same| same[0].step).collect();
        let curve = Self::new(step, pooled(means))?;
        Ok(curve.report(points))
    }

    fn report(self, points: &[StepPoint]) -> StepFit {
        let errors = (points.iter())
            .filter_map(|point| Some(self.at(point.step)? - point.value))
            .collect::<Vec<f64>>();
        let square: f64 = errors.iter().map(|e| e * e).sum();
        StepFit {
            rmse: (square / points.len() as f64).sqrt(),
            max_error: errors.into_iter().map(f64::abs).fold(0.0, f64::max),
            curve: self,
        }
    }

    /// The steps, ascending.
    pub fn steps(&self) -> &[f64] {
        &self.step
    }

    /// The values at the steps.
    pub fn values(&self) -> &[f64] {
        &self.value
    }

    /// The first and the last step.
    pub fn range(&self) -> (f64, f64) {
        (self.step[0], self.step[self.step.len() - 1])
    }

    /// The value at a step; `None` outside the range.
    pub fn at(&self, step: f64) -> Option<f64> {
        let above = self.step.partition_point(|&x| x < step);
        let right = *self.step.get(above)?;
        if step.total_cmp(&right).is_eq() {
            return Some(self.value[above]);
        }
        let left = above.checked_sub(1)?;
        let (from, to) = (self.step[left].ln(), right.ln());
        let weight = (step.ln() - from) / (to - from);
        Some(self.value[left] + weight * (self.value[above] - self.value[left]))
    }

    /// The finest step with the value at `step`; `None` outside the range.
    pub(super) fn finest_like(&self, step: f64) -> Option<f64> {
        let value = self.at(step)?;
        let first = self.value.partition_point(|&y| y > value);
        self.step.get(first).map(|&finest| finest.min(step))
    }

    /// The coarsest step of the range whose value is at least `wanted`, but for rounding.
    pub(super) fn coarsest(&self, wanted: f64) -> Option<f64> {
        let right = self.value.partition_point(|&value| value >= wanted);
        let left = right.checked_sub(1)?;
        let (Some(&low), Some(&end)) = (self.value.get(right), self.step.get(right)) else {
            return Some(self.step[left]);
        };
        let (high, start) = (self.value[left], self.step[left]);
        let weight = (high - wanted) / (high - low);
        let step = (start.ln() + weight * (end.ln() - start.ln())).exp();
        Some(step.clamp(start, end))
    }
}

/// A mean of some points.
#[derive(Clone, Copy)]
struct Mean {
    value: f64,
    /// Points.
    weight: f64,
    /// Neighbouring steps.
    steps: usize,
}

impl Mean {
    fn of(points: &[StepPoint]) -> Self {
        let weight = points.len() as f64;
        let sum: f64 = points.iter().map(|point| point.value).sum();
        Self {
            value: sum / weight,
            weight,
            steps: 1,
        }
    }

    fn with(self, other: Self) -> Self {
        let weight = self.weight + other.weight;
        Self {
            value: (self.value * self.weight + other.value * other.weight) / weight,
            weight,
            steps: self.steps + other.steps,
        }
    }
}

/// Means that do not rise: neighbours in the wrong order become one. One value for each step.
fn pooled(means: Vec<Mean>) -> Vec<f64> {
    let mut pools: Vec<Mean> = Vec::with_capacity(means.len());
    for mut mean in means {
        while let Some(before) = pools.pop_if(|before| before.value < mean.value) {
            mean = before.with(mean);
        }
        pools.push(mean);
    }
    (pools.iter())
        .flat_map(|pool| std::iter::repeat_n(pool.value, pool.steps))
        .collect()
}

/// A curve as it stands in files.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    step: Vec<f64>,
    value: Vec<f64>,
}

impl TryFrom<Lists> for StepCurve {
    type Error = Error;

    fn try_from(lists: Lists) -> Result<Self> {
        Self::new(lists.step, lists.value)
    }
}

impl From<StepCurve> for Lists {
    fn from(curve: StepCurve) -> Self {
        Self {
            step: curve.step,
            value: curve.value,
        }
    }
}
