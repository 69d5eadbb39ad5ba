use std::fmt;

use crate::config::{Code, Config, NonFinite, Quantize, Rounding, Spacing, Sparsify};
use crate::encoder::Encoder;
use crate::error::Result;
use crate::quantize::Range;
use crate::tensor::TensorView;

/// How tensors are encoded: an immutable set of settings.
///
/// ```
/// # fn main() -> sft_compress::Result<()> {
/// use sft_compress::{Codec, Range};
///
/// let codec = Codec::paper(0.2, 8)?.with_range(Range::Row);
/// assert_eq!(codec.to_string(), "paper(keep 0.2, levels 8, range row)");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Codec {
    config: Config,
}

impl Codec {
    /// A codec of explicit choices.
    ///
    /// # Errors
    /// `InvalidArgument` if a field or the combination is not allowed.
    pub fn new(config: Config) -> Result<Self> {
        config.check()?;
        Ok(Self { config })
    }

    /// The paper's codec (section IV-B): Top-K of the whole tensor, stochastic
    /// quantization to evenly spaced levels, Golomb-coded positions,
    /// entropy-coded levels.
    ///
    /// `keep` in (0, 1] is the paper's ρ: of n elements the
    /// max(1, round(ρ·n)) of largest magnitude are kept. `levels` in 2..=256 is
    /// the number of quantization points, the paper's E + 1. All kept
    /// magnitudes share one range; see [`with_range`](Self::with_range).
    ///
    /// # Errors
    /// `InvalidArgument` if `keep` or `levels` is not in its range.
    pub fn paper(keep: f64, levels: u32) -> Result<Self> {
        Self::top_k(keep, levels, Spacing::Linear, Range::Tensor, Code::Golomb)
    }

    /// For activations: Top-K of the whole tensor, stochastic quantization to
    /// [log-spaced](Spacing::Log) levels, everything coded by context.
    ///
    /// Unbiased given the kept set. `keep` and `levels` as for
    /// [`paper`](Self::paper).
    ///
    /// # Errors
    /// `InvalidArgument` if `keep` or `levels` is not in its range.
    pub fn activation(keep: f64, levels: u32) -> Result<Self> {
        Self::top_k(keep, levels, Spacing::Log, Range::Tensor, Code::Context)
    }

    /// For gradients: Top-K of the whole tensor, stochastic quantization to
    /// evenly spaced levels in a range for each row, everything coded by
    /// context.
    ///
    /// Unbiased given the kept set. `keep` and `levels` as for
    /// [`paper`](Self::paper).
    ///
    /// # Errors
    /// `InvalidArgument` if `keep` or `levels` is not in its range.
    pub fn gradient(keep: f64, levels: u32) -> Result<Self> {
        Self::top_k(keep, levels, Spacing::Linear, Range::Row, Code::Context)
    }

    /// The fewest bits at a mean squared error: a uniform quantizer with a
    /// [dead zone](Quantize::DeadZone), coded by context. Not random, and not
    /// unbiased.
    ///
    /// `step` in 0.001..=1000 is relative to the root mean square of the tensor.
    ///
    /// # Errors
    /// `InvalidArgument` if `step` is not in its range.
    pub fn dead_zone(step: f64) -> Result<Self> {
        Self::new(Config {
            sparsify: Sparsify::None,
            quantize: Quantize::DeadZone { step },
            ..Config::default()
        })
    }

    /// No compression: every element as it is, bit for bit, NaN included.
    pub fn raw() -> Self {
        Self {
            config: Config {
                sparsify: Sparsify::None,
                quantize: Quantize::None,
                code: Code::None,
                non_finite: NonFinite::Refuse,
            },
        }
    }

    fn top_k(keep: f64, count: u32, spacing: Spacing, range: Range, code: Code) -> Result<Self> {
        Self::new(Config {
            sparsify: Sparsify::TopK(keep),
            quantize: Quantize::Levels {
                count,
                spacing,
                rounding: Rounding::Stochastic,
                range,
            },
            code,
            non_finite: NonFinite::Refuse,
        })
    }

    /// The same codec with another choice of which magnitudes share a range;
    /// no effect on codecs without levels.
    #[must_use]
    pub fn with_range(mut self, to: Range) -> Self {
        if let Quantize::Levels { range, .. } = &mut self.config.quantize {
            *range = to;
        }
        self
    }

    /// The same codec with another treatment of NaN and infinities; no effect
    /// on [`raw`](Self::raw), which keeps them.
    #[must_use]
    pub fn with_non_finite(mut self, to: NonFinite) -> Self {
        if self.config.code != Code::None {
            self.config.non_finite = to;
        }
        self
    }

    /// Every choice.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The fraction of elements kept, in (0, 1]; 1 where it is not a setting.
    pub fn keep(&self) -> f64 {
        match self.config.sparsify {
            Sparsify::TopK(keep) | Sparsify::RowTopK(keep) => keep,
            Sparsify::None | Sparsify::Threshold(_) => 1.0,
        }
    }

    /// The number of quantization points, if it is a setting.
    pub fn levels(&self) -> Option<u32> {
        match self.config.quantize {
            Quantize::Levels { count, .. } => Some(count),
            _ => None,
        }
    }

    /// Which magnitudes share a quantization range, if it is a setting.
    pub fn range(&self) -> Option<Range> {
        match self.config.quantize {
            Quantize::Levels { range, .. } => Some(range),
            _ => None,
        }
    }

    /// Encodes a tensor as one self-describing [frame](crate::frame_format).
    ///
    /// The same tensor, settings and `seed` give the same bytes everywhere. The
    /// seed decides the random roundings: take a new one for every message, or
    /// their errors do not average out. Codecs that do not round at random
    /// ignore it. [`Encoder`] does the same without new memory for each message.
    ///
    /// # Errors
    /// `NonFinite` if the tensor holds NaN or an infinity that the codec
    /// refuses; `TooLarge` if the frame would hold 4 GiB or more.
    pub fn encode(&self, tensor: TensorView<'_>, seed: u64) -> Result<Vec<u8>> {
        let mut frame = Vec::new();
        Encoder::new(*self).encode_into(tensor, seed, &mut frame)?;
        Ok(frame)
    }
}

impl fmt::Display for Codec {
    /// The named constructor if there is one for the settings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config {
            sparsify,
            quantize,
            code,
            ..
        } = self.config;
        match (sparsify, quantize, code) {
            (_, _, Code::None) => f.write_str("raw"),
            (
                Sparsify::TopK(keep),
                Quantize::Levels {
                    count,
                    spacing,
                    rounding: Rounding::Stochastic,
                    range,
                },
                _,
            ) => match (code, spacing, range) {
                (Code::Golomb, _, _) => {
                    write!(f, "paper(keep {keep}, levels {count}, range {range})")
                }
                (_, Spacing::Log, Range::Tensor) => {
                    write!(f, "activation(keep {keep}, levels {count})")
                }
                (_, Spacing::Linear, Range::Row) => {
                    write!(f, "gradient(keep {keep}, levels {count})")
                }
                _ => write!(
                    f,
                    "context(keep {keep}, levels {count} {spacing}, range {range})"
                ),
            },
            (Sparsify::None, Quantize::DeadZone { step }, _) => write!(f, "dead_zone(step {step})"),
            _ => write!(f, "{code:?}({sparsify:?}, {quantize:?})"),
        }
    }
}
