//! Images in files, read when they are needed.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use image::imageops::{FilterType, crop_imm, flip_horizontal_in_place, resize};
use image::{DynamicImage, ImageReader, RgbImage};

use super::augment::{Augment, crop};
use super::memory::{ImageInput, Taps, normalise};
use crate::data::{Batch, Data};
use crate::{Digest, Error, Result};

/// A crop is this much smaller than the resized image, as 224 of 256.
const RESIZED: f64 = 256.0 / 224.0;
/// The first bytes of a JPEG file.
const JPEG: [u8; 2] = [0xff, 0xd8];

/// Labelled JPEG and PNG files; every one is read and decoded when a batch asks for it.
#[derive(Clone, Debug)]
pub struct ImageFiles {
    files: Vec<(PathBuf, u32)>,
    classes: usize,
    fit: Fit,
    input: ImageInput,
    augment: Option<Augment>,
}

/// How an image becomes a square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is one, of this side.
    Square(usize),
    /// The shorter side is resized to 256/224 of what the model takes, then the middle is cut out,
    /// or any part when training with augmentation.
    Crop,
}

impl ImageFiles {
    pub(super) fn new(
        files: Vec<(PathBuf, u32)>,
        classes: usize,
        fit: Fit,
        input: &ImageInput,
    ) -> Self {
        Self {
            files,
            classes,
            fit,
            input: input.clone(),
            augment: None,
        }
    }

    /// The same, changed at random in training.
    #[must_use]
    pub fn with_augmentation(self, augment: Option<Augment>) -> Self {
        Self { augment, ..self }
    }

    fn load(&self, indices: &[usize], seed: Option<u64>) -> Result<Tensor> {
        let (side, channels) = (self.input.side, self.input.mean.len());
        let mut values = Vec::with_capacity(indices.len() * channels * side * side);
        for &index in indices {
            let image = decode(&self.files[index].0)?;
            match self.fit {
                Fit::Square(from) => self.square(index, &image, from, seed, &mut values)?,
                Fit::Crop => self.cropped(index, &image, seed, &mut values),
            }
        }
        let shape = (indices.len(), channels, side, side);
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    fn square(
        &self,
        index: usize,
        image: &RgbImage,
        side: usize,
        seed: Option<u64>,
        values: &mut Vec<f32>,
    ) -> Result<()> {
        let (width, height) = image.dimensions();
        if (width as usize, height as usize) != (side, side) {
            let reason = format!("must be {side}x{side} pixels, got {width}x{height}");
            return Err(Error::file(&self.files[index].0, reason));
        }
        let mut planes = planes(image);
        if let (Some(augment), Some(seed)) = (self.augment, seed) {
            let padding = augment.pixels(side);
            let change = augment.draw(seed, index, [2 * padding; 2]);
            planes = planes.map(|plane| crop(&plane, side, padding, change));
        }
        let taps = Taps::new(side, self.input.side);
        normalise(
            planes.iter().map(Vec::as_slice),
            &taps,
            &self.input,
            u8::MAX,
            values,
        );
        Ok(())
    }

    fn cropped(&self, index: usize, image: &RgbImage, seed: Option<u64>, values: &mut Vec<f32>) {
        let side = self.input.side as u32;
        let (width, height) = image.dimensions();
        let shorter = (f64::from(side) * RESIZED).round();
        let ratio = shorter / f64::from(width.min(height));
        let scaled = |length: u32| ((f64::from(length) * ratio).round() as u32).max(side);
        let (width, height) = (scaled(width), scaled(height));
        let resized = resize(image, width, height, FilterType::Triangle);
        let slack = [width - side, height - side];
        let (mut left, mut top, mut mirrored) = (slack[0] / 2, slack[1] / 2, false);
        if let (Some(augment), Some(seed)) = (self.augment, seed) {
            let change = augment.draw(seed, index, slack.map(|slack| slack as usize));
            (left, top, mirrored) = (change.left as u32, change.top as u32, change.mirrored);
        }
        let mut square = crop_imm(&resized, left, top, side, side).to_image();
        if mirrored {
            flip_horizontal_in_place(&mut square);
        }
        let taps = Taps::new(self.input.side, self.input.side);
        let planes = planes(&square);
        normalise(
            planes.iter().map(Vec::as_slice),
            &taps,
            &self.input,
            u8::MAX,
            values,
        );
    }
}

impl Data for ImageFiles {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn label(&self, index: usize) -> u32 {
        self.files[index].1
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

    /// The files' bytes are read for it, and not decoded.
    fn digest(&self, digest: &mut Digest) -> Result<()> {
        digest.number(self.classes as u64);
        digest.bytes(format!("{:?} {:?}", self.fit, self.input).as_bytes());
        for (path, label) in &self.files {
            digest.number(u64::from(*label));
            digest.bytes(&std::fs::read(path).map_err(|e| Error::file(path, e))?);
        }
        Ok(())
    }
}

/// Red, green and blue, row by row.
fn planes(image: &RgbImage) -> [Vec<u8>; 3] {
    [0, 1, 2].map(|channel| image.pixels().map(|pixel| pixel[channel]).collect())
}

fn decode(path: &Path) -> Result<RgbImage> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    if bytes.starts_with(&JPEG) && !has_end(&bytes) {
        return Err(Error::file(path, "the image is truncated"));
    }
    let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format();
    let image = reader.map_err(|e| Error::file(path, e))?.decode();
    let image = image.map_err(|e| Error::file(path, format!("not a whole image: {e}")))?;
    Ok(DynamicImage::into_rgb8(image))
}

/// Whether a JPEG file's last scan has an end. The decoder fills what is missing with grey.
fn has_end(jpeg: &[u8]) -> bool {
    let marker = |bytes: &[u8], code: u8| bytes.windows(2).rposition(|pair| pair == [0xff, code]);
    let scan = marker(jpeg, 0xda).unwrap_or(0);
    marker(&jpeg[scan..], 0xd9).is_some()
}
