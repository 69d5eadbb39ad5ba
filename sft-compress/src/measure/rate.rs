use super::measure;
use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::tensor::TensorView;

/// Rate and error of a codec over kept fractions and numbers of levels, as
/// measured on samples: the β(ρ, E) of section IV-B.
///
/// Between measured fractions both are interpolated linearly; the numbers of
/// levels are those measured. The rate is the size of a frame relative to that
/// of the elements as `f32`.
///
/// With the feature `serde` it is saved and restored as an object of `keep`,
/// `levels`, and `rate` and `relative_mse` with a row for each number of levels;
/// what is restored is checked as what is measured.
///
/// ```
/// # fn main() -> sft_compress::Result<()> {
/// use sft_compress::{Codec, RateTable, TensorView};
///
/// let x: Vec<f32> = (0..4096).map(|i| ((i * 37 % 101) as f32 - 50.0).powi(3)).collect();
/// let sample = TensorView::new(&x, &[64, 64])?;
/// let table = RateTable::measure(&[sample], Codec::activation, &[0.05, 0.1, 0.4], &[4, 8])?;
/// let best = table.best(0.03).unwrap();
/// assert!(best.rate <= 0.03 && best.keep < 0.4);
/// let rate = table.rate(best.keep, best.levels).unwrap();
/// assert!((rate - best.rate).abs() < 1e-12);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Columns", into = "Columns"))]
pub struct RateTable {
    columns: Columns,
}

/// The table as plain data.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
struct Columns {
    /// Ascending.
    keep: Vec<f64>,
    /// Ascending.
    levels: Vec<u32>,
    /// For each number of levels those of all kept fractions.
    rate: Vec<Vec<f64>>,
    relative_mse: Vec<Vec<f64>>,
}

/// A point of a [`RateTable`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The kept fraction.
    pub keep: f64,
    /// The number of levels.
    pub levels: u32,
    /// The size relative to `f32`.
    pub rate: f64,
    /// The relative mean squared error.
    pub relative_mse: f64,
}

/// Steps between two measured fractions at which an accuracy is asked.
const STEPS: u32 = 16;

impl RateTable {
    /// Measures `codec` at every kept fraction and number of levels, each given
    /// in ascending order, on all `samples` together, each of which counts by
    /// its number of elements.
    ///
    /// # Errors
    /// `InvalidArgument` without samples or elements, or if `keep` or `levels`
    /// is empty or not ascending; as `codec` and [`Codec::encode`].
    pub fn measure(
        samples: &[TensorView<'_>],
        codec: impl Fn(f64, u32) -> Result<Codec>,
        keep: &[f64],
        levels: &[u32],
    ) -> Result<Self> {
        let elements: usize = samples.iter().map(|sample| sample.elements().len()).sum();
        if elements == 0 {
            return Err(Error::invalid("samples must hold an element, got none"));
        }
        let mut columns = Columns {
            keep: keep.to_vec(),
            levels: levels.to_vec(),
            rate: Vec::new(),
            relative_mse: Vec::new(),
        };
        for &levels in levels {
            let (mut rates, mut errors) = (Vec::new(), Vec::new());
            for &keep in keep {
                let codec = codec(keep, levels)?;
                let (mut rate, mut error) = (0.0, 0.0);
                for (seed, &sample) in (0..).zip(samples) {
                    let share = sample.elements().len() as f64 / elements as f64;
                    let measured = measure(codec, sample, seed)?;
                    rate += share * measured.bits_per_element / 32.0;
                    error += share * measured.relative_mse;
                }
                rates.push(rate);
                errors.push(error);
            }
            columns.rate.push(rates);
            columns.relative_mse.push(errors);
        }
        Self::try_from(columns)
    }

    /// The measured kept fractions, ascending.
    pub fn keeps(&self) -> &[f64] {
        &self.columns.keep
    }

    /// The measured numbers of levels, ascending.
    pub fn levels(&self) -> &[u32] {
        &self.columns.levels
    }

    /// The rate at a kept fraction and a number of levels; none outside the
    /// measured ones.
    pub fn rate(&self, keep: f64, levels: u32) -> Option<f64> {
        let row = self.row(levels)?;
        interpolate(&self.columns.keep, &self.columns.rate[row], keep)
    }

    /// The relative mean squared error there.
    pub fn relative_mse(&self, keep: f64, levels: u32) -> Option<f64> {
        let row = self.row(levels)?;
        interpolate(&self.columns.keep, &self.columns.relative_mse[row], keep)
    }

    /// Of the points of at most `rate` the one of least error; none if there
    /// are none.
    pub fn best(&self, rate: f64) -> Option<Choice> {
        let error = |choice: &Choice| choice.relative_mse;
        let points = self.points(rate);
        points.min_by(|a, b| error(a).total_cmp(&error(b)))
    }

    /// Of the points of at most `rate` the one of highest `accuracy`, a
    /// function of kept fraction and number of levels. It is asked at the
    /// measured fractions, at 15 between any two of them, and where the rate is
    /// `rate`; where it is NaN is no choice.
    pub fn best_by(&self, rate: f64, accuracy: impl Fn(f64, u32) -> f64) -> Option<Choice> {
        let valued = self.points(rate).filter_map(|choice| {
            let accuracy = accuracy(choice.keep, choice.levels);
            (!accuracy.is_nan()).then_some((accuracy, choice))
        });
        let best = valued.max_by(|(a, _), (b, _)| a.total_cmp(b));
        best.map(|(_, choice)| choice)
    }

    fn row(&self, levels: u32) -> Option<usize> {
        self.columns.levels.iter().position(|&l| l == levels)
    }

    fn choice(&self, keep: f64, levels: u32) -> Option<Choice> {
        Some(Choice {
            keep,
            levels,
            rate: self.rate(keep, levels)?,
            relative_mse: self.relative_mse(keep, levels)?,
        })
    }

    /// The points of at most `rate` of which one is the best: those measured,
    /// those evenly between them, and those of exactly this rate.
    fn points(&self, rate: f64) -> impl Iterator<Item = Choice> {
        let Columns {
            keep: keeps,
            levels,
            rate: rates,
            ..
        } = &self.columns;
        let crossings = levels.iter().zip(rates).flat_map(move |(&levels, rates)| {
            let segments = keeps.windows(2).zip(rates.windows(2));
            segments.filter_map(move |(keep, ends)| {
                let t = (rate - ends[0]) / (ends[1] - ends[0]);
                (0.0..=1.0)
                    .contains(&t)
                    .then(|| (keep[0] + t * (keep[1] - keep[0]), levels))
            })
        });
        let between = |ends: &[f64]| {
            let (left, width) = (ends[0], ends[1] - ends[0]);
            (1..STEPS).map(move |i| left + width * f64::from(i) / f64::from(STEPS))
        };
        let grid: Vec<f64> = keeps
            .windows(2)
            .flat_map(between)
            .chain(keeps.iter().copied())
            .collect();
        let gridded = levels
            .iter()
            .flat_map(move |&levels| grid.clone().into_iter().map(move |keep| (keep, levels)));
        let choices = gridded.chain(crossings);
        let choices = choices.filter_map(|(keep, levels)| self.choice(keep, levels));
        // A crossing may come out above the rate by a rounding.
        choices
            .filter(move |choice| choice.rate <= rate * (1.0 + 1e-12))
            .map(move |choice| Choice {
                rate: choice.rate.min(rate),
                ..choice
            })
    }
}

/// Piecewise linear through the points `xs`, ascending, and `ys`.
fn interpolate(xs: &[f64], ys: &[f64], x: f64) -> Option<f64> {
    let right = xs.iter().position(|&right| x <= right)?;
    let before = (xs[right] - x).max(0.0);
    let left = match right.checked_sub(1) {
        Some(left) => left,
        None if before > 0.0 => return None,
        None => return Some(ys[0]),
    };
    Some(ys[right] - before / (xs[right] - xs[left]) * (ys[right] - ys[left]))
}

impl TryFrom<Columns> for RateTable {
    type Error = Error;

    fn try_from(columns: Columns) -> Result<Self> {
        let Columns {
            keep,
            levels,
            rate,
            relative_mse,
        } = &columns;
        let in_range = keep.iter().all(|&keep| keep > 0.0 && keep <= 1.0);
        if keep.is_empty() || !in_range || !keep.is_sorted_by(|a, b| a < b) {
            return Err(Error::invalid(format!(
                "keep must be in (0, 1] and ascending, got {keep:?}"
            )));
        }
        let in_range = levels.iter().all(|levels| (2..=256).contains(levels));
        if levels.is_empty() || !in_range || !levels.is_sorted_by(|a, b| a < b) {
            return Err(Error::invalid(format!(
                "levels must be in 2..=256 and ascending, got {levels:?}"
            )));
        }
        for (name, rows) in [("rate", rate), ("relative_mse", relative_mse)] {
            let fits = rows.len() == levels.len() && rows.iter().all(|row| row.len() == keep.len());
            let valid = rows.iter().flatten().all(|y| y.is_finite() && *y >= 0.0);
            if !fits || !valid {
                return Err(Error::invalid(format!(
                    "{name} must hold {} rows of {} finite numbers of at least 0",
                    levels.len(),
                    keep.len()
                )));
            }
        }
        Ok(Self { columns })
    }
}

#[cfg(feature = "serde")]
impl From<RateTable> for Columns {
    fn from(table: RateTable) -> Self {
        table.columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> RateTable {
        RateTable::try_from(Columns {
            keep: vec![0.1, 0.2, 0.4],
            levels: vec![4, 8],
            rate: vec![vec![0.01, 0.02, 0.05], vec![0.02, 0.04, 0.08]],
            relative_mse: vec![vec![0.5, 0.4, 0.38], vec![0.45, 0.3, 0.2]],
        })
        .unwrap()
    }

    #[test]
    fn rates_are_linear_between_measurements() {
        let table = table();
        assert_eq!(table.rate(0.2, 4), Some(0.02));
        assert!((table.rate(0.3, 4).unwrap() - 0.035).abs() < 1e-12);
        assert!((table.relative_mse(0.15, 8).unwrap() - 0.375).abs() < 1e-12);
        assert_eq!(table.rate(0.05, 4), None);
        assert_eq!(table.rate(0.5, 4), None);
        assert_eq!(table.rate(0.2, 5), None);
    }

    #[test]
    fn the_best_point_is_that_of_a_fine_grid() {
        let table = table();
        for rate in [0.01, 0.015, 0.03, 0.045, 0.07, 0.2] {
            let grid = (0..=3000).map(|i| 0.1 + 0.0001 * f64::from(i));
            let all = grid.flat_map(|keep| [4, 8].map(|levels| (keep, levels)));
            let least = all
                .filter(|&(keep, levels)| table.rate(keep, levels).is_some_and(|r| r <= rate))
                .filter_map(|(keep, levels)| table.relative_mse(keep, levels))
                .fold(f64::INFINITY, f64::min);
            let best = table.best(rate).unwrap();
            assert!(
                best.rate <= rate && best.relative_mse <= least + 1e-9,
                "{rate}: {best:?}"
            );
            assert!(best.relative_mse >= least - 1e-3);
            let by = table.best_by(rate, |keep, levels| {
                -table.relative_mse(keep, levels).unwrap()
            });
            assert!((by.unwrap().relative_mse - best.relative_mse).abs() < 1e-12);
        }
        assert_eq!(table.best(0.005), None);
        assert_eq!(table.best(f64::NAN), None);
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        let columns = |keep, rate, error| Columns {
            keep: vec![keep],
            levels: vec![4],
            rate: vec![vec![rate]],
            relative_mse: vec![vec![error]],
        };
        assert!(RateTable::try_from(columns(0.5, 0.1, 0.2)).is_ok());
        for bad in [f64::NAN, f64::INFINITY, -0.1] {
            assert!(RateTable::try_from(columns(bad, 0.1, 0.2)).is_err());
            assert!(RateTable::try_from(columns(0.5, bad, 0.2)).is_err());
            assert!(RateTable::try_from(columns(0.5, 0.1, bad)).is_err());
        }
    }

    #[test]
    fn an_accuracy_may_peak_between_measurements() {
        let table = table();
        let peak = |keep: f64, levels: u32| -(keep - 0.3).powi(2) + f64::from(levels) * 1e-3;
        let best = table.best_by(1.0, peak).unwrap();
        assert_eq!(best.levels, 8);
        assert!((best.keep - 0.3).abs() <= 0.2 / 32.0, "{best:?}");
        // At a rate too low for the peak, where the rate ends.
        let best = table.best_by(0.03, peak).unwrap();
        assert_eq!(best.levels, 4);
        assert!((best.keep - 0.8 / 3.0).abs() < 1e-9 && best.rate <= 0.03);
        let only_four = |keep, levels| if levels == 4 { keep } else { f64::NAN };
        assert_eq!(table.best_by(1.0, only_four).unwrap().levels, 4);
        assert_eq!(table.best_by(1.0, |_, _| f64::NAN), None);
    }
}
