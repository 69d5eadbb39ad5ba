use crate::config::Range;
use crate::config::{Code, Config, Energy, NonFinite, Quantize, Sparsify};
use crate::encode;
use crate::error::Result;
use crate::named::Named;
use crate::tensor::TensorView;

/// How tensors are encoded: an immutable set of settings.
///
/// ```
/// # fn main() -> sft_compress::Result<()> {
/// use sft_compress::{Codec, Range};
///
/// let codec = Codec::paper(0.2, 8)?.with_range(Range::Row);
/// assert_eq!(codec.to_string(), "paper:0.2:8,range=row");
/// assert_eq!("paper:0.2:8,range=row".parse::<Codec>()?, codec);
/// # Ok(())
/// # }
/// ```
///
/// # Spelling
///
/// A codec is written in one way everywhere: `Display` gives it, `FromStr`
/// reads it, `serde` (feature) saves it, and flags, configuration files and
/// Python take it. First comes one of
///
/// | Spelling | Codec |
/// |---|---|
/// | `raw` | [`Codec::raw`] |
/// | `dead-zone:STEP` | [`Codec::dead_zone`] |
/// | `error:MSE` | [`Codec::for_error`] |
/// | `unbiased:STEP` | [`Codec::unbiased`] |
/// | `activation:KEEP:LEVELS` | [`Codec::activation`] |
/// | `gradient:KEEP:LEVELS` | [`Codec::gradient`] |
/// | `paper:KEEP:LEVELS` | [`Codec::paper`] |
/// | `levels:LEVELS` | the levels of `activation`, of every element |
/// | `f16` | [half precision](Quantize::F16), coded by context |
/// | `exact` | every element exactly, coded by context |
///
/// and then, each at most once and after a comma, what differs from it:
///
/// | Option | Choice | Not with |
/// |---|---|---|
/// | `keep=K`, `row-keep=K` or `threshold=T` | [`Sparsify`] | `raw`, `KEEP` |
/// | `spacing=log` or `linear` | [`Spacing`](crate::Spacing) | what has no levels |
/// | `rounding=stochastic` or `nearest` | [`Rounding`](crate::Rounding) | what has no levels |
/// | `range=tensor` or `row` | [`Range`] | what has no levels |
/// | `of=bulk` or `all` | [`Energy`] | all but `error` |
/// | `code=context` or `golomb` | [`Code`] | `raw` |
/// | `non-finite=refuse` or `saturate` | [`NonFinite`] | |
///
/// What is read is a valid codec, and reading what was written gives the same.
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
        Self::new(Named::Paper(keep, levels).config())
    }

    /// For activations: Top-K of the whole tensor, stochastic quantization to
    /// [log-spaced](crate::Spacing::Log) levels, everything coded by context.
    ///
    /// Unbiased given the kept set. `keep` and `levels` as for
    /// [`paper`](Self::paper).
    ///
    /// # Errors
    /// `InvalidArgument` if `keep` or `levels` is not in its range.
    pub fn activation(keep: f64, levels: u32) -> Result<Self> {
        Self::new(Named::Activation(keep, levels).config())
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
        Self::new(Named::Gradient(keep, levels).config())
    }

    /// The fewest bits at a mean squared error: a uniform quantizer with a
    /// [dead zone](Quantize::DeadZone), coded by context. Not random, and not
    /// unbiased.
    ///
    /// `step` in 0.001..=1000 is relative to the root mean square of the tensor,
    /// without its few [outliers](Quantize::DeadZone).
    ///
    /// # Errors
    /// `InvalidArgument` if `step` is not in its range.
    pub fn dead_zone(step: f64) -> Result<Self> {
        Self::new(Named::DeadZone(step).config())
    }

    /// The [dead zone](Self::dead_zone) of largest step whose error is
    /// `relative_mse` of the energy of the tensor, for those who know what they
    /// can bear and no steps. Outliers do not count, neither as error nor as
    /// energy, unless [`with_energy`](Self::with_energy) says so.
    ///
    /// ```
    /// # fn main() -> sft_compress::Result<()> {
    /// use sft_compress::{Codec, TensorView, measure};
    ///
    /// let x: Vec<f32> = (0..4096).map(|i| ((i * 37 % 101) as f32 - 50.0).powi(3)).collect();
    /// let found = measure(Codec::for_error(0.1)?, TensorView::new(&x, &[64, 64])?, 0)?;
    /// assert!((0.09..0.11).contains(&found.relative_mse));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` if `relative_mse` is not in 10⁻⁶..=0.75.
    pub fn for_error(relative_mse: f64) -> Result<Self> {
        Self::new(Named::Error(relative_mse).config())
    }

    /// For gradients of any model: every element is rounded at random to a
    /// multiple of the step, [without a bias](Quantize::Unbiased).
    ///
    /// `step` in 0.001..=1000 is relative to the root mean square of the tensor,
    /// without its few outliers.
    ///
    /// # Errors
    /// `InvalidArgument` if `step` is not in its range.
    pub fn unbiased(step: f64) -> Result<Self> {
        Self::new(Named::Unbiased(step).config())
    }

    /// What activations get where nothing else is asked for: a dead zone
    /// [for the error](Self::for_error) [`Config::ACTIVATION_ERROR`]. Vision transformers and a
    /// convolutional network lose nothing by it and stand more; the tokens of a language model cross
    /// better by a [basis](crate::Basis).
    pub fn default_activation() -> Self {
        Self {
            config: Config::default(),
        }
    }

    /// What gradients get where nothing else is asked for: rounding
    /// [without a bias](Self::unbiased) in steps of [`Config::GRADIENT_STEP`].
    pub fn default_gradient() -> Self {
        Self {
            config: Named::Unbiased(Config::GRADIENT_STEP).config(),
        }
    }

    /// For activations of a vision transformer where no [basis](crate::Basis) is known: the
    /// [dead zone](Self::dead_zone) of step [`Config::VIT_ACTIVATION_STEP`].
    pub fn vit_activation() -> Self {
        Self {
            config: Named::DeadZone(Config::VIT_ACTIVATION_STEP).config(),
        }
    }

    /// For gradients of a vision transformer where no basis is known: a dead zone
    /// [for the error](Self::for_error) [`Config::VIT_GRADIENT_ERROR`] of all their
    /// energy.
    pub fn vit_gradient() -> Self {
        let config = Named::Error(Config::VIT_GRADIENT_ERROR).config();
        Self { config }.with_energy(Energy::All)
    }

    /// What differences of adapters get by default: rounding [without a bias](Self::unbiased) in
    /// steps of [`Config::ADAPTER_STEP`], whose errors fall when devices are averaged.
    pub fn default_adapter() -> Self {
        Self {
            config: Named::Unbiased(Config::ADAPTER_STEP).config(),
        }
    }

    /// What features of a mini-batch and their gradients get by default where a model's head is on
    /// a device: a dead zone [for the error](Self::for_error) [`Config::FEATURE_ERROR`].
    pub fn default_features() -> Self {
        Self {
            config: Named::Error(Config::FEATURE_ERROR).config(),
        }
    }

    /// No compression: every element as it is, bit for bit, NaN included.
    pub fn raw() -> Self {
        Self {
            config: Named::Raw.config(),
        }
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

    /// The same codec with another choice of what its error is relative to; no
    /// effect on codecs that are not [for an error](Self::for_error).
    #[must_use]
    pub fn with_energy(mut self, to: Energy) -> Self {
        if let Quantize::Error { of, .. } = &mut self.config.quantize {
            *of = to;
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
    /// ignore it. [`Encoder`](crate::Encoder) does the same without new memory
    /// for each message.
    ///
    /// # Errors
    /// `NonFinite` if the tensor holds NaN or an infinity that the codec
    /// refuses; `TooLarge` if the frame would hold 4 GiB or more.
    pub fn encode(&self, tensor: TensorView<'_>, seed: u64) -> Result<Vec<u8>> {
        let mut frame = Vec::new();
        encode::write(
            &self.config,
            tensor,
            seed,
            &mut frame,
            &mut encode::Memory::default(),
        )?;
        Ok(frame)
    }
}

impl Default for Codec {
    /// [`default_activation`](Self::default_activation).
    fn default() -> Self {
        Self::default_activation()
    }
}
