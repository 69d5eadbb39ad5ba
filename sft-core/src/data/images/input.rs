//! What a model wants of its images, and how one of any size becomes that.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::F32;
use fast_image_resize::{FilterType, ImageView, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The images that a model wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageInput {
    /// Side of the square image, pixels.
    pub side: usize,
    /// What is subtracted from a channel's values in [0, 1].
    pub mean: Vec<f32>,
    /// What the difference is divided by.
    pub std: Vec<f32>,
    /// How an image becomes a square of that side; nothing where the data set decides.
    pub fit: Option<Fit>,
}

/// How an image becomes a square: it is resized, then the middle of it is cut out.
///
/// This is one value for the loader that does it and the writer of a merged model's
/// `preprocessor_config.json` that tells it. Pixels are Pillow's to within one level of 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fit {
    /// The size before the cut.
    pub resize: Resize,
    /// The filter of resizing.
    pub filter: Filter,
}

/// The size that an image is resized to, pixels; at least that of the square which is cut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resize {
    /// Width and height become this, whatever they were.
    Both(usize),
    /// The shorter side becomes this, the longer one keeps its ratio to it, rounded down.
    Shorter(usize),
}

/// A filter of resizing as Pillow has it: it widens where images get smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filter {
    /// A triangle two pixels wide.
    Bilinear,
    /// A cubic four pixels wide with `a = -0.5`.
    Bicubic,
    /// A windowed sinc six pixels wide.
    Lanczos,
}

impl ImageInput {
    /// # Errors
    /// Sizes or values that no image can be made for.
    pub(super) fn check(&self) -> Result<()> {
        let Self {
            side, mean, std, ..
        } = self;
        Error::require(*side > 0, "input.side", side, "at least 1 pixel")?;
        let matched = !mean.is_empty() && mean.len() == std.len();
        let lengths = format!("{} and {}", mean.len(), std.len());
        Error::require(
            matched,
            "input.mean and std",
            lengths,
            "of one length above 0",
        )?;
        let usable = |(mean, std): (&f32, &f32)| mean.is_finite() && std.is_normal() && *std > 0.0;
        if let Some((mean, std)) = mean.iter().zip(std).find(|&pair| !usable(pair)) {
            let reason = format!("must be finite and above 0, got {mean} and {std}");
            return Err(Error::argument("input.mean and std", reason));
        }
        let size = self.fit.map_or(*side, |fit| fit.resize.shorter());
        let reason = format!("at least the {side} pixels of the model");
        Error::require(size >= *side, "input.fit.resize", size, &reason)
    }
}

impl Resize {
    /// The shorter side of what comes out, pixels.
    pub fn shorter(self) -> usize {
        let (Self::Both(side) | Self::Shorter(side)) = self;
        side
    }
}

impl Fit {
    /// All of the image in a square of this side, bilinear.
    pub fn whole(side: usize) -> Self {
        Self {
            resize: Resize::Both(side),
            filter: Filter::Bilinear,
        }
    }

    /// Width and height of an image after resizing.
    pub(super) fn resized(self, size: [u32; 2]) -> [u64; 2] {
        let shorter = u64::from(size[0].min(size[1])).max(1);
        match self.resize {
            Resize::Both(side) => [side as u64; 2],
            Resize::Shorter(side) => {
                size.map(|length| (side as u64).saturating_mul(length.into()) / shorter)
            }
        }
    }

    /// How far from the left and from the top of the resized image a square may start.
    pub(super) fn slack(self, size: [u32; 2], side: usize) -> [u64; 2] {
        self.resized(size)
            .map(|length| length.saturating_sub(side as u64))
    }

    /// A square of `side` pixels of the resized image, `corner` from its left and its top; nothing
    /// else of it is computed.
    pub(super) fn window<P: PixelTrait>(
        self,
        image: &TypedImageRef<'_, P>,
        corner: [u64; 2],
        side: usize,
    ) -> Result<Vec<P>> {
        let size = [image.width(), image.height()];
        let resized = self.resized(size);
        let [(left, width), (top, height)] = [0, 1].map(|axis| {
            let length = f64::from(size[axis]);
            let ratio = length / resized[axis] as f64;
            let start = corner[axis] as f64 * ratio;
            (start, (side as f64 * ratio).min(length - start))
        });
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(self.filter.into()))
            .crop(left, top, width, height);
        let mut square = TypedImage::new(side as u32, side as u32);
        let done = Resizer::new().resize_typed(image, &mut square, &options);
        done.map_err(cannot)?;
        Ok(square.pixels().to_vec())
    }

    /// The middle of a square plane of values 0 to `full`, resized.
    pub(super) fn middle(
        self,
        plane: &[u8],
        from: usize,
        side: usize,
        full: u8,
    ) -> Result<Vec<f32>> {
        let values: Vec<_> = plane.iter().map(|&value| F32::new(value.into())).collect();
        let size = [from as u32; 2];
        let image = TypedImageRef::new(size[0], size[1], &values).map_err(cannot)?;
        let middle = self.slack(size, side).map(|slack| slack / 2);
        let window = self.window(&image, middle, side)?;
        let values = window.iter().map(|pixel| pixel.0.clamp(0.0, full.into()));
        Ok(values.collect())
    }
}

/// What the resizer refused.
pub(super) fn cannot(reason: impl std::fmt::Display) -> Error {
    Error::argument("image", format!("cannot be resized: {reason}"))
}

impl From<Filter> for FilterType {
    fn from(filter: Filter) -> Self {
        match filter {
            Filter::Bilinear => Self::Bilinear,
            Filter::Bicubic => Self::CatmullRom,
            Filter::Lanczos => Self::Lanczos3,
        }
    }
}
