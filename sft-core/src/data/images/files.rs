//! Images in files, read when they are needed.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use fast_image_resize::images::TypedImageRef;
use fast_image_resize::pixels::U8x3;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};

use super::augment::{Augment, Change, crop};
use super::entries::Found;
use super::input::{Fit, ImageInput, cannot};
use super::memory::Resampler;
use crate::data::{Batch, Data};
use crate::{Digest, Error, Result};

/// The first bytes of a JPEG file.
const JPEG: [u8; 2] = [0xff, 0xd8];

/// Labelled image files; every one is read and decoded when a batch asks for it, turned as its EXIF
/// orientation says, and without what it has of transparency.
#[derive(Clone, Debug)]
pub struct ImageFiles {
    files: Vec<(PathBuf, u32)>,
    classes: usize,
    found: Found,
    augmented: Augmented,
    input: ImageInput,
    augment: Option<Augment>,
}

/// What a random crop is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Augmented {
    /// Of the padded image as it is stored, a square of this side.
    Source(usize),
    /// Of the resized image; of what is padded where that is no larger than a crop.
    Window,
}

impl ImageFiles {
    pub(super) fn new(
        files: Vec<(PathBuf, u32)>,
        classes: usize,
        found: Found,
        augmented: Augmented,
        input: ImageInput,
    ) -> Self {
        Self {
            files,
            classes,
            found,
            augmented,
            input,
            augment: None,
        }
    }

    /// What was found in the folder.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The same, changed at random in training.
    #[must_use]
    pub fn with_augmentation(self, augment: Option<Augment>) -> Self {
        Self { augment, ..self }
    }

    fn load(&self, indices: &[usize], seed: Option<u64>) -> Result<Batch> {
        let (side, channels) = (self.input.side, self.input.mean.len());
        let mut values = Vec::with_capacity(indices.len() * channels * side * side);
        let mut views = Vec::new();
        for &index in indices {
            let image = decode(&self.files[index].0)?;
            let change = match self.augmented {
                Augmented::Source(from) => self.square(index, &image, from, seed, &mut values)?,
                Augmented::Window => {
                    let square = self.window(index, &image, seed);
                    let square = square.map_err(|e| Error::file(&self.files[index].0, e));
                    let (square, change) = square?;
                    Resampler::same(&self.input).put(slices(&square), u8::MAX, &mut values)?;
                    change
                }
            };
            views.extend(change.map(|change| change.view));
        }
        let shape = (indices.len(), channels, side, side);
        let pixels = Tensor::from_vec(values, shape, &Device::Cpu)?;
        Ok(Batch::images(self, indices, pixels).with_views(&views, self.len()))
    }

    /// Appends an image that is a square as it is stored, and tells its change.
    fn square(
        &self,
        index: usize,
        image: &RgbImage,
        side: usize,
        seed: Option<u64>,
        values: &mut Vec<f32>,
    ) -> Result<Option<Change>> {
        let (width, height) = image.dimensions();
        if (width as usize, height as usize) != (side, side) {
            let reason = format!("must be {side}x{side} pixels, got {width}x{height}");
            return Err(Error::file(&self.files[index].0, reason));
        }
        let mut planes = planes(image);
        let change = self.augment.zip(seed).map(|(augment, seed)| {
            let padding = augment.pixels(side);
            let change = augment.draw(seed, index, [2 * padding; 2]);
            planes = planes
                .each_ref()
                .map(|plane| crop(plane, side, padding, change));
            change
        });
        Resampler::new(side, &self.input).put(slices(&planes), u8::MAX, values)?;
        Ok(change)
    }

    /// The planes of the square that a model takes, of a resized image, and its change.
    fn window(
        &self,
        index: usize,
        image: &RgbImage,
        seed: Option<u64>,
    ) -> Result<([Vec<u8>; 3], Option<Change>)> {
        let side = self.input.side;
        let fit = self.input.fit.unwrap_or(Fit::whole(side));
        let (width, height) = image.dimensions();
        let sides = format!("{width}x{height}");
        Error::require(width > 0 && height > 0, "size", sides, "at least 1x1")?;
        let pixels = TypedImageRef::<U8x3>::from_buffer(width, height, image.as_raw());
        let pixels = pixels.map_err(cannot)?;
        let slack = fit.slack([width, height], side);
        let drawn = self.augment.zip(seed);
        let padding = drawn.map_or(0, |(augment, _)| augment.pixels(side));
        let padded = slack == [0, 0];
        let change = drawn.map(|(augment, seed)| {
            let room = slack.map(|slack| if padded { 2 * padding } else { slack as usize });
            augment.draw(seed, index, room)
        });
        let corner = match change {
            Some(change) if !padded => [change.left as u64, change.top as u64],
            _ => slack.map(|slack| slack / 2),
        };
        let square = fit.window(&pixels, corner, side)?;
        let planes = [0, 1, 2].map(|channel| {
            let plane = square.iter().map(|pixel| pixel.0[channel]);
            plane.collect::<Vec<_>>()
        });
        let planes = match change {
            Some(change) if padded => planes.map(|plane| crop(&plane, side, padding, change)),
            Some(change) if change.mirrored => planes.map(|plane| mirrored(&plane, side)),
            _ => planes,
        };
        Ok((planes, change))
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

    fn input(&self) -> Option<&ImageInput> {
        Some(&self.input)
    }

    fn told(&self) -> Option<String> {
        Some(self.found.to_string())
    }

    fn batch(&self, indices: &[usize]) -> Result<Batch> {
        self.load(indices, None)
    }

    fn training_batch(&self, indices: &[usize], seed: u64) -> Result<Batch> {
        self.load(indices, Some(seed))
    }

    /// The files' bytes are read for it, and not decoded.
    fn digest(&self, digest: &mut Digest) -> Result<()> {
        digest.number(self.classes as u64);
        digest.bytes(format!("{:?}", self.input).as_bytes());
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

fn slices(planes: &[Vec<u8>; 3]) -> impl Iterator<Item = &[u8]> {
    planes.iter().map(Vec::as_slice)
}

/// A square plane, left and right exchanged.
fn mirrored(plane: &[u8], side: usize) -> Vec<u8> {
    let rows = plane.chunks_exact(side);
    rows.flat_map(|row| row.iter().rev().copied()).collect()
}

fn decode(path: &Path) -> Result<RgbImage> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    if bytes.starts_with(&JPEG) && !has_end(&bytes) {
        return Err(Error::file(path, "the image is truncated"));
    }
    let image = upright(&bytes);
    let image = image.map_err(|e| Error::file(path, format!("not a whole image: {e}")))?;
    Ok(image.into_rgb8())
}

/// The image as its camera was held.
fn upright(bytes: &[u8]) -> image::ImageResult<DynamicImage> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let mut decoder = reader.into_decoder()?;
    Limits::default().reserve(decoder.total_bytes())?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Whether a JPEG file's last scan has an end. The decoder fills what is missing with grey.
fn has_end(jpeg: &[u8]) -> bool {
    let marker = |bytes: &[u8], code: u8| bytes.windows(2).rposition(|pair| pair == [0xff, code]);
    let scan = marker(jpeg, 0xda).unwrap_or(0);
    marker(&jpeg[scan..], 0xd9).is_some()
}
