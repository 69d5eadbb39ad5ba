//! A basis from activations, and from how much the server minds errors in them.

/// Means, and what they leave.
mod centred;
/// What is learnt from.
mod samples;

use nalgebra::DMatrix;

use self::centred::Centred;
use self::samples::Samples;
use super::basis::{Basis, MeanParts, Parts, Settings};
use super::bytes::{MAX_CACHED, MAX_MEAN, MAX_ROTATED};
use super::rotation::Rotation;
use super::rows::Row;
use super::spectrum::Work;
use super::tokens::Tokens;
use crate::codec::Codec;
use crate::decoder::decode;
use crate::error::{Error, Result};
use crate::math::log2;
use crate::tensor::TensorView;

/// A channel whose coefficients never reach this many steps is not coded.
const LEAST_STEPS: f32 = 0.2;
/// In a group one in so many coefficients may lie in channels that are not coded there.
const FEW: usize = 1024;
/// The error of the coded rotation over the variance of the samples: that much passes between
/// channels. Steps as coarse as the default lose six times as much, and up to here nothing changes
/// in bits and error; finer where the rows would not stay apart.
const ROTATION_ERRORS: [f64; 3] = [0.05, 0.005, 0.0005];
/// The least weight of a channel's row in that error, over the mean of all.
const LEAST_WEIGHT: f64 = 0.05;
/// The error of coded means over their energy.
const MEAN_ERROR: f64 = 1e-5;
/// What a sequence's means leave at least, over the energy.
const LEAST_LEFT: f64 = 1e-6;
/// The step of a class token, and of other tokens before a grid, over the common one: it holds
/// half of the server's sensitivity in few elements.
const PREFIX_STEP: f64 = 1.0 / 12.0;
/// The most rows that both sides of a sequence keep.
const CACHED_ROWS: usize = 1 << 12;
/// How steps of gradients follow the energy of activations at the frequency.
const GRADIENT_EXPONENT: f64 = -0.4;

impl Basis {
    /// The basis for activations like these, `[n, S, D]` or `[S, D]` with the `lengths` of samples,
    /// of which some tens are enough: their means by position, the principal channels of the rest
    /// (KLT), and on a grid steps by frequency, and of each group of rows as many channels as hold its
    /// coefficients.
    ///
    /// `step` in 0.001..=1000 is the common step over the root mean square of the activations, on a
    /// grid times the root of its tokens: over the coefficient that all tokens would have if they
    /// were equal. In a sequence it is that of what the means leave of rows that are not like the
    /// first, so that tokens with massive activations do not decide.
    /// `sensitivity`, of the same shape, holds gradients of what the server makes of them with
    /// respect to the activations, for random directions: step of a frequency ∝ (mean energy of
    /// the gradient there)^−½. Without, all frequencies have the same.
    ///
    /// # Errors
    /// `InvalidArgument` for a step outside its range, no activations, or shapes that do not fit;
    /// `NonFinite` for NaN or infinities.
    pub fn of_activations(
        activations: TensorView<'_>,
        lengths: &[usize],
        tokens: Tokens,
        step: f64,
        sensitivity: Option<TensorView<'_>>,
    ) -> Result<Self> {
        let samples = Samples::of("activations", activations, lengths, tokens, step)?;
        let steps = match sensitivity {
            None => vec![1.0; tokens.groups()],
            Some(sensitivity) => {
                let gradients = Samples::of("sensitivity", sensitivity, lengths, tokens, step)?;
                if sensitivity.shape() != activations.shape() {
                    return Err(Error::invalid(format!(
                        "sensitivity must have the shape {:?} of the activations, got {:?}",
                        activations.shape(),
                        sensitivity.shape()
                    )));
                }
                steps_by(&gradients.energies()?, tokens, -0.5)
            }
        };
        samples.basis(step, &steps)
    }

    /// The basis for gradients at the same cut: no rotation, on a grid steps by the energy of the
    /// activations at the frequency, and all relative to the root mean square of each tensor. In a
    /// sequence the step of each row is relative to the geometric mean of that of the tensor and that
    /// of the row: few tokens have most of the energy, but what the others agree on is learnt as well.
    ///
    /// # Errors
    /// As [`of_activations`](Self::of_activations).
    pub fn of_gradients(
        activations: TensorView<'_>,
        lengths: &[usize],
        tokens: Tokens,
        step: f64,
    ) -> Result<Self> {
        let samples = Samples::of("activations", activations, lengths, tokens, step)?;
        let mut steps = vec![1.0; tokens.groups()];
        if tokens.sides().is_some() {
            steps = steps_by(&samples.energies()?, tokens, GRADIENT_EXPONENT);
            steps[..tokens.prefix()].fill(1.0);
        }
        let mut settings = Settings {
            relative: true,
            group_scales: vec![-8; tokens.groups()],
            group_steps: steps.into_iter().map(eighths).collect(),
            ..samples.settings((step * tokens.gain()) as f32)
        };
        if tokens.sides().is_none() {
            (settings.rounding, settings.levels) = (38, [4, 0]);
            settings.scales_rows = true;
        }
        Self::of(&settings, &Parts::default(), None)
    }
}

impl Samples {
    fn settings(&self, step: f32) -> Settings {
        Settings {
            tokens: self.tokens,
            width: self.width,
            channels: self.width,
            cached: 0,
            step,
            relative: false,
            scales_rows: false,
            rounding: 70,
            levels: [0, 0],
            group_steps: vec![0; self.tokens.groups()],
            group_scales: vec![0; self.tokens.groups()],
            channel_scales: vec![0; self.width],
            group_channels: vec![self.width; self.tokens.groups()],
        }
    }

    /// Calls `each` with the number of every row in its sample and its coefficients.
    fn transformed(&self, basis: &Basis, values: &[f32], mut each: impl FnMut(usize, &[f32])) {
        let mut work = Work::default();
        for sample in self.each(values) {
            let rows = vec![Row::default(); sample.len() / self.width];
            basis.forward(sample, &rows, &mut work);
            for (row, values) in work.coefficients.chunks_exact(basis.channels()).enumerate() {
                each(row, values);
            }
        }
    }

    /// The mean energy of each group of coefficients, without rotation.
    fn energies(&self) -> Result<Vec<f64>> {
        let plain = Basis::of(&self.settings(1.0), &Parts::default(), None)?;
        let mut sums = vec![(0.0, 0_usize); self.tokens.groups()];
        self.transformed(&plain, &self.values, |row, values| {
            let (sum, count) = &mut sums[self.tokens.group(row)];
            *sum += energy(values);
            *count += values.len();
        });
        Ok(sums
            .into_iter()
            .map(|(sum, count)| sum / count.max(1) as f64)
            .collect())
    }

    /// The root mean square of what steps are relative to: of a sequence what its means leave of
    /// rows that are not like the first, else all.
    fn scale(&self, centred: &Centred) -> f64 {
        if self.tokens.sides().is_some() {
            return (energy(&self.values) / self.values.len() as f64).sqrt();
        }
        let others = centred.others(&centred.rows, self.width);
        // Where the means leave nothing, steps are small beside the means, not beside nothing.
        let least = LEAST_LEFT * energy(&centred.others(&self.values, self.width));
        ((energy(&others) + least) / others.len().max(1) as f64).sqrt()
    }

    fn basis(&self, step: f64, steps: &[f64]) -> Result<Basis> {
        let centred = self.centred();
        let scale = step * self.scale(&centred) * self.tokens.gain();
        let mut settings = self.settings(scale.clamp(1e-20, 1e20) as f32);
        let prefix = self.tokens.prefix();
        if self.tokens.sides().is_some() {
            settings.levels = [13, 6];
        } else {
            settings.cached = CACHED_ROWS.min(MAX_CACHED / self.width);
            (settings.rounding, settings.levels) = (51, [0, -4]);
        }
        let finer = |group| group < prefix && self.tokens.sides().is_some();
        let group_steps = steps.iter().enumerate();
        settings.group_steps = group_steps
            .map(|(group, &step)| eighths(if finer(group) { PREFIX_STEP } else { step }))
            .collect();
        let shape = [prefix + 1, self.width];
        let groups = TensorView::new(&centred.groups, &shape)?;
        let groups = Codec::for_error(MEAN_ERROR)?.encode(groups, 0)?;
        let (mut parts, mut rotation) = (Parts::default(), None);
        let mut used = settings.group_channels.clone();
        if self.width <= MAX_ROTATED {
            let weighted =
                principal_channels(&centred.others(&centred.rows, self.width), self.width);
            let exact = Rotation::of_orthonormal(normalized(&weighted, self.width), self.width);
            parts.rotation = Some(Vec::new());
            let all = Basis::of(&settings, &parts, Some(&exact))?;
            let (near, of_groups) = self.used_channels(&all, &centred.rows);
            let channels = near.next_multiple_of(8).min(self.width);
            settings.channels = channels;
            settings.channel_scales.truncate(channels);
            settings.group_channels.fill(channels);
            used = match self.tokens.sides() {
                Some(_) => of_groups,
                None => settings.group_channels.clone(),
            };
            let (frame, made) = self.rotation(&weighted[..channels * self.width])?;
            (parts.rotation, rotation) = (Some(frame), Some(made));
        }
        let rotation = rotation.as_ref();
        let unexpecting = Basis::of(&settings, &parts, rotation)?;
        self.expect(&mut settings, &unexpecting, &centred);
        let positions = match self.tokens.sides() {
            Some(_) => {
                let no_mean = Basis::of(&settings, &parts, rotation)?;
                no_mean.write_positions(&self.residual(&centred.positions, &groups)?)
            }
            None => Vec::new(),
        };
        parts.mean = Some(MeanParts { groups, positions });
        settings.group_channels = used;
        Basis::of(&settings, &parts, rotation)
    }

    /// The frame of a rotation, and what it becomes.
    fn rotation(&self, weighted: &[f32]) -> Result<(Vec<u8>, Rotation)> {
        let shape = [weighted.len() / self.width, self.width];
        let rows = TensorView::new(weighted, &shape)?;
        for error in ROTATION_ERRORS {
            let frame = Codec::for_error(error)?.encode(rows, 0)?;
            if let Ok(rotation) = Rotation::of(&decode(&frame)?.into_data(), shape) {
                return Ok((frame, rotation));
            }
        }
        let frame = Codec::raw().encode(rows, 0)?;
        Ok((frame, Rotation::of(weighted, shape)?))
    }

    /// Channels up to the last whose coefficients come near a step, and of each group those that
    /// hold all but a few of its coefficients.
    fn used_channels(&self, basis: &Basis, centred: &[f32]) -> (usize, Vec<usize>) {
        let (channels, mut near) = (basis.channels(), 1);
        let mut counts = vec![0_usize; self.tokens.groups() * channels];
        self.transformed(basis, centred, |row, values| {
            let step = basis.group_step(row, Row::default());
            let last = values.iter().rposition(|x| x.abs() >= LEAST_STEPS * step);
            near = near.max(last.map_or(0, |last| last + 1));
            let least = (1.0 - basis.rounding()) * step;
            let counts = &mut counts[self.tokens.group(row) * channels..];
            for (count, x) in counts.iter_mut().zip(values) {
                *count += usize::from(x.abs() >= least);
            }
        });
        let used = |counts: &[usize]| {
            let (few, mut beyond) = (counts.iter().sum::<usize>() / FEW, 0);
            let last = counts.iter().rposition(|count| {
                beyond += count;
                beyond > few
            });
            last.map_or(0, |last| last + 1)
        };
        (near, counts.chunks_exact(channels).map(used).collect())
    }

    /// What the coded means of groups leave of those by position.
    fn residual(&self, positions: &[f32], groups: &[u8]) -> Result<Vec<f32>> {
        let (width, prefix) = (self.width, self.tokens.prefix());
        let groups = decode(groups)?.into_data();
        let row = |row: usize| &groups[row.min(prefix) * width..][..width];
        let rows = positions.chunks_exact(width).enumerate();
        let differences = rows.flat_map(|(at, mean)| mean.iter().zip(row(at)).map(|(x, y)| x - y));
        Ok(differences.collect())
    }

    /// Fits the expected magnitudes by group and by channel.
    fn expect(&self, settings: &mut Settings, basis: &Basis, centred: &Centred) {
        let (channels, groups) = (settings.channels, self.tokens.groups());
        let mut by_group = vec![(0.0_f64, 0_usize); groups];
        let mut by_channel = vec![0.0_f64; channels];
        let (mut all, mut rows) = (0.0, 0_usize);
        let mut sinks = centred.sinks.iter();
        self.transformed(basis, &centred.rows, |row, values| {
            let sink = sinks.next().is_some_and(|&sink| sink);
            let group = if sink { 0 } else { self.tokens.group(row) };
            let step = basis.group_step(
                row,
                Row {
                    sink,
                    ..Row::default()
                },
            );
            let (sum, count) = &mut by_group[group];
            *count += channels;
            let counts = !self.tokens.has_sinks() || group >= self.tokens.prefix();
            rows += usize::from(counts);
            for (channel, x) in values.iter().enumerate() {
                let size = f64::from((x.abs() / step + basis.rounding()).floor());
                *sum += size;
                if counts {
                    by_channel[channel] += size;
                    all += size;
                }
            }
        });
        let rows = rows.max(1) as f64;
        let overall = (all / (rows * channels as f64)).max(1e-6);
        let scale = |mean: f64| (2.0 * log2(mean.max(1e-5))).round().clamp(-40.0, 40.0) as i8;
        settings.group_scales = by_group
            .iter()
            .map(|&(sum, count)| scale(sum / count.max(1) as f64))
            .collect();
        settings.channel_scales = by_channel
            .iter()
            .map(|&sum| scale((sum / rows).max(1e-5) / overall))
            .collect();
    }
}

fn energy(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

/// Steps of each group ∝ energy^exponent, 1 for the mean energy, those of the prefix with them.
fn steps_by(energies: &[f64], tokens: Tokens, exponent: f64) -> Vec<f64> {
    let grid = &energies[tokens.prefix()..];
    let count = |group: usize| match tokens.sides() {
        Some([height, width]) => {
            let sum = group + 1;
            sum.min(height).min(width).min(height + width - sum) as f64
        }
        None => 1.0,
    };
    let total: f64 = (0..grid.len()).map(count).sum();
    let mean = grid
        .iter()
        .enumerate()
        .map(|(group, x)| x * count(group))
        .sum::<f64>()
        / total;
    let step = |&x: &f64| {
        if mean > 0.0 {
            (x / mean).max(1e-6).powf(exponent).clamp(1.0 / 32.0, 32.0)
        } else {
            1.0
        }
    };
    energies.iter().map(step).collect()
}

fn eighths(step: f64) -> i8 {
    (8.0 * log2(step)).round().clamp(-127.0, 127.0) as i8
}

/// The principal channels of centred rows, each times the root of its variance: `[D, D]`, the
/// largest first.
fn principal_channels(centred: &[f32], width: usize) -> Vec<f32> {
    let rows = DMatrix::from_row_slice(centred.len() / width, width, centred);
    let covariance = (rows.transpose() * &rows).cast::<f64>() / rows.nrows() as f64;
    let eigen = covariance.clone().symmetric_eigen();
    let mut order: Vec<usize> = (0..width).collect();
    order.sort_by(|&a, &b| {
        eigen.eigenvalues[b]
            .total_cmp(&eigen.eigenvalues[a])
            .then(a.cmp(&b))
    });
    // Rows of small weight are coded coarsely, but must stay apart from each other.
    let least = (LEAST_WEIGHT * covariance.trace() / width as f64).max(1e-30);
    let weighted = |&at: &usize| {
        let weight = eigen.eigenvalues[at].max(least).sqrt();
        let vector = eigen.eigenvectors.column(at);
        let vector: Vec<f32> = vector.iter().map(|x| (x * weight) as f32).collect();
        vector
    };
    order.iter().flat_map(weighted).collect()
}

/// Rows of a length of 1.
fn normalized(rows: &[f32], width: usize) -> Vec<f32> {
    let mut rows = rows.to_vec();
    for row in rows.chunks_exact_mut(width) {
        let energy: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let factor = (1.0 / energy.sqrt()) as f32;
        for x in row {
            *x *= factor;
        }
    }
    rows
}
