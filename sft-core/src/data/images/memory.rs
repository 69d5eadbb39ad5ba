//! Small images in memory, resized and normalised batch by batch.

use candle_core::{Device, Tensor};

use super::augment::{Augment, crop};
use crate::data::{Batch, Data};
use crate::{Digest, Error, Result};

/// The images that a model wants.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageInput {
    /// Side of the square image, pixels.
    pub side: usize,
    /// What is subtracted from a channel's values in [0, 1].
    pub mean: Vec<f32>,
    /// What the difference is divided by.
    pub std: Vec<f32>,
}

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
    /// Images `[N, C, side, side]` of values 0 to `full`, to be given to a model as `input`.
    ///
    /// # Errors
    /// Sizes that do not fit together, a value above `full`, or a label not below `classes`.
    pub fn new(
        pixels: Vec<u8>,
        labels: Vec<u32>,
        classes: usize,
        side: usize,
        full: u8,
        input: ImageInput,
    ) -> Result<Self> {
        if side == 0 {
            return Err(Error::argument("side", "must be at least 1, got 0"));
        }
        let size = input.mean.len() * side * side;
        if pixels.len() != labels.len() * size {
            let (got, want) = (pixels.len(), labels.len() * size);
            return Err(Error::argument(
                "pixels",
                format!("must be {want} bytes, got {got}"),
            ));
        }
        if let Some(i) = labels.iter().position(|&label| label as usize >= classes) {
            let label = labels[i];
            let reason = format!("must be in 0..{classes}, got {label} for image {i}");
            return Err(Error::argument("label", reason));
        }
        if let Some(i) = pixels.iter().position(|&p| p > full) {
            let (value, image) = (pixels[i], i / size.max(1));
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

    fn load(&self, indices: &[usize], seed: Option<u64>) -> Result<Tensor> {
        let (from, to, channels) = (self.side, self.input.side, self.input.mean.len());
        let taps = Taps::new(from, to);
        let mut values = Vec::with_capacity(indices.len() * channels * to * to);
        for &index in indices {
            let planes = self.pixels(index).chunks_exact(from * from);
            let (Some(augment), Some(seed)) = (self.augment, seed) else {
                normalise(planes, &taps, &self.input, self.full, &mut values);
                continue;
            };
            let padding = augment.pixels(from);
            let change = augment.draw(seed, index, [2 * padding; 2]);
            let planes: Vec<_> = planes.map(|p| crop(p, from, padding, change)).collect();
            let planes = planes.iter().map(Vec::as_slice);
            normalise(planes, &taps, &self.input, self.full, &mut values);
        }
        let shape = (indices.len(), channels, to, to);
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
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

    fn batch(&self, indices: &[usize]) -> Result<Batch> {
        Ok(Batch::images(self, indices, self.load(indices, None)?))
    }

    fn training_batch(&self, indices: &[usize], seed: u64) -> Result<Batch> {
        Ok(Batch::images(
            self,
            indices,
            self.load(indices, Some(seed))?,
        ))
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

/// Appends the planes of one image, resized, and normalised from values 0 to `full`.
pub(super) fn normalise<'a>(
    planes: impl Iterator<Item = &'a [u8]>,
    taps: &Taps,
    input: &ImageInput,
    full: u8,
    values: &mut Vec<f32>,
) {
    for (channel, plane) in planes.enumerate() {
        let scale = 1.0 / (f32::from(full) * input.std[channel]);
        let shift = input.mean[channel] / input.std[channel];
        taps.resize(plane, |value| values.push(value * scale - shift));
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
pub(super) struct Taps {
    from: usize,
    taps: Vec<Tap>,
}

impl Taps {
    /// From planes of side `from` to planes of side `to`.
    pub(super) fn new(from: usize, to: usize) -> Self {
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
