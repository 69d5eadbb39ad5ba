//! Samples to coefficients and back: mean off, cosine transform over the grid, rotation of the
//! channels.

use super::basis::Basis;
use super::rows::{MOST_SCALE, Row};
use crate::math::log2;
use crate::simd::{self, Level, Matrix};

/// What a sample is transformed in, kept from one to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    rows: Vec<f32>,
    spare: Vec<f32>,
    /// Of a row the channels of indices other than 0, and what those stand for.
    factors: Vec<(usize, f32)>,
    places: Vec<u32>,
    /// Which rows have some.
    has_factors: Vec<bool>,
    /// Of each row, the channels that are made.
    ends: Vec<usize>,
    /// `[S, K]`, as far as they are made.
    pub(crate) coefficients: Vec<f32>,
}

/// The cosine transform (DCT-II) of a side with orthonormal rows, and its inverse.
#[derive(Clone, Debug)]
pub(super) struct Cosines {
    forward: Vec<f32>,
    inverse: Vec<f32>,
}

impl Cosines {
    /// By reflections of the first quarter of a period, so that no library's cosine decides.
    pub(super) fn new(side: usize) -> Self {
        let n = side as f64;
        let value = |k: usize, i: usize| {
            let scale = if k == 0 {
                (1.0 / n).sqrt()
            } else {
                (2.0 / n).sqrt()
            };
            (scale * cosine((2 * i + 1) * k, 4 * side)) as f32
        };
        let all = || (0..side).flat_map(|a| (0..side).map(move |b| (a, b)));
        Self {
            forward: all().map(|(k, i)| value(k, i)).collect(),
            inverse: all().map(|(i, k)| value(k, i)).collect(),
        }
    }
}

/// The cosine of `part` of `whole` turns, by its Taylor series: sums and products alone, so that
/// every platform has the same; 0 at a quarter.
fn cosine(part: usize, whole: usize) -> f64 {
    let part = part % whole;
    let part = part.min(whole - part);
    if 4 * part == whole {
        return 0.0;
    }
    let (part, sign) = if 4 * part > whole {
        (whole / 2 - part, -1.0)
    } else {
        (part, 1.0)
    };
    let x = std::f64::consts::TAU * part as f64 / whole as f64;
    let (mut term, mut sum) = (1.0, 1.0);
    for k in (1..24).step_by(2) {
        term *= -x * x / f64::from(k * (k + 1));
        sum += term;
    }
    sign * sum
}

impl Basis {
    /// Tells which rows of a sample `[S, D]` are nearer to the first token's mean than to that of
    /// the others.
    pub(crate) fn find_sinks(&self, sample: &[f32], rows: &mut [Row]) {
        let (Some(mean), true) = (self.mean(), self.tokens().has_sinks()) else {
            return;
        };
        let (width, prefix) = (self.width(), self.tokens().prefix());
        let (first, rest) = (&mean[..width], &mean[prefix * width..]);
        let each = sample.chunks_exact(width).zip(rows).skip(prefix);
        for (x, row) in each {
            row.sink = distance(x, first) < distance(x, rest);
        }
    }

    /// Gives each row of a sample `[S, D]` its step, where the basis has steps by row, for a tensor of
    /// this root mean square.
    pub(crate) fn scale_rows(&self, sample: &[f32], rms: f32, rows: &mut [Row]) {
        if !self.scales_rows() || rms == 0.0 {
            return;
        }
        let most = f64::from(MOST_SCALE);
        for (x, row) in sample.chunks_exact(self.width()).zip(rows) {
            let energy: f64 = x
                .iter()
                .map(|&x| (f64::from(x) / f64::from(rms)).powi(2))
                .sum();
            // The root of the ratio, in half octaves.
            let halves = 0.5 * log2((energy / x.len() as f64).max(1e-30));
            row.scale = halves.round().clamp(-most, most - 1.0) as i8;
        }
    }

    /// The mean of a row.
    fn mean_of<'a>(&self, mean: &'a [f32], number: usize, row: Row) -> &'a [f32] {
        let width = self.width();
        // Of a sequence the last row is the mean of all that follow.
        let last = mean.len() / width - 1;
        let at = if row.sink { 0 } else { number.min(last) };
        &mean[at * width..][..width]
    }

    /// The coefficients `[S, K]` of a sample `[S, D]`, in `work`.
    pub(crate) fn forward(&self, sample: &[f32], rows: &[Row], work: &mut Work) {
        let (level, width) = (Level::best(), self.width());
        work.rows.clear();
        match self.mean() {
            Some(mean) => {
                for (at, (x, &row)) in sample.chunks_exact(width).zip(rows).enumerate() {
                    let mean = self.mean_of(mean, at, row);
                    work.rows
                        .extend(x.iter().zip(mean).map(|(x, mean)| x - mean));
                }
            }
            None => work.rows.extend_from_slice(sample),
        }
        if let Some(grid) = self.cosines() {
            let rows = &mut work.rows[self.tokens().prefix() * width..];
            let [down, across] = grid.each_ref().map(|cosines| &cosines.forward[..]);
            work.spare.resize(rows.len(), 0.0);
            let (height, side) = (down.len().isqrt(), across.len().isqrt());
            turn_across(level, across, side, width, rows, &mut work.spare);
            turn_down(level, down, &vec![height; side], width, &work.spare, rows);
        }
        match self.rotation() {
            Some(rotation) => {
                let channels = self.channels();
                work.coefficients
                    .resize(sample.len() / width * channels, 0.0);
                let (rows, out) = (&work.rows, &mut work.coefficients);
                work.ends.clear();
                work.ends
                    .extend((0..rows.len() / width).map(|row| self.row_channels(row)));
                let rows = Matrix {
                    values: rows,
                    stride: width,
                };
                simd::rotate(level, rows, &rotation.forward, &work.ends, channels, out);
            }
            None => std::mem::swap(&mut work.rows, &mut work.coefficients),
        }
    }

    /// The sample `[S, D]` of the indices `[S, K]`, for steps times `scale`.
    pub(crate) fn inverse(
        &self,
        indices: &[i32],
        rows: &[Row],
        scale: f32,
        work: &mut Work,
        out: &mut [f32],
    ) {
        let (level, width, channels) = (Level::best(), self.width(), self.channels());
        let each = indices
            .chunks_exact(channels)
            .zip(out.chunks_exact_mut(width));
        work.has_factors.clear();
        for (row, (indices, out)) in each.enumerate() {
            let step = self.group_step(row, rows[row]) * scale;
            work.places.clear();
            simd::nonzero(level, &indices[..self.row_channels(row)], &mut work.places);
            let factor = |&channel: &u32| {
                let channel = channel as usize;
                (channel, self.steps(indices[channel]) * step)
            };
            work.factors.clear();
            work.factors.extend(work.places.iter().map(factor));
            work.has_factors.push(!work.factors.is_empty());
            if let Some(rotation) = self.rotation() {
                simd::combine(level, &work.factors, &rotation.rows, out);
                continue;
            }
            out.fill(0.0);
            for &(channel, value) in &work.factors {
                out[channel] = value;
            }
        }
        if let Some(grid) = self.cosines() {
            let rows = &mut out[self.tokens().prefix() * width..];
            let [down, across] = grid.each_ref().map(|cosines| &cosines.inverse[..]);
            work.spare.resize(rows.len(), 0.0);
            let has_factors = &work.has_factors[self.tokens().prefix()..];
            let (depths, across_depth) = depths(has_factors, across.len().isqrt());
            turn_down(level, down, &depths, width, rows, &mut work.spare);
            turn_across(level, across, across_depth, width, &work.spare, rows);
        }
        if let Some(mean) = self.mean() {
            for (at, (out, &row)) in out.chunks_exact_mut(width).zip(rows).enumerate() {
                simd::add(level, out, self.mean_of(mean, at, row));
            }
        }
    }

    /// The indices `[S, K]` of the coefficients in `work`, for steps times `scale`.
    pub(crate) fn quantize(&self, work: &Work, rows: &[Row], scale: f32, indices: &mut [i32]) {
        let (level, channels) = (Level::best(), self.channels());
        let each = work.coefficients.chunks_exact(channels);
        for (row, (values, indices)) in each.zip(indices.chunks_exact_mut(channels)).enumerate() {
            let step = self.group_step(row, rows[row]) * scale;
            let per_step = (1.0 / step).min(f32::MAX);
            let (some, none) = indices.split_at_mut(self.row_channels(row));
            simd::indices(level, values, per_step, self.rounding(), some);
            none.fill(0);
        }
    }

    /// The coefficients in `work`, in steps.
    pub(crate) fn in_steps(&self, work: &Work, rows: &[Row]) -> Vec<f32> {
        let each = work.coefficients.chunks_exact(self.channels()).zip(rows);
        let steps = each.enumerate().flat_map(|(number, (values, &row))| {
            let per_step = (1.0 / self.group_step(number, row)).min(f32::MAX);
            values.iter().map(move |x| x * per_step)
        });
        steps.collect()
    }

    /// The largest coefficient in `work`, in steps times `scale`.
    pub(crate) fn largest(&self, work: &Work, rows: &[Row], scale: f32) -> f32 {
        let each = work.coefficients.chunks_exact(self.channels()).enumerate();
        let largest = |(row, values): (usize, &[f32])| {
            let largest = values[..self.row_channels(row)]
                .iter()
                .fold(0.0_f32, |largest, x| largest.max(x.abs()));
            largest / (self.group_step(row, rows[row]) * scale)
        };
        each.map(largest).fold(0.0, f32::max)
    }

    /// Keeps those indices of `reference`, one row from `row` on, of which the coefficients in
    /// `work` are within so many steps.
    pub(crate) fn stay(
        &self,
        work: &Work,
        (number, row): (usize, Row),
        scale: f32,
        steps: f32,
        reference: &[i32],
        indices: &mut [i32],
    ) {
        let values = &work.coefficients[number * self.channels()..];
        let step = self.group_step(number, row) * scale;
        for ((index, &before), x) in indices.iter_mut().zip(reference).zip(values) {
            // Most are as they were.
            if *index != before && (x / step - self.steps(before)).abs() < steps {
                *index = before;
            }
        }
    }
}

/// The squared distance.
pub(super) fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// Transforms every column of the grid, whose rows of tokens are as many as the matrix has. In each
/// column, tokens from its depth on are zero.
fn turn_down(
    level: Level,
    matrix: &[f32],
    depths: &[usize],
    width: usize,
    rows: &[f32],
    out: &mut [f32],
) {
    let (height, stride) = (matrix.len().isqrt(), depths.len() * width);
    let matrix = Matrix {
        values: matrix,
        stride: height,
    };
    for (column, &depth) in depths.iter().enumerate() {
        let (values, out) = (&rows[column * width..], &mut out[column * width..]);
        simd::product(level, matrix, depth, Matrix { values, stride }, width, out);
    }
}

/// Transforms every row of the grid, of as many tokens as the matrix has rows, of which those from
/// `depth` on are zero.
fn turn_across(
    level: Level,
    matrix: &[f32],
    depth: usize,
    width: usize,
    rows: &[f32],
    out: &mut [f32],
) {
    let side = matrix.len().isqrt();
    let matrix = Matrix {
        values: matrix,
        stride: side,
    };
    let lines = rows.chunks_exact(side * width);
    for (values, out) in lines.zip(out.chunks_exact_mut(side * width)) {
        simd::product(
            level,
            matrix,
            depth,
            Matrix {
                values,
                stride: width,
            },
            width,
            out,
        );
    }
}

/// Of each column of a grid, how many tokens there are up to the last with factors, and how many
/// columns up to the last with such tokens.
fn depths(has_factors: &[bool], side: usize) -> (Vec<usize>, usize) {
    let mut depths = vec![0; side];
    for (row, line) in has_factors.chunks_exact(side).enumerate() {
        for (depth, some) in depths.iter_mut().zip(line) {
            *depth = if *some { row + 1 } else { *depth };
        }
    }
    let last = depths.iter().rposition(|&depth| depth > 0);
    (depths, last.map_or(0, |last| last + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_the_library_s_and_orthonormal() {
        for side in [1, 2, 4, 7, 14, 37] {
            let Cosines { forward, inverse } = Cosines::new(side);
            for k in 0..side {
                for i in 0..side {
                    let angle = std::f64::consts::PI * (i as f64 + 0.5) * k as f64 / side as f64;
                    let scale = (if k == 0 { 1.0 } else { 2.0 } / side as f64).sqrt();
                    let expected = (scale * angle.cos()) as f32;
                    assert!((forward[k * side + i] - expected).abs() < 1e-7);
                    let turned = inverse[i * side + k];
                    assert_eq!(forward[k * side + i].to_bits(), turned.to_bits());
                }
            }
        }
    }
}
