//! Small images in memory, resized and normalised batch by batch.

use candle_core::{Device, Tensor};

use super::augment::{Augment, crop};
use super::input::{Fit, ImageInput};
use crate::data::{Batch, Data};
use crate::{Digest, Error, Result};

/// Square images of equal size with their classes.
#[derive(Clone, Debug)]
pub struct Images {
    /// `[N, C, H, H]`, one byte a value.
    pixels: Vec<u8>,
    labels: Vec<u32>,
    classes: usize,
    side: usize,
    /// The value that means full intensity.
    full: u8,
    input: ImageInput,
    augment: Option<Augment>,
}

impl Images {
    /// Images `[N, C, side, side]` of values 0 to `full`, to be given to a model as `input`: whole
    /// and bilinear where its fit does not say how.
    ///
    /// # Errors
    /// Sizes of 0 or that do not fit together, a value above `full`, or a label not below `classes`.
    pub fn new(
        pixels: Vec<u8>,
        labels: Vec<u32>,
        classes: usize,
        side: usize,
        full: u8,
        input: ImageInput,
    ) -> Result<Self> {
        input.check()?;
        Error::require(side > 0, "side", side, "at least 1 pixel")?;
        Error::require(full > 0, "full", full, "at least 1")?;
        let fit = input.fit.unwrap_or(Fit::whole(input.side));
        let input = ImageInput {
            fit: Some(fit),
            ..input
        };
        let size = side.saturating_mul(side).saturating_mul(input.mean.len());
        let want = labels.len().saturating_mul(size);
        let accepted = format!("{want} bytes");
        Error::require(pixels.len() == want, "pixels", pixels.len(), &accepted)?;
        if let Some(i) = labels.iter().position(|&label| label as usize >= classes) {
            let label = labels[i];
            let reason = format!("must be in 0..{classes}, got {label} for image {i}");
            return Err(Error::argument("label", reason));
        }
        if let Some(i) = pixels.iter().position(|&p| p > full) {
            let (value, image) = (pixels[i], i / size);
            let reason = format!("must be in 0..={full}, got {value} in image {image}");
            return Err(Error::argument("pixel", reason));
        }
        Ok(Self {
            pixels,
            labels,
            classes,
            side,
            full,
            input,
            augment: None,
        })
    }

    /// The same, changed at random in training.
    #[must_use]
    pub fn with_augmentation(self, augment: Option<Augment>) -> Self {
        Self { augment, ..self }
    }

    /// The pixels of one image, `[C, H, H]`.
    pub fn pixels(&self, index: usize) -> &[u8] {
        &self.pixels[index * self.image_size()..][..self.image_size()]
    }

    fn load(&self, indices: &[usize], seed: Option<u64>) -> Result<Batch> {
        let (from, to, channels) = (self.side, self.input.side, self.input.mean.len());
        let resampler = Resampler::new(from, &self.input);
        let mut values = Vec::with_capacity(indices.len() * channels * to * to);
        let mut views = Vec::new();
        for &index in indices {
            let planes = self.pixels(index).chunks_exact(from * from);
            let (Some(augment), Some(seed)) = (self.augment, seed) else {
                resampler.put(planes, self.full, &mut values)?;
                continue;
            };
            let padding = augment.pixels(from);
            let change = augment.draw(seed, index, [2 * padding; 2]);
            views.push(change.view);
            let planes: Vec<_> = planes.map(|p| crop(p, from, padding, change)).collect();
            let planes = planes.iter().map(Vec::as_slice);
            resampler.put(planes, self.full, &mut values)?;
        }
        let shape = (indices.len(), channels, to, to);
        let pixels = Tensor::from_vec(values, shape, &Device::Cpu)?;
        Ok(Batch::images(self, indices, pixels).with_views(&views, self.len()))
    }

    fn image_size(&self) -> usize {
        self.input.mean.len() * self.side * self.side
    }
}

impl Data for Images {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    fn input(&self) -> Option<&ImageInput> {
        Some(&self.input)
    }

    fn batch(&self, indices: &[usize]) -> Result<Batch> {
        self.load(indices, None)
    }

    fn training_batch(&self, indices: &[usize], seed: u64) -> Result<Batch> {
        self.load(indices, Some(seed))
    }

    fn digest(&self, digest: &mut Digest) -> Result<()> {
        for number in [self.classes, self.side, usize::from(self.full)] {
            digest.number(number as u64);
        }
        digest.bytes(format!("{:?}", self.input).as_bytes());
        for &label in &self.labels {
            digest.number(u64::from(label));
        }
        digest.bytes(&self.pixels);
        Ok(())
    }
}

/// Makes square planes of one size a model's input.
pub(super) struct Resampler<'i> {
    from: usize,
    /// For what gets no smaller: bilinear without the rounding to bytes.
    taps: Option<Taps>,
    fit: Fit,
    input: &'i ImageInput,
}

impl<'i> Resampler<'i> {
    pub(super) fn new(from: usize, input: &'i ImageInput) -> Self {
        let (to, fit) = (input.side, input.fit.unwrap_or(Fit::whole(input.side)));
        let taps = (fit == Fit::whole(to) && from <= to).then(|| Taps::new(from, to));
        Self {
            from,
            taps,
            fit,
            input,
        }
    }

    /// For planes that are as large as the model takes them: they are only normalised.
    pub(super) fn same(input: &'i ImageInput) -> Self {
        let (from, fit) = (input.side, Fit::whole(input.side));
        Self {
            from,
            taps: Some(Taps::new(from, from)),
            fit,
            input,
        }
    }

    /// Appends the planes of one image, resized, and normalised from values 0 to `full`.
    pub(super) fn put<'a>(
        &self,
        planes: impl Iterator<Item = &'a [u8]>,
        full: u8,
        values: &mut Vec<f32>,
    ) -> Result<()> {
        for (channel, plane) in planes.enumerate() {
            let scale = 1.0 / (f32::from(full) * self.input.std[channel]);
            let shift = self.input.mean[channel] / self.input.std[channel];
            let mut put = |value| values.push(value * scale - shift);
            if let Some(taps) = &self.taps {
                taps.resize(plane, put);
            } else {
                let middle = self.fit.middle(plane, self.from, self.input.side, full)?;
                middle.into_iter().for_each(&mut put);
            }
        }
        Ok(())
    }
}

/// Where an output pixel reads: two neighbours and the weight of the second.
struct Tap {
    low: usize,
    high: usize,
    weight: f32,
}

/// Bilinear sampling of square planes with pixel centres aligned, as PyTorch's
/// `align_corners=False`.
struct Taps {
    from: usize,
    taps: Vec<Tap>,
}

impl Taps {
    /// From planes of side `from` to planes of side `to`.
    fn new(from: usize, to: usize) -> Self {
        let ratio = from as f32 / to as f32;
        let tap = |i: usize| {
            let position = ((i as f32 + 0.5) * ratio - 0.5).max(0.0);
            let low = (position as usize).min(from - 1);
            Tap {
                low,
                high: (low + 1).min(from - 1),
                weight: position - low as f32,
            }
        };
        let taps = (0..to).map(tap).collect();
        Self { from, taps }
    }

    /// Calls `put` with each value of the resized plane, row after row.
    fn resize(&self, plane: &[u8], mut put: impl FnMut(f32)) {
        for y in &self.taps {
            let (top, bottom) = (&plane[y.low * self.from..], &plane[y.high * self.from..]);
            for x in &self.taps {
                let row = |row: &[u8]| {
                    let (a, b) = (f32::from(row[x.low]), f32::from(row[x.high]));
                    a * (1.0 - x.weight) + b * x.weight
                };
                put(row(top) * (1.0 - y.weight) + row(bottom) * y.weight);
            }
        }
    }
}
