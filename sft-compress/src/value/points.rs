use crate::coding::bytes::ByteReader;
use crate::config::{Quantize, Range, Spacing};
use crate::dtype::{f16_to_f32, f32_to_f16};
use crate::error::{Error, ErrorKind, Result};
use crate::simd::Level;

use super::levels::{Levels, LogScale, Scale, Spaced, quantize};
use super::noise::Noise;
use super::ranges::Span;
use super::token::{self, DIRECT};

const KIND_LINEAR: u8 = 0;
const KIND_LOG: u8 = 1;
const KIND_DEAD_ZONE: u8 = 2;
const KIND_F16: u8 = 3;
const KIND_F32: u8 = 4;
/// A dead zone of one offset.
const KIND_EVEN: u8 = 5;
/// Half precision's largest finite magnitude.
const F16_MAX: u16 = 0x7bff;

/// The index of an element in the dead zone.
pub(crate) const DEAD: u32 = u32::MAX;

/// What a frame says about the magnitudes that indices stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ValueCoding {
    Levels {
        levels: Levels,
        spacing: Spacing,
        span: Span,
    },
    DeadZone(DeadZone),
    F16 {
        lo: u16,
        hi: u16,
    },
    F32(Span),
}

/// A uniform step and where in its intervals their magnitudes are, on average.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeadZone {
    pub(crate) step: f32,
    /// In units of 1/128 step; the last is that of all indices from 15 on.
    pub(crate) offsets: [u8; DIRECT as usize],
}

/// Above this the inverse of a dead zone's step is a normal number.
pub(crate) const LEAST_STEP: f32 = 1e-30;

impl DeadZone {
    /// Whether all indices have the same offset.
    fn is_even(&self) -> bool {
        self.offsets == [self.offsets[0]; DIRECT as usize]
    }

    /// The index of a magnitude; none if it falls in the dead zone. With a `uniform` number it is
    /// rounded at random, with the magnitude as the expectation.
    pub(crate) fn index(&self, magnitude: f32, uniform: Option<f32>) -> Option<u32> {
        // Of a finer step the inverse would not be a normal number; scaling by
        // a power of two is exact.
        let scale = if self.step > LEAST_STEP {
            1.0
        } else {
            2.0_f32.powi(100)
        };
        let per_step = 1.0 / (self.step * scale);
        let steps = magnitude * scale * per_step;
        let token = match uniform {
            Some(uniform) => (steps + uniform).floor(),
            None => nearest(steps - 0.125),
        };
        (token as u32).min(1 << 31).checked_sub(1)
    }
}

/// The integer nearest to a number above −1/2, of two the even one.
fn nearest(x: f32) -> f32 {
    /// From here on there are integers only.
    const WHOLE: f32 = (1 << 23) as f32;
    if x < WHOLE { (x + WHOLE) - WHOLE } else { x }
}

/// The magnitudes of indices in one range.
#[derive(Clone, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a box would be allocated for each message"
)]
pub(crate) enum Points {
    Linear(Scale),
    Log(LogScale),
    DeadZone(DeadZone),
    F16 { lo: u16, hi: u16 },
    F32 { lo: u32, hi: u32 },
}

impl ValueCoding {
    /// The scheme for kept elements of a `span`; of a dead zone with this `step`, without its
    /// offsets, which the indices decide.
    pub(crate) fn choose(quantize: Quantize, span: Span, step: f32) -> Self {
        let half = |x: f32| f32_to_f16(x).min(F16_MAX);
        match quantize {
            Quantize::None => Self::F32(span),
            Quantize::F16 => Self::F16 {
                lo: half(span.lo),
                hi: half(span.hi),
            },
            Quantize::Levels {
                count,
                spacing,
                range,
                ..
            } => Self::Levels {
                levels: Levels { count, range },
                spacing,
                span,
            },
            Quantize::DeadZone { .. } | Quantize::Unbiased { .. } | Quantize::Error { .. } => {
                Self::DeadZone(DeadZone {
                    step,
                    offsets: [128; DIRECT as usize],
                })
            }
        }
    }

    /// Whether each row has a range of its own.
    pub(crate) fn by_row(&self) -> Option<Span> {
        match *self {
            Self::Levels { levels, span, .. } if levels.range == Range::Row => Some(span),
            _ => None,
        }
    }

    /// The points of the whole tensor.
    pub(crate) fn points(&self) -> Points {
        match *self {
            Self::Levels { span, .. } => self.points_to(span.hi),
            Self::DeadZone(dead_zone) => Points::DeadZone(dead_zone),
            Self::F16 { lo, hi } => Points::F16 { lo, hi },
            Self::F32(span) => Points::F32 {
                lo: span.lo.to_bits(),
                hi: span.hi.to_bits(),
            },
        }
    }

    /// The points of a row whose range ends at `hi`.
    pub(crate) fn points_to(&self, hi: f32) -> Points {
        match *self {
            Self::Levels {
                levels,
                spacing,
                span,
            } => match spacing {
                Spacing::Linear => Points::Linear(Scale::new(span.lo, hi, levels.count)),
                Spacing::Log => Points::Log(LogScale::new(span.lo, hi, levels.count)),
            },
            _ => self.points(),
        }
    }

    /// The quantizer's kind and, of levels, their number.
    pub(crate) fn write_kind(&self, out: &mut Vec<u8>) {
        match self {
            Self::Levels {
                levels, spacing, ..
            } => {
                let kind = match spacing {
                    Spacing::Linear => KIND_LINEAR,
                    Spacing::Log => KIND_LOG,
                };
                out.extend([kind, (levels.count - 1) as u8]);
            }
            Self::DeadZone(dead_zone) if dead_zone.is_even() => out.push(KIND_EVEN),
            Self::DeadZone(_) => out.push(KIND_DEAD_ZONE),
            Self::F16 { .. } => out.push(KIND_F16),
            Self::F32(_) => out.push(KIND_F32),
        }
    }

    pub(crate) fn write_values(&self, out: &mut Vec<u8>) {
        match self {
            Self::Levels { span, .. } | Self::F32(span) => span.write(out),
            Self::DeadZone(dead_zone) => {
                out.extend(dead_zone.step.to_le_bytes());
                let count = if dead_zone.is_even() { 1 } else { DIRECT };
                out.extend(&dead_zone.offsets[..count as usize]);
            }
            Self::F16 { lo, hi } => {
                out.extend(lo.to_le_bytes());
                out.extend(hi.to_le_bytes());
            }
        }
    }
}

/// The kind of a quantizer as a frame's header gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Levels(Levels, Spacing),
    DeadZone { is_even: bool },
    F16,
    F32,
}

impl Kind {
    pub(crate) fn read(body: &mut ByteReader<'_>, range: Range) -> Result<Self> {
        let kind = body.u8()?;
        if range == Range::Row && kind > KIND_LOG {
            return Err(Error::corrupt("ranges of rows without levels"));
        }
        let mut levels = || match body.u8()? {
            0 => Err(Error::corrupt("a single quantization level")),
            last => Ok(Levels {
                count: u32::from(last) + 1,
                range,
            }),
        };
        Ok(match kind {
            KIND_LINEAR => Self::Levels(levels()?, Spacing::Linear),
            KIND_LOG => Self::Levels(levels()?, Spacing::Log),
            KIND_DEAD_ZONE => Self::DeadZone { is_even: false },
            KIND_EVEN => Self::DeadZone { is_even: true },
            KIND_F16 => Self::F16,
            KIND_F32 => Self::F32,
            _ => {
                return Err(Error::new(
                    ErrorKind::UnsupportedVersion,
                    format!("quantizer {kind} is not defined in this version"),
                ));
            }
        })
    }

    pub(crate) fn read_values(self, body: &mut ByteReader<'_>) -> Result<ValueCoding> {
        Ok(match self {
            Self::Levels(levels, spacing) => ValueCoding::Levels {
                levels,
                spacing,
                span: Span::read(body)?,
            },
            Self::DeadZone { is_even } => {
                let step = body.f32()?;
                if !(step > 0.0 && step.is_finite()) {
                    return Err(Error::corrupt(format!("a quantization step of {step}")));
                }
                let mut offsets = [0; DIRECT as usize];
                if is_even {
                    offsets.fill(body.u8()?);
                } else {
                    offsets.copy_from_slice(body.take(DIRECT as usize)?);
                }
                ValueCoding::DeadZone(DeadZone { step, offsets })
            }
            Self::F16 => {
                let (lo, hi) = (body.u16()?, body.u16()?);
                if lo > hi || hi > F16_MAX {
                    return Err(Error::corrupt(format!("halves from {lo} to {hi}")));
                }
                ValueCoding::F16 { lo, hi }
            }
            Self::F32 => ValueCoding::F32(Span::read(body)?),
        })
    }
}

impl Points {
    /// Appends the index of each kept element; `noise` decides stochastic
    /// roundings, none the nearest.
    pub(crate) fn indices(
        &self,
        positions: &[u32],
        values: &[f32],
        noise: Option<Noise>,
        indices: &mut Vec<u32>,
    ) {
        let each = values.iter().map(|x| x.abs());
        let spaced = match self {
            Self::Linear(scale) => Spaced::Linear(scale),
            Self::Log(scale) => Spaced::Log(scale),
            Self::DeadZone(dead_zone) => {
                let index = |(x, &position): (f32, &u32)| {
                    let uniform = noise.map(|noise| noise.coarse(position));
                    dead_zone.index(x, uniform).unwrap_or(DEAD)
                };
                return indices.extend(each.zip(positions).map(index));
            }
            Self::F16 { lo, .. } => {
                let bits = |x| f32_to_f16(x).min(F16_MAX);
                return indices.extend(each.map(|x| u32::from(bits(x) - lo)));
            }
            Self::F32 { lo, .. } => return indices.extend(each.map(|x| x.to_bits() - lo)),
        };
        quantize(Level::best(), spaced, positions, values, noise, indices);
    }

    /// The magnitude of an index; none if there is no such index.
    #[inline]
    pub(crate) fn magnitude(&self, index: u32) -> Option<f32> {
        match self {
            Self::Linear(scale) => scale.checked_point(index),
            Self::Log(scale) => scale.point(index),
            Self::DeadZone(DeadZone { step, offsets }) => {
                let offset = offsets[index.min(DIRECT - 1) as usize];
                let steps = f64::from(index) + f64::from(offset) / 128.0;
                Some(((f64::from(*step) * steps) as f32).min(f32::MAX))
            }
            Self::F16 { lo, hi } => {
                let bits = index.checked_add((*lo).into())?;
                (bits <= (*hi).into()).then(|| f16_to_f32(bits as u16))
            }
            Self::F32 { lo, hi } => {
                let bits = index.checked_add(*lo)?;
                (bits <= *hi).then(|| f32::from_bits(bits))
            }
        }
    }

    /// The magnitudes of the tokens from 1 on that stand for one, zero where
    /// there is none.
    pub(crate) fn direct(&self) -> [f32; DIRECT as usize] {
        std::array::from_fn(|index| self.magnitude(index as u32).unwrap_or(0.0))
    }

    /// The largest token an index can have.
    pub(crate) fn max_token(&self) -> u8 {
        match self {
            Self::Linear(scale) => token::of(scale.last_level().into()),
            Self::Log(scale) => token::of(scale.last_level().into()),
            Self::DeadZone(_) => token::MAX,
            Self::F16 { lo, hi } => token::of((hi - lo).into()),
            Self::F32 { lo, hi } => token::of(hi - lo),
        }
    }
}
