//! Least-squares fit of the accuracy surface to measured runs (section IV-C).

use serde::{Deserialize, Serialize};

use super::accuracy::{Accuracy, KeepScale, Term};
use crate::error::{Error, Result, check};
use crate::numeric::polynomial::{Cubic, slope, turning_points, value};

/// Accuracy measured in one run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccuracyPoint {
    /// Kept fraction `ρ`, above 0 and at most 1.
    pub keep: f64,
    /// Bits of a level `q`, at least 1; `log₂` of the number of levels, also where that is no
    /// power of two.
    pub bits: f64,
    /// Accuracy reached, finite.
    pub accuracy: f64,
}

/// A direction of the surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// More elements kept.
    Keep,
    /// One more bit for each.
    Bits,
}

/// A place of the fitted range where more bits on the air lower the fitted accuracy.
///
/// Such a surface still has an exact optimum, but near this place the fit, not the training,
/// decides it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotMonotone {
    /// The direction in which accuracy falls.
    pub axis: Axis,
    /// Where it falls most: kept fraction.
    pub keep: f64,
    /// Where it falls most: bits.
    pub bits: f64,
    /// Change of accuracy there, negative: for a doubling of the kept fraction, or for all
    /// elements kept more where the surface is a polynomial of `ρ`; for one bit more.
    pub change: f64,
}

/// A fitted accuracy surface and how far it can be trusted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// The surface.
    pub accuracy: Accuracy,
    /// Root of the mean squared difference between surface and points.
    pub rmse: f64,
    /// Largest difference.
    pub max_error: f64,
    /// The worst place of either direction where the surface is not monotone, if any.
    pub warnings: Vec<NotMonotone>,
}

const TERMS: usize = 10;
/// Smallest independent part of a column, of its length, that still counts as one.
const INDEPENDENT: f64 = 1e-9;

impl Accuracy {
    /// Fits the ten weights of a surface to measured points by least squares.
    ///
    /// Variables: `w_ij`, `i + j ≤ 3`. Objective: `Σ (A(ρ, q) − accuracy)²`. Householder
    /// triangulation in centred and scaled variables, `O(points)`.
    ///
    /// # Errors
    /// A point outside its documented range; [`Error::Undetermined`] if the points do not
    /// determine ten weights: at least four different kept fractions and four different numbers
    /// of bits are needed.
    pub fn fit(scale: KeepScale, points: &[AccuracyPoint]) -> Result<Fit> {
        check_points(points)?;
        let (xs, qs) = (
            Centred::of(points.iter().map(|p| scale.of(p.keep))),
            Centred::of(points.iter().map(|p| p.bits)),
        );
        let rows = points.iter().map(|p| {
            let (x, q) = (xs.scaled(scale.of(p.keep)), qs.scaled(p.bits));
            let mut row = [0.0; TERMS + 1];
            for (entry, (i, j)) in row.iter_mut().zip(powers()) {
                *entry = power(x, i) * power(q, j);
            }
            row[TERMS] = p.accuracy;
            row
        });
        let weights = least_squares(rows.collect())?;
        let accuracy = Self::new(scale, &expand(&weights, &xs, &qs))?;
        Ok(report(accuracy, points))
    }
}

fn check_points(points: &[AccuracyPoint]) -> Result<()> {
    for (index, p) in points.iter().enumerate() {
        let keep = p.keep > 0.0 && p.keep <= 1.0;
        check(keep, "points.keep", p.keep, "above 0 and at most 1")
            .and_then(|()| {
                let bits = p.bits >= 1.0 && p.bits.is_finite();
                check(bits, "points.bits", p.bits, "finite and at least 1")
            })
            .and_then(|()| {
                check(
                    p.accuracy.is_finite(),
                    "points.accuracy",
                    p.accuracy,
                    "finite",
                )
            })
            .map_err(|error| error.at(index))?;
    }
    Ok(())
}

/// Powers `(i, j)` of `x` and `q` in every term.
fn powers() -> impl Iterator<Item = (usize, usize)> {
    (0..4).flat_map(|i| (0..4 - i).map(move |j| (i, j)))
}

fn power(x: f64, n: usize) -> f64 {
    std::iter::repeat_n(x, n).product()
}

/// A variable moved and scaled to -1..=1.
struct Centred {
    middle: f64,
    half: f64,
}

impl Centred {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        let half = 0.5 * (high - low);
        Self {
            middle: f64::midpoint(low, high),
            half: if half > 0.0 { half } else { 1.0 },
        }
    }

    fn scaled(&self, value: f64) -> f64 {
        (value - self.middle) / self.half
    }

    /// `((v − middle)/half)ⁿ` as a cubic in `v`.
    fn power(&self, n: usize) -> Cubic {
        let mut power = [1.0, 0.0, 0.0, 0.0];
        for _ in 0..n {
            let shifted = [0.0, power[0], power[1], power[2]];
            power = std::array::from_fn(|k| (shifted[k] - self.middle * power[k]) / self.half);
        }
        power
    }
}

/// The same polynomial in the original variables.
fn expand(weights: &[f64; TERMS], xs: &Centred, qs: &Centred) -> Vec<Term> {
    let mut terms = Vec::with_capacity(3 * TERMS);
    for (&weight, (i, j)) in weights.iter().zip(powers()) {
        let (x, q) = (xs.power(i), qs.power(j));
        for (i, x) in x.into_iter().enumerate().take(i + 1) {
            for (j, q) in q.into_iter().enumerate().take(j + 1) {
                terms.push(Term {
                    i,
                    j,
                    w: weight * x * q,
                });
            }
        }
    }
    terms
}

/// Minimises `‖Mw − y‖` for rows `(M, y)`.
fn least_squares(mut rows: Vec<[f64; TERMS + 1]>) -> Result<[f64; TERMS]> {
    let undetermined = Error::Undetermined {
        name: "points",
        needs: "four different keeps and four different bits, spread over both",
    };
    if rows.len() < TERMS {
        return Err(undetermined);
    }
    for k in 0..TERMS {
        let length = norm(&rows, k, 0);
        let rest = norm(&rows, k, k);
        if rest <= INDEPENDENT * length || rest == 0.0 {
            return Err(undetermined);
        }
        reflect(&mut rows, k, rest);
    }
    let mut weights = [0.0; TERMS];
    for k in (0..TERMS).rev() {
        let known: f64 = (k + 1..TERMS).map(|m| rows[k][m] * weights[m]).sum();
        weights[k] = (rows[k][TERMS] - known) / rows[k][k];
    }
    Ok(weights)
}

fn norm(rows: &[[f64; TERMS + 1]], column: usize, from: usize) -> f64 {
    (rows[from..].iter().map(|row| row[column].powi(2)))
        .sum::<f64>()
        .sqrt()
}

/// Householder's reflection that leaves `∓length` in column `k` of row `k` and 0 below.
fn reflect(rows: &mut [[f64; TERMS + 1]], k: usize, length: f64) {
    let head = rows[k][k] + length.copysign(rows[k][k]);
    let mut direction: Vec<f64> = rows[k..].iter().map(|row| row[k]).collect();
    direction[0] = head;
    let square: f64 = direction.iter().map(|v| v * v).sum();
    for column in k..=TERMS {
        let product: f64 = (rows[k..].iter().zip(&direction))
            .map(|(row, v)| row[column] * v)
            .sum();
        for (row, v) in rows[k..].iter_mut().zip(&direction) {
            row[column] -= 2.0 * product / square * v;
        }
    }
}

fn report(accuracy: Accuracy, points: &[AccuracyPoint]) -> Fit {
    let errors = points
        .iter()
        .map(|p| accuracy.at(p.keep, p.bits) - p.accuracy);
    let square: f64 = errors.clone().map(|e| e * e).sum();
    Fit {
        rmse: (square / points.len() as f64).sqrt(),
        max_error: errors.map(f64::abs).fold(0.0, f64::max),
        warnings: not_monotone(&accuracy, points),
        accuracy,
    }
}

fn not_monotone(accuracy: &Accuracy, points: &[AccuracyPoint]) -> Vec<NotMonotone> {
    let scale = accuracy.scale();
    let range = |of: fn(&AccuracyPoint) -> f64| {
        let values = || points.iter().map(of);
        let low = values().fold(f64::INFINITY, f64::min);
        (low, values().fold(f64::NEG_INFINITY, f64::max))
    };
    let (keep_low, keep_high) = range(|p| p.keep);
    let (low, high) = (scale.of(keep_low), scale.of(keep_high));
    let (bits_low, bits_high) = range(|p| p.bits);
    let steps = (bits_high - bits_low).ceil().min(64.0) as usize;
    let all_bits = (0..=steps).map(|step| (bits_low + step as f64).min(bits_high));
    let worst = |axis, found: Vec<(f64, f64, f64)>| {
        let (x, bits, change) = found.into_iter().min_by(|a, b| a.2.total_cmp(&b.2))?;
        // A slope of rounding size is flat.
        (change < -1e-9).then(|| NotMonotone {
            axis,
            keep: scale.keep(x),
            bits,
            change,
        })
    };
    let along_keep = all_bits
        .clone()
        .map(|q| {
            let (x, change) = steepest_fall(&accuracy.along_keep(q), low, high);
            (x, q, change)
        })
        .collect();
    let along_bits = (all_bits.clone().zip(all_bits.skip(1)))
        .map(|(q, next)| {
            let (now, then) = (accuracy.along_keep(q), accuracy.along_keep(next));
            let gain: Cubic = std::array::from_fn(|k| then[k] - now[k]);
            let (x, change) = lowest(&gain, low, high);
            (x, q, change)
        })
        .collect();
    [worst(Axis::Keep, along_keep), worst(Axis::Bits, along_bits)]
        .into_iter()
        .flatten()
        .collect()
}

/// Where the slope of a cubic is least on an interval, and the slope.
fn steepest_fall(k: &Cubic, low: f64, high: f64) -> (f64, f64) {
    let bend = -k[2] / (3.0 * k[3]);
    [low, bend, high]
        .into_iter()
        .filter(|x| (low..=high).contains(x))
        .map(|x| (x, slope(k, x)))
        .fold((low, f64::INFINITY), |best, next| {
            if next.1 < best.1 { next } else { best }
        })
}

/// Where a cubic is least on an interval, and the value.
fn lowest(k: &Cubic, low: f64, high: f64) -> (f64, f64) {
    let [first, second] = turning_points(k);
    [low, first, second, high]
        .into_iter()
        .filter(|x| (low..=high).contains(x))
        .map(|x| (x, value(k, x)))
        .fold((low, f64::INFINITY), |best, next| {
            if next.1 < best.1 { next } else { best }
        })
}
