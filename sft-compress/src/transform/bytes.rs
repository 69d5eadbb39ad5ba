//! A basis as bytes, under a version and a checksum.

use super::basis::{MeanParts, Parts, Settings};
use super::tokens::Tokens;
use crate::coding::bytes::ByteReader;
#[cfg(feature = "learn")]
use crate::coding::bytes::put_varint;
use crate::error::{Error, ErrorKind, Result};

const MAGIC: [u8; 4] = *b"SFTB";
const VERSION: u8 = 1;
const FLAG_ROTATION: u8 = 1;
const FLAG_MEAN: u8 = 2;
const FLAG_RELATIVE: u8 = 4;
const FLAG_ROWS: u8 = 8;
/// The most channels that are rotated: both sides make the rotation orthonormal, which takes the
/// third power.
pub(super) const MAX_ROTATED: usize = 1536;
/// The most elements of means by position.
pub(super) const MAX_MEAN: usize = 1 << 24;
/// The most indices of rows that both sides of a sequence keep.
pub(super) const MAX_CACHED: usize = 1 << 22;
/// The most channels.
const MAX_WIDTH: usize = 1 << 16;

impl Settings {
    #[cfg(feature = "learn")]
    pub(super) fn write(&self, parts: &Parts, out: &mut Vec<u8>) {
        let flag = |flag, is_set| if is_set { flag } else { 0 };
        out.extend(MAGIC);
        out.push(VERSION);
        out.push(
            flag(FLAG_ROTATION, parts.rotation.is_some())
                | flag(FLAG_MEAN, parts.mean.is_some())
                | flag(FLAG_RELATIVE, self.relative)
                | flag(FLAG_ROWS, self.scales_rows),
        );
        let [height, width] = self.tokens.sides().unwrap_or([0; 2]);
        let prefix = self.tokens.prefix();
        for number in [
            prefix,
            height,
            width,
            self.width,
            self.channels,
            self.cached,
        ] {
            put_varint(out, number as u64);
        }
        out.extend(self.step.to_le_bytes());
        out.push(self.rounding);
        let numbers = [&self.levels[..], &self.group_steps, &self.group_scales];
        for &number in numbers
            .into_iter()
            .chain([&self.channel_scales[..]])
            .flatten()
        {
            out.push(number.cast_unsigned());
        }
        for &channels in &self.group_channels {
            put_varint(out, channels as u64);
        }
        let mean = parts
            .mean
            .iter()
            .flat_map(|mean| [&mean.groups, &mean.positions]);
        for part in parts.rotation.iter().chain(mean) {
            put_varint(out, part.len() as u64);
            out.extend(part);
        }
    }

    pub(super) fn read(body: &mut ByteReader<'_>) -> Result<(Self, Parts)> {
        let flags = body.u8()?;
        if flags > (FLAG_ROTATION | FLAG_MEAN | FLAG_RELATIVE | FLAG_ROWS) {
            return Err(Error::new(
                ErrorKind::UnsupportedVersion,
                format!("flags {flags} are not defined in basis version {VERSION}"),
            ));
        }
        let mut number = |name| body.varint_up_to(MAX_WIDTH, name);
        let prefix = number("the prefix of a basis")?;
        let sides = [
            number("the height of a grid")?,
            number("the width of a grid")?,
        ];
        let tokens = match sides {
            [0, 0] => Tokens::sequence(prefix),
            [height, width] => Tokens::grid(prefix, height, width),
        };
        let tokens = tokens.map_err(|error| Error::corrupt(error.to_string()))?;
        let (width, channels) = (
            number("the width of a basis")?,
            number("the channels of a basis")?,
        );
        let cached = number("the cached rows of a basis")?;
        let rotates = flags & FLAG_ROTATION != 0;
        let most = if rotates {
            width.min(MAX_ROTATED)
        } else {
            width
        };
        if channels == 0
            || channels > most
            || (!rotates && channels != width)
            || (rotates && width > MAX_ROTATED)
        {
            return Err(Error::corrupt(format!("{channels} of {width} channels")));
        }
        let positions = tokens
            .sides()
            .map_or(1, |[height, width]| prefix + height * width);
        if flags & FLAG_MEAN != 0 && positions * width > MAX_MEAN {
            return Err(Error::corrupt(format!(
                "means of {positions} tokens of {width} channels"
            )));
        }
        let step = body.f32()?;
        if !(step > 1e-30 && step < 1e30) {
            return Err(Error::corrupt(format!("a step of {step}")));
        }
        let rounding = body.u8()?;
        let mut numbers = |count| {
            let bytes = body.take(count)?;
            Ok::<_, Error>(
                bytes
                    .iter()
                    .map(|byte| byte.cast_signed())
                    .collect::<Vec<_>>(),
            )
        };
        let levels = numbers(2)?;
        let settings = Self {
            tokens,
            width,
            channels,
            cached,
            step,
            relative: flags & FLAG_RELATIVE != 0,
            scales_rows: flags & FLAG_ROWS != 0,
            rounding,
            levels: [levels[0], levels[1]],
            group_steps: numbers(tokens.groups())?,
            group_scales: numbers(tokens.groups())?,
            channel_scales: numbers(channels)?,
            group_channels: (0..tokens.groups())
                .map(|_| body.varint_up_to(channels, "the channels of a group"))
                .collect::<Result<_>>()?,
        };
        settings.check()?;
        let mut part = |name| {
            let len = body.varint_up_to(body.remaining(), name)?;
            Ok::<_, Error>(body.take(len)?.to_vec())
        };
        let rotation = rotates
            .then(|| part("the length of a rotation"))
            .transpose()?;
        let mean = (flags & FLAG_MEAN != 0).then(|| {
            Ok::<_, Error>(MeanParts {
                groups: part("the length of a mean")?,
                positions: part("the length of a mean")?,
            })
        });
        let mean = mean.transpose()?;
        Ok((settings, Parts { rotation, mean }))
    }

    /// Fails where what was read does not go together.
    fn check(&self) -> Result<()> {
        let (is_sequence, channels) = (self.tokens.sides().is_none(), self.channels);
        if is_sequence && self.group_channels.iter().any(|&some| some != channels) {
            return Err(Error::corrupt("a sequence with rows of fewer channels"));
        }
        if !is_sequence && (self.cached > 0 || self.scales_rows) {
            return Err(Error::corrupt("rows of a sequence on a grid"));
        }
        if self.cached.saturating_mul(channels) > MAX_CACHED {
            return Err(Error::corrupt(format!(
                "{} rows of {channels} channels",
                self.cached
            )));
        }
        if !is_sequence && channels == MAX_WIDTH {
            return Err(Error::corrupt(format!("a grid of {channels} channels")));
        }
        if self.relative && self.cached > 0 || self.scales_rows && !self.relative {
            return Err(Error::corrupt(
                "a gradient's rows of an activation, or the reverse",
            ));
        }
        if self.rounding > 128 || self.levels.iter().any(|&more| more < -64) {
            return Err(Error::corrupt("levels that are out of order"));
        }
        Ok(())
    }
}

/// The body of a basis, its checksum verified, and its name.
pub(super) fn open(bytes: &[u8]) -> Result<(ByteReader<'_>, u32)> {
    let Some((body, checksum)) = bytes.split_last_chunk::<4>() else {
        return Err(Error::new(
            ErrorKind::Truncated,
            format!("the basis is cut off after {} bytes", bytes.len()),
        ));
    };
    let mut reader = ByteReader::new(body);
    if reader.take(4).ok() != Some(&MAGIC[..]) {
        return Err(Error::corrupt(
            "the bytes do not start with a basis's magic",
        ));
    }
    let version = reader.u8()?;
    if version != VERSION {
        return Err(Error::new(
            ErrorKind::UnsupportedVersion,
            format!("basis version {version} is not supported, only {VERSION} is"),
        ));
    }
    let name = u32::from_le_bytes(*checksum);
    if crc32fast::hash(body) != name {
        return Err(Error::new(
            ErrorKind::Checksum,
            "the checksum does not match: the basis was damaged or cut off",
        ));
    }
    Ok((reader, name))
}
