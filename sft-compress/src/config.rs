use crate::error::{Error, Result};

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
    /// What becomes of the kept elements. Default: a dead zone with an error of
    /// [`ACTIVATION_ERROR`](Self::ACTIVATION_ERROR).
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
            quantize: Quantize::Error {
                relative_mse: Self::ACTIVATION_ERROR,
                of: Energy::Bulk,
            },
            code: Code::Context,
            non_finite: NonFinite::Refuse,
        }
    }
}

impl Config {
    /// The [error](Quantize::Error) that activations get by default.
    pub const ACTIVATION_ERROR: f64 = 0.01;
    /// The [step](Quantize::Unbiased) that gradients get by default.
    pub const GRADIENT_STEP: f64 = 1.0;

    /// The step of the [dead zone](Quantize::DeadZone) for activations of a vision transformer.
    pub const VIT_ACTIVATION_STEP: f64 = 1.25;
    /// The [error](Quantize::Error) for gradients of a vision transformer.
    pub const VIT_GRADIENT_ERROR: f64 = 0.25;
    /// The step of the [rounding at random](Quantize::Unbiased) that differences of adapters get
    /// by default.
    pub const ADAPTER_STEP: f64 = 2.0;
    /// The [error](Quantize::Error) that features, and their gradients, get by default.
    pub const FEATURE_ERROR: f64 = 0.01;

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
    /// to |x|/Δ − 1/8 with Δ = `step`·RMS of the *bulk*, and each index to the
    /// mean of the magnitudes in it, by a sample if the tensor is large. Magnitudes
    /// below 5/8 Δ become zero; Top-K before it is not needed.
    ///
    /// The bulk is what has at most 20 times the median magnitude of the
    /// elements other than zero, and never less than 63 elements of 64: the few
    /// massive activations of a language model do not widen the step. They
    /// cross in large indices, nearly exactly.
    ///
    /// Δ is less where it would drop more than three quarters of the bulk's
    /// energy, and never drops all: a tensor that is not zero does not become so.
    DeadZone {
        /// Δ relative to the root mean square of the bulk, 0.001..=1000.
        step: f64,
    },
    /// Rounded at random to a multiple of Δ = `step`·RMS of the bulk, so that the
    /// expectation is the element itself: zero for most, without a dead zone
    /// that would always drop the same. For gradients, of which sums count: what
    /// is small in each may be large in the sum. Should chance drop all, Δ is
    /// the largest magnitude.
    Unbiased {
        /// Δ relative to the root mean square of the bulk, 0.001..=1000.
        step: f64,
    },
    /// A dead zone with the step that has a wanted error, found for each tensor by
    /// a histogram of its magnitudes, of a sample if it is large: within a few
    /// per cent, or a third where a few rows of many hold nearly all.
    Error {
        /// The energy of the error over that of the elements, 10⁻⁶..=0.75.
        relative_mse: f64,
        /// Of which elements.
        of: Energy,
    },
}

/// Which elements a wanted [error](Quantize::Error) is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Energy {
    /// The [bulk](Quantize::DeadZone), without outliers, which cross nearly
    /// exactly: for activations, where few massive ones hide all others.
    Bulk,
    /// All: for gradients, of which little is needed but what is large.
    All,
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

/// Which kept magnitudes share a quantization range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Range {
    /// All of the tensor's, as in the paper.
    Tensor,
    /// Those of one row: of one index into all dimensions but the last.
    ///
    /// Costs a few bits for each row that keeps an element and finer levels to
    /// code, and has many times less quantization noise where rows differ in
    /// scale, as they do in gradients.
    Row,
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

/// The fraction of a tensor's energy that a dead zone changes at most.
pub(crate) const MOST_CHANGED: f64 = 0.75;

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
            Self::DeadZone { step } | Self::Unbiased { step } if !(1e-3..=1e3).contains(&step) => {
                Err(Error::invalid(format!(
                    "step must be in 0.001..=1000, got {step}"
                )))
            }
            Self::Error { relative_mse, .. } if !(1e-6..=MOST_CHANGED).contains(&relative_mse) => {
                Err(Error::invalid(format!(
                    "relative_mse must be in 0.000001..={MOST_CHANGED}, got {relative_mse}"
                )))
            }
            _ => Ok(()),
        }
    }
}
