//! A basis from activations, and from how much the server minds errors in them.

use nalgebra::DMatrix;

use super::basis::{Basis, MeanParts, Parts, Settings};
use super::bytes::{MAX_MEAN, MAX_ROTATED};
use super::rotation::Rotation;
use super::spectrum::Work;
use super::tokens::Tokens;
use crate::codec::Codec;
use crate::decoder::decode;
use crate::error::{Error, ErrorKind, Result};
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
/// The step of a class token, and of other tokens before a grid, over the common one: it holds
/// half of the server's sensitivity in few elements.
const PREFIX_STEP: f64 = 1.0 / 12.0;
/// How steps of gradients follow the energy of activations at the frequency.
const GRADIENT_EXPONENT: f64 = -0.4;

impl Basis {
    /// The basis for activations like these, `[n, S, D]`, of which some tens are enough: their means
    /// by position, the principal channels of the rest (KLT), of which each group of rows codes as many
    /// as hold its coefficients, and on a grid steps by frequency.
    ///
    /// `step` in 0.001..=1000 is the common step over the root mean square of the activations, on a
    /// grid times the root of its tokens: over the coefficient that all tokens would have if they
    /// were equal.
    /// `sensitivity`, of the same shape, holds gradients of what the server makes of them with
    /// respect to the activations, for random directions: step of a frequency ∝ (mean energy of
    /// the gradient there)^−½. Without, all frequencies have the same.
    ///
    /// # Errors
    /// `InvalidArgument` for a step outside its range, no activations, or shapes that do not fit;
    /// `NonFinite` for NaN or infinities.
    pub fn of_activations(
        activations: TensorView<'_>,
        tokens: Tokens,
        step: f64,
        sensitivity: Option<TensorView<'_>>,
    ) -> Result<Self> {
        let samples = Samples::of("activations", activations, tokens, step)?;
        let steps = match sensitivity {
            None => vec![1.0; tokens.groups()],
            Some(sensitivity) => {
                let gradients = Samples::of("sensitivity", sensitivity, tokens, step)?;
                if gradients.shape != samples.shape {
                    return Err(Error::invalid(format!(
                        "sensitivity must have the shape {:?} of the activations, got {:?}",
                        samples.shape, gradients.shape
                    )));
                }
                steps_by(&gradients.energies()?, tokens, -0.5)
            }
        };
        samples.basis(step, &steps)
    }

    /// The basis for gradients at the same cut: no rotation, on a grid steps by the energy of the
    /// activations at the frequency, and all relative to the root mean square of each tensor.
    ///
    /// # Errors
    /// As [`of_activations`](Self::of_activations).
    pub fn of_gradients(activations: TensorView<'_>, tokens: Tokens, step: f64) -> Result<Self> {
        let samples = Samples::of("activations", activations, tokens, step)?;
        let mut steps = steps_by(&samples.energies()?, tokens, GRADIENT_EXPONENT);
        steps[..tokens.prefix()].fill(1.0);
        let settings = Settings {
            relative: true,
            channels: samples.width(),
            channel_scales: vec![0; samples.width()],
            group_scales: vec![-8; tokens.groups()],
            group_steps: steps.into_iter().map(eighths).collect(),
            ..samples.settings((step * tokens.gain()) as f32, [0, 0])
        };
        Self::of(&settings, &Parts::default(), None)
    }
}

/// Samples of one shape.
struct Samples {
    values: Vec<f32>,
    shape: [usize; 3],
    tokens: Tokens,
}

impl Samples {
    fn of(name: &str, tensor: TensorView<'_>, tokens: Tokens, step: f64) -> Result<Self> {
        if !(0.001..=1000.0).contains(&step) {
            return Err(Error::invalid(format!(
                "step must be in 0.001..=1000, got {step}"
            )));
        }
        let &[count, rows, width] = tensor.shape() else {
            let shape = tensor.shape();
            return Err(Error::invalid(format!(
                "{name} must have the shape [n, S, D], got {shape:?}"
            )));
        };
        if count == 0 || rows <= tokens.prefix() || width == 0 {
            let shape = tensor.shape();
            return Err(Error::invalid(format!(
                "{name} must hold samples, got the shape {shape:?}"
            )));
        }
        tokens.check(rows)?;
        if rows.saturating_mul(width) > MAX_MEAN {
            return Err(Error::invalid(format!(
                "{name} must have at most {MAX_MEAN} elements a sample, got {rows} x {width}"
            )));
        }
        let values = tensor.elements().to_f32().into_owned();
        if let Some(at) = values.iter().position(|x| !x.is_finite()) {
            let message = format!(
                "element {at} of {name} is {}, but must be finite",
                values[at]
            );
            return Err(Error::new(ErrorKind::NonFinite, message));
        }
        Ok(Self {
            values,
            shape: [count, rows, width],
            tokens,
        })
    }

    fn width(&self) -> usize {
        self.shape[2]
    }

    fn each(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.shape[1] * self.shape[2])
    }

    fn settings(&self, step: f32, levels: [i8; 2]) -> Settings {
        Settings {
            tokens: self.tokens,
            width: self.width(),
            channels: self.width(),
            step,
            relative: false,
            rounding: 70,
            levels,
            group_steps: vec![0; self.tokens.groups()],
            group_scales: vec![0; self.tokens.groups()],
            channel_scales: vec![0; self.width()],
            group_channels: vec![self.width(); self.tokens.groups()],
        }
    }

    /// The mean energy of each group of coefficients, without rotation.
    fn energies(&self) -> Result<Vec<f64>> {
        let plain = Basis::of(&self.settings(1.0, [0, 0]), &Parts::default(), None)?;
        let (mut work, mut sums) = (Work::default(), vec![(0.0, 0_usize); self.tokens.groups()]);
        for sample in self.each() {
            plain.forward(sample, &mut work);
            for (row, values) in work.coefficients.chunks_exact(self.width()).enumerate() {
                let (sum, count) = &mut sums[self.tokens.group(row)];
                *sum += values
                    .iter()
                    .map(|&x| f64::from(x) * f64::from(x))
                    .sum::<f64>();
                *count += values.len();
            }
        }
        Ok(sums
            .into_iter()
            .map(|(sum, count)| sum / count.max(1) as f64)
            .collect())
    }

    fn basis(&self, step: f64, steps: &[f64]) -> Result<Basis> {
        let energy: f64 = self
            .values
            .iter()
            .map(|&x| f64::from(x) * f64::from(x))
            .sum();
        let rms = (energy / self.values.len() as f64).sqrt();
        let step = (step * rms * self.tokens.gain()).clamp(1e-20, 1e20) as f32;
        let mut settings = self.settings(step, [13, 6]);
        let prefix = self.tokens.prefix();
        let group_steps = steps.iter().enumerate();
        settings.group_steps = group_steps
            .map(|(group, &step)| eighths(if group < prefix { PREFIX_STEP } else { step }))
            .collect();
        let (positions, groups) = self.means();
        let groups = Codec::for_error(MEAN_ERROR)?
            .encode(TensorView::new(&groups, &[prefix + 1, self.width()])?, 0)?;
        let centred = self.without(&positions);
        let (mut parts, mut rotation) = (Parts::default(), None);
        let mut used = settings.group_channels.clone();
        if self.width() <= MAX_ROTATED {
            let weighted = principal_channels(&centred, self.width());
            let exact = Rotation::of_orthonormal(normalized(&weighted, self.width()), self.width());
            parts.rotation = Some(Vec::new());
            let all = Basis::of(&settings, &parts, Some(&exact))?;
            let (near, of_groups) = used_channels(&all, &centred, self.shape);
            let channels = near.next_multiple_of(8).min(self.width());
            used = of_groups;
            settings.channels = channels;
            settings.channel_scales.truncate(channels);
            settings.group_channels.fill(channels);
            let (frame, made) = self.rotation(&weighted[..channels * self.width()])?;
            (parts.rotation, rotation) = (Some(frame), Some(made));
        }
        let rotation = rotation.as_ref();
        let unexpecting = Basis::of(&settings, &parts, rotation)?;
        self.expect(&mut settings, &unexpecting, &centred);
        let no_mean = Basis::of(&settings, &parts, rotation)?;
        let residual = self.residual(&positions, &groups)?;
        let positions = match self.tokens.sides() {
            Some(_) => no_mean.write_positions(&residual),
            None => Vec::new(),
        };
        parts.mean = Some(MeanParts { groups, positions });
        settings.group_channels = used;
        Basis::of(&settings, &parts, rotation)
    }

    /// The frame of a rotation, and what it becomes.
    fn rotation(&self, weighted: &[f32]) -> Result<(Vec<u8>, Rotation)> {
        let shape = [weighted.len() / self.width(), self.width()];
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

    /// The means by position, and those of each token of the prefix and of all others.
    fn means(&self) -> (Vec<f32>, Vec<f32>) {
        let [count, rows, width] = self.shape;
        let mut sums = vec![0.0_f64; rows * width];
        for sample in self.each() {
            for (sum, &x) in sums.iter_mut().zip(sample) {
                *sum += f64::from(x);
            }
        }
        let prefix = self.tokens.prefix();
        let mut others = vec![0.0; width];
        for row in sums[prefix * width..].chunks_exact(width) {
            for (sum, x) in others.iter_mut().zip(row) {
                *sum += x / (rows - prefix) as f64;
            }
        }
        let mean = |sum: f64| (sum / count as f64) as f32;
        let groups = sums[..prefix * width]
            .iter()
            .copied()
            .chain(others.iter().copied());
        let groups = groups.map(mean).collect();
        let positions = if self.tokens.sides().is_some() {
            sums.iter().map(|&sum| mean(sum)).collect()
        } else {
            let others = others.iter().cycle().take((rows - prefix) * width);
            sums[..prefix * width]
                .iter()
                .chain(others)
                .map(|&sum| mean(sum))
                .collect()
        };
        (positions, groups)
    }

    fn without(&self, positions: &[f32]) -> Vec<f32> {
        let values = self.values.iter().zip(positions.iter().cycle());
        values.map(|(x, mean)| x - mean).collect()
    }

    /// What the coded means of groups leave of those by position.
    fn residual(&self, positions: &[f32], groups: &[u8]) -> Result<Vec<f32>> {
        let (width, prefix) = (self.width(), self.tokens.prefix());
        let groups = decode(groups)?.into_data();
        let row = |row: usize| &groups[row.min(prefix) * width..][..width];
        let rows = positions.chunks_exact(width).enumerate();
        let differences = rows.flat_map(|(at, mean)| mean.iter().zip(row(at)).map(|(x, y)| x - y));
        Ok(differences.collect())
    }

    /// Fits the expected magnitudes by group and by channel.
    fn expect(&self, settings: &mut Settings, basis: &Basis, centred: &[f32]) {
        let (channels, groups) = (settings.channels, self.tokens.groups());
        let mut by_group = vec![(0.0_f64, 0_usize); groups];
        let mut by_channel = vec![0.0_f64; channels];
        let mut all = 0.0;
        let (mut work, mut indices) = (Work::default(), vec![0; self.shape[1] * channels]);
        for sample in centred.chunks_exact(self.shape[1] * self.width()) {
            basis.forward(sample, &mut work);
            basis.quantize(&work, 1.0, &mut indices);
            for (row, indices) in indices.chunks_exact(channels).enumerate() {
                let (sum, count) = &mut by_group[self.tokens.group(row)];
                for (channel, &index) in indices.iter().enumerate() {
                    let size = f64::from(index.unsigned_abs());
                    *sum += size;
                    by_channel[channel] += size;
                    all += size;
                }
                *count += channels;
            }
        }
        let rows = (self.shape[0] * self.shape[1]) as f64;
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

/// Of each group, channels up to the last whose coefficients come near a step, and those that hold
/// all but a few of its coefficients.
fn used_channels(
    basis: &Basis,
    centred: &[f32],
    [_, rows, width]: [usize; 3],
) -> (usize, Vec<usize>) {
    let (tokens, channels) = (basis.tokens(), basis.channels());
    let (mut work, mut near) = (Work::default(), 1);
    let mut counts = vec![0_usize; tokens.groups() * channels];
    for sample in centred.chunks_exact(rows * width) {
        basis.forward(sample, &mut work);
        for (row, values) in work.coefficients.chunks_exact(channels).enumerate() {
            let step = basis.group_step(row);
            let last = values.iter().rposition(|x| x.abs() >= LEAST_STEPS * step);
            near = near.max(last.map_or(0, |last| last + 1));
            let (least, counts) = (
                (1.0 - basis.rounding()) * step,
                &mut counts[tokens.group(row) * channels..],
            );
            for (count, x) in counts.iter_mut().zip(values) {
                *count += usize::from(x.abs() >= least);
            }
        }
    }
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
