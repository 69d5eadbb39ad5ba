use std::borrow::Cow;

use super::bytes::open;
use super::planes::Models;
use super::rotation::Rotation;
use super::rows::{Known, Row};
use super::spectrum::{Cosines, Work};
use super::tokens::Tokens;
use crate::coding::adaptive::Reader;
#[cfg(feature = "learn")]
use crate::coding::adaptive::Writer;
use crate::decoder::decode_expected;
use crate::error::{Error, Result};

/// A mean is coded in steps finer than those of samples.
const MEAN_STEP: f32 = 0.25;

/// What sender and receiver of transformed samples know: where tokens lie, means, a rotation of
/// the channels, steps, and which magnitudes to expect where.
///
/// A message names the basis it was made with. A basis is made by
/// [`of_activations`](Self::of_activations) or [`of_gradients`](Self::of_gradients) (feature
/// `learn`), and travels as [bytes](Self::to_bytes); see [the format](crate::frame_format).
#[derive(Clone, Debug)]
pub struct Basis {
    pub(super) settings: Settings,
    rotation: Option<Rotation>,
    /// Rows `[S, D]`; of a sequence those of the prefix and one for all that follow.
    mean: Option<Vec<f32>>,
    cosines: Option<[Cosines; 2]>,
    /// Of the tokens of a grid.
    order: Vec<u32>,
    bytes: Vec<u8>,
    name: u32,
}

/// The numbers of a basis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) tokens: Tokens,
    /// Channels of a sample, D.
    pub(super) width: usize,
    /// Channels of coefficients, K.
    pub(super) channels: usize,
    /// Rows of earlier messages that rows can name.
    pub(super) cached: usize,
    /// The step, or the step over the root mean square of the tensor.
    pub(super) step: f32,
    pub(super) relative: bool,
    /// Whether each row has a step of its own besides.
    pub(super) scales_rows: bool,
    /// What is added before rounding down, in units of 1/128.
    pub(super) rounding: u8,
    /// What is added to the first level, and to the others, in units of 1/128 step.
    pub(super) levels: [i8; 2],
    /// Of each group, the binary logarithm of its step over the common one, in eighths.
    pub(super) group_steps: Vec<i8>,
    /// Of each group and channel, that of the expected magnitude in steps, in halves; they add up.
    pub(super) group_scales: Vec<i8>,
    pub(super) channel_scales: Vec<i8>,
    /// Of each group, the channels that may have coefficients, the first of all.
    pub(super) group_channels: Vec<usize>,
}

/// What of a basis is coded: rows of the rotation, each times a weight, and means.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    /// A frame `[K, D]`.
    pub(super) rotation: Option<Vec<u8>>,
    pub(super) mean: Option<MeanParts>,
}

#[derive(Clone, Debug)]
pub(super) struct MeanParts {
    /// A frame `[P + 1, D]`: the mean of each token of the prefix and that of all others.
    pub(super) groups: Vec<u8>,
    /// The rest by position, as the indices of a sample; empty without a grid.
    pub(super) positions: Vec<u8>,
}

impl Basis {
    /// Puts a basis together, of which the rotation is known.
    #[cfg(feature = "learn")]
    pub(super) fn of(
        settings: &Settings,
        parts: &Parts,
        rotation: Option<&Rotation>,
    ) -> Result<Self> {
        let mut bytes = Vec::new();
        settings.write(parts, &mut bytes);
        let checksum = crc32fast::hash(&bytes);
        bytes.extend(checksum.to_le_bytes());
        let (mut body, name) = open(&bytes)?;
        let (settings, parts) = Settings::read(&mut body)?;
        let known = Self::without_mean(settings, rotation.cloned(), &bytes, name);
        known.with_mean(parts.mean.as_ref())
    }

    /// The bytes of a basis, for [`from_bytes`](Self::from_bytes).
    pub fn to_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The basis of bytes that may come from anyone.
    ///
    /// Takes time in proportion to D·K² where there is a rotation, of D and K up to 1536; allocates
    /// no more than 400 MiB, as there are at most 2²⁴ elements of means.
    ///
    /// # Errors
    /// `Corrupt`, `Checksum` or `UnsupportedVersion` by what is wrong with them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (mut body, name) = open(bytes)?;
        let (settings, parts) = Settings::read(&mut body)?;
        body.finish()?;
        let shape = [settings.channels, settings.width];
        let rotation = parts
            .rotation
            .map(|frame| Rotation::of(&decode_expected(&frame, &shape)?.into_data(), shape));
        let known = Self::without_mean(settings, rotation.transpose()?, bytes, name);
        known.with_mean(parts.mean.as_ref())
    }

    fn without_mean(
        settings: Settings,
        rotation: Option<Rotation>,
        bytes: &[u8],
        name: u32,
    ) -> Self {
        let (tokens, sides) = (settings.tokens, settings.tokens.sides());
        let positions = sides.map_or(0, |[height, width]| tokens.prefix() + height * width);
        Self {
            rotation,
            mean: None,
            cosines: sides.map(|sides| sides.map(Cosines::new)),
            order: tokens.order(positions),
            settings,
            bytes: bytes.to_vec(),
            name,
        }
    }

    fn with_mean(mut self, mean: Option<&MeanParts>) -> Result<Self> {
        if let Some(mean) = mean {
            // Means have coefficients everywhere.
            let everywhere = vec![self.channels(); self.tokens().groups()];
            let groups = std::mem::replace(&mut self.settings.group_channels, everywhere);
            self.mean = Some(self.read_mean(mean)?);
            self.settings.group_channels = groups;
        }
        Ok(self)
    }

    /// The name of the basis in messages: the checksum of its bytes.
    pub fn name(&self) -> u32 {
        self.name
    }

    /// How the tokens of a sample lie.
    pub fn tokens(&self) -> Tokens {
        self.settings.tokens
    }

    /// Channels of a sample, D.
    pub fn width(&self) -> usize {
        self.settings.width
    }

    /// Channels of its coefficients, K ≤ D.
    pub fn channels(&self) -> usize {
        self.settings.channels
    }

    /// Rows of earlier messages that both sides keep, so that rows can name one of them.
    pub fn cached_rows(&self) -> usize {
        self.settings.cached
    }

    /// Whether steps are relative to the root mean square of a tensor.
    pub(crate) fn is_relative(&self) -> bool {
        self.settings.relative
    }

    /// Whether each row has a step of its own.
    pub(crate) fn scales_rows(&self) -> bool {
        self.settings.scales_rows
    }

    pub(super) fn rotation(&self) -> Option<&Rotation> {
        self.rotation.as_ref()
    }

    pub(super) fn mean(&self) -> Option<&[f32]> {
        self.mean.as_deref()
    }

    pub(super) fn cosines(&self) -> Option<&[Cosines; 2]> {
        self.cosines.as_ref()
    }

    /// The rows of a sample of so many tokens in the order of coding.
    pub(super) fn order(&self, tokens: usize) -> Cow<'_, [u32]> {
        if self.order.len() == tokens {
            return Cow::Borrowed(&self.order);
        }
        Cow::Owned(self.tokens().order(tokens))
    }

    /// The group of a row.
    fn group(&self, number: usize, row: Row) -> usize {
        if row.sink {
            0
        } else {
            self.tokens().group(number)
        }
    }

    /// The step of a row.
    pub(super) fn group_step(&self, number: usize, row: Row) -> f32 {
        let eighths = i32::from(self.settings.group_steps[self.group(number, row)]);
        self.settings.step * eighth_octaves(eighths + 4 * i32::from(row.scale))
    }

    /// The channels of a row that may have coefficients.
    pub(super) fn row_channels(&self, row: usize) -> usize {
        self.settings.group_channels[self.tokens().group(row)]
    }

    /// The expected size of a row, in half octaves.
    pub(super) fn group_scale(&self, number: usize, row: Row) -> i32 {
        self.settings.group_scales[self.group(number, row)].into()
    }

    /// That of each channel, over it.
    pub(super) fn channel_scales(&self) -> &[i8] {
        &self.settings.channel_scales
    }

    /// What is added before rounding down.
    pub(super) fn rounding(&self) -> f32 {
        f32::from(self.settings.rounding) / 128.0
    }

    /// The steps that an index stands for.
    pub(crate) fn steps(&self, index: i32) -> f32 {
        let [first, others] = self.settings.levels;
        let more = match index.unsigned_abs() {
            0 => return 0.0,
            1 => first,
            _ => others,
        };
        let magnitude = index.unsigned_abs() as f32 + f32::from(more) / 128.0;
        if index < 0 { -magnitude } else { magnitude }
    }

    /// The means by position as the indices of a sample, coded.
    #[cfg(feature = "learn")]
    pub(super) fn write_positions(&self, residual: &[f32]) -> Vec<u8> {
        let (mut work, mut bytes) = (Work::default(), Vec::new());
        let mut rows = vec![Row::default(); residual.len() / self.width()];
        self.forward(residual, &rows, &mut work);
        let mut indices = vec![0; work.coefficients.len()];
        self.quantize(&work, &rows, MEAN_STEP, &mut indices);
        let mut writer = Writer::new(&mut bytes);
        if Models::new()
            .code(&mut writer, self, &mut indices, &mut rows, Known::Nothing)
            .is_ok()
        {
            writer.finish();
        }
        bytes
    }

    fn read_mean(&self, parts: &MeanParts) -> Result<Vec<f32>> {
        let (width, prefix) = (self.width(), self.tokens().prefix());
        let groups = decode_expected(&parts.groups, &[prefix + 1, width])?.into_data();
        let Some([height, across]) = self.tokens().sides() else {
            return Ok(groups);
        };
        let tokens = prefix + height * across;
        let mut indices = vec![0; tokens * self.channels()];
        let mut reader = Reader::new(&parts.positions);
        let mut kinds = vec![Row::default(); tokens];
        Models::new().code(&mut reader, self, &mut indices, &mut kinds, Known::Nothing)?;
        if !reader.is_at_end() {
            return Err(Error::corrupt("a basis with bytes behind its means"));
        }
        let mut rows = vec![0.0; tokens * width];
        self.inverse(&indices, &kinds, MEAN_STEP, &mut Work::default(), &mut rows);
        let (last, of_prefix) = (&groups[prefix * width..], groups.chunks_exact(width));
        let means = of_prefix.take(prefix).chain(std::iter::repeat(last));
        for (row, mean) in rows.chunks_exact_mut(width).zip(means) {
            for (x, mean) in row.iter_mut().zip(mean) {
                *x += mean;
            }
        }
        if rows.iter().any(|x| !x.is_finite()) {
            return Err(Error::corrupt("a mean that is not finite"));
        }
        Ok(rows)
    }
}

/// Two bases are equal if their bytes are.
impl PartialEq for Basis {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Basis {}

/// 2 to the power of so many eighths.
fn eighth_octaves(eighths: i32) -> f32 {
    const FRACTIONS: [f64; 8] = [
        1.0,
        1.090_507_732_665_257_7,
        1.189_207_115_002_721,
        1.296_839_554_651_009_6,
        std::f64::consts::SQRT_2,
        1.542_210_825_407_940_7,
        1.681_792_830_507_429,
        1.834_008_086_409_342_4,
    ];
    let octaves = 2.0_f64.powi(eighths.div_euclid(8));
    (FRACTIONS[eighths.rem_euclid(8) as usize] * octaves) as f32
}
