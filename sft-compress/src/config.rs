use crate::error::{Error, Result};
use crate::quantize::Range;

/// Every choice of a lossy codec, for [`Codec::new`](crate::Codec::new).
///
/// The named constructors of [`Codec`](crate::Codec) are combinations of these
/// that are known to work well; [`Codec::config`](crate::Codec::config) tells
/// which.
///
/// ```
/// # fn main() -> sft_compress::Result<()> {
/// use sft_compress::{Codec, Config, Quantize, Sparsify};
///
/// let rows = Codec::activation(0.2, 8)?.config().with_sparsify(Sparsify::RowTopK(0.2));
/// let halves = Config::default().with_quantize(Quantize::F16);
/// # assert_ne!(Codec::new(rows)?, Codec::activation(0.2, 8)?);
/// # assert_eq!(Codec::new(halves)?.to_string(), "f16");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Which elements are kept; the others decode to zero. Default: all.
    pub sparsify: Sparsify,
    /// What becomes of the kept elements. Default: a dead zone of step
    /// [`ACTIVATION_STEP`](Self::ACTIVATION_STEP).
    pub quantize: Quantize,
    /// How positions, signs and levels become bytes. Default: by context.
    pub code: Code,
    /// What becomes of NaN and infinities. Default: refused.
    pub non_finite: NonFinite,
}

impl Default for Config {
    /// That of activations: [`Codec::default_activation`](crate::Codec::default_activation).
    fn default() -> Self {
        Self {
            sparsify: Sparsify::None,
            quantize: Quantize::DeadZone {
                step: Self::ACTIVATION_STEP,
            },
            code: Code::Context,
            non_finite: NonFinite::Refuse,
        }
    }
}

impl Config {
    /// The step of the [dead zone](Quantize::DeadZone) that activations get by default.
    pub const ACTIVATION_STEP: f64 = 1.25;
    /// The step of the [dead zone](Quantize::DeadZone) that gradients get by default.
    pub const GRADIENT_STEP: f64 = 4.0;

    /// The same choices with other elements kept.
    #[must_use]
    pub fn with_sparsify(self, sparsify: Sparsify) -> Self {
        Self { sparsify, ..self }
    }

    /// The same choices with another quantizer.
    #[must_use]
    pub fn with_quantize(self, quantize: Quantize) -> Self {
        Self { quantize, ..self }
    }

    /// The same choices coded otherwise.
    #[must_use]
    pub fn with_code(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// The same choices with another treatment of NaN and infinities.
    #[must_use]
    pub fn with_non_finite(self, non_finite: NonFinite) -> Self {
        Self { non_finite, ..self }
    }
}

/// Which elements of a tensor are kept. Elements of magnitude zero never are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sparsify {
    /// All.
    None,
    /// Of n elements the max(1, round(keep·n)) of largest magnitude, keep in
    /// (0, 1]; of equals those that come first.
    TopK(f64),
    /// The same in each row by itself. For activations as good as
    /// [`TopK`](Self::TopK), for gradients harmful: many of their rows deserve
    /// nothing.
    RowTopK(f64),
    /// Those of at least this magnitude, positive and finite.
    Threshold(f32),
}

/// What becomes of the kept elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Quantize {
    /// Nothing: exact as `f32`.
    None,
    /// The nearest half-precision number; beyond its range the largest.
    F16,
    /// One of a few magnitudes between the least and the largest kept.
    Levels {
        /// Number of points, 2..=256.
        count: u32,
        /// How the points are spaced.
        spacing: Spacing,
        /// How a magnitude chooses between the two around it.
        rounding: Rounding,
        /// Which magnitudes share the points.
        range: Range,
    },
    /// Uniform with a dead zone (ECSQ): magnitude |x| goes to the index nearest
    /// to |x|/Δ − 1/8 with Δ = `step`·RMS of the tensor, and each index to the
    /// mean of the magnitudes in it, by a sample if the tensor is large. Magnitudes below 5/8 Δ become zero; Top-K
    /// before it is not needed.
    DeadZone {
        /// Δ relative to the tensor's root mean square, 0.001..=1000.
        step: f64,
    },
}

/// How quantization points are spaced over their range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spacing {
    /// Evenly (section IV-B).
    Linear,
    /// Nearly logarithmically: evenly in x to the power −1/4. Finer near the
    /// least kept magnitude, where most of them are, and computed with square
    /// roots alone, so that every platform has the same points.
    Log,
}

/// How a magnitude chooses between the two points around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// At random, with the magnitude as the expectation.
    Stochastic,
    /// The nearer one: less error, but biased.
    Nearest,
}

/// How positions, signs and levels become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Elements as they are. Only with nothing else done to them.
    None,
    /// The paper's: Golomb-coded positions, sign bits, entropy-coded levels.
    /// Only for linear [levels](Quantize::Levels).
    Golomb,
    /// Position, sign and level as one symbol for each element, entropy-coded
    /// by the classes of its row and channel and its neighbour in the row before.
    Context,
}

/// What becomes of NaN and infinities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NonFinite {
    /// Encoding fails and names the first.
    Refuse,
    /// Infinities become the largest finite number of their sign, NaN zero.
    Saturate,
}

impl Config {
    /// Checks every field and their combination.
    pub(crate) fn check(&self) -> Result<()> {
        self.sparsify.check()?;
        self.quantize.check()?;
        let plain = self.sparsify == Sparsify::None && self.quantize == Quantize::None;
        let linear = matches!(
            self.quantize,
            Quantize::Levels {
                spacing: Spacing::Linear,
                ..
            }
        );
        match self.code {
            Code::None if !plain => Err(Error::invalid(
                "code none needs sparsify none and quantize none",
            )),
            Code::Golomb if !linear => {
                Err(Error::invalid("code golomb needs linearly spaced levels"))
            }
            _ => Ok(()),
        }
    }
}

impl Sparsify {
    fn check(self) -> Result<()> {
        match self {
            Self::TopK(keep) | Self::RowTopK(keep) if !(keep > 0.0 && keep <= 1.0) => Err(
                Error::invalid(format!("keep must be in (0, 1], got {keep}")),
            ),
            Self::Threshold(t) if !(t > 0.0 && t.is_finite()) => Err(Error::invalid(format!(
                "threshold must be positive and finite, got {t}"
            ))),
            _ => Ok(()),
        }
    }
}

impl Quantize {
    fn check(self) -> Result<()> {
        match self {
            Self::Levels { count, .. } if !(2..=256).contains(&count) => Err(Error::invalid(
                format!("levels must be in 2..=256, got {count}"),
            )),
            Self::DeadZone { step } if !(1e-3..=1e3).contains(&step) => Err(Error::invalid(
                format!("step must be in 0.001..=1000, got {step}"),
            )),
            _ => Ok(()),
        }
    }
}
