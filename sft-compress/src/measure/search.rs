use super::{Measure, measure};
use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::tensor::TensorView;

/// Settings for a wanted size or error. Each measures a codec on a sample with
/// seed 0, dozens of times or, for Top-K, hundreds: some 10⁵ elements of a
/// message are a sample.
impl Codec {
    /// The [dead zone](Self::dead_zone) of least step whose frame of `sample`
    /// has at most `bits` bits an element.
    ///
    /// # Errors
    /// `InvalidArgument` if `bits` is not positive or no step reaches it; as
    /// [`encode`](Self::encode).
    pub fn dead_zone_for_bits(sample: TensorView<'_>, bits: f64) -> Result<Self> {
        let wanted = Wanted::bits(bits)?;
        let beyond = search_step(sample, |measure| wanted.fits(measure))?;
        wanted.check(Self::dead_zone(beyond)?, sample)
    }

    /// The kept fraction and number of levels with the fewest bits whose
    /// relative mean squared error on `sample` is at most `relative_mse`, of
    /// `codec`, a constructor such as [`Codec::gradient`].
    ///
    /// Kept fractions from 2⁻¹⁰ to 1 and levels 2ⁿ and 3·2ⁿ are searched.
    ///
    /// # Errors
    /// `InvalidArgument` if `relative_mse` is not positive or none of them
    /// reaches it; as `codec` and [`encode`](Self::encode).
    pub fn top_k_for_error(
        codec: impl Fn(f64, u32) -> Result<Self>,
        sample: TensorView<'_>,
        relative_mse: f64,
    ) -> Result<Self> {
        search_top_k(codec, sample, Wanted::error(relative_mse)?)
    }

    /// The kept fraction and number of levels with the least error whose frame
    /// of `sample` has at most `bits` bits an element, of `codec`, a
    /// constructor such as [`Codec::activation`].
    ///
    /// ```
    /// # fn main() -> sft_compress::Result<()> {
    /// use sft_compress::{Codec, TensorView, measure};
    ///
    /// let x: Vec<f32> = (0..8192).map(|i| ((i * 37 % 101) as f32 - 50.0).powi(3)).collect();
    /// let sample = TensorView::new(&x, &[128, 64])?;
    /// let codec = Codec::top_k_for_bits(Codec::activation, sample, 1.2)?;
    /// assert!(measure(codec, sample, 0)?.bits_per_element <= 1.2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` if `bits` is not positive or none of what
    /// [`top_k_for_error`](Self::top_k_for_error) searches reaches it; as
    /// `codec` and [`encode`](Self::encode).
    pub fn top_k_for_bits(
        codec: impl Fn(f64, u32) -> Result<Self>,
        sample: TensorView<'_>,
        bits: f64,
    ) -> Result<Self> {
        search_top_k(codec, sample, Wanted::bits(bits)?)
    }
}

/// A bound on one of the two; the other is to be least.
#[derive(Clone, Copy)]
enum Wanted {
    Bits(f64),
    Error(f64),
}

impl Wanted {
    fn bits(bits: f64) -> Result<Self> {
        check_positive("bits", bits).map(|()| Self::Bits(bits))
    }

    fn error(relative_mse: f64) -> Result<Self> {
        check_positive("relative_mse", relative_mse).map(|()| Self::Error(relative_mse))
    }

    /// Of the two, what is bounded and what is to be least.
    fn bounded_and_least(self, measure: &Measure) -> (f64, f64) {
        match self {
            Self::Bits(_) => (measure.bits_per_element, measure.relative_mse),
            Self::Error(_) => (measure.relative_mse, measure.bits_per_element),
        }
    }

    fn fits(self, measure: &Measure) -> bool {
        let (Self::Bits(bound) | Self::Error(bound)) = self;
        self.bounded_and_least(measure).0 <= bound
    }

    /// The codec if it fits.
    fn check(self, codec: Codec, sample: TensorView<'_>) -> Result<Codec> {
        let measure = measure(codec, sample, 0)?;
        if self.fits(&measure) {
            return Ok(codec);
        }
        Err(self.out_of_reach(self.bounded_and_least(&measure).0))
    }

    fn out_of_reach(self, least: f64) -> Error {
        let (name, got) = match self {
            Self::Bits(bits) => ("bits", bits),
            Self::Error(error) => ("relative_mse", error),
        };
        Error::invalid(format!(
            "{name} must be at least {least:.3e}, the least found for this sample, got {got:e}"
        ))
    }
}

/// The least step for which `holds`, up to a part in a thousand; it holds from some step on.
fn search_step(sample: TensorView<'_>, holds: impl Fn(&Measure) -> bool) -> Result<f64> {
    let (mut within, mut beyond) = (1e-3, 1e3);
    while beyond / within > 1.001 {
        let step = f64::sqrt(within * beyond);
        if holds(&measure(Codec::dead_zone(step)?, sample, 0)?) {
            beyond = step;
        } else {
            within = step;
        }
    }
    Ok(beyond)
}

/// The numbers of levels searched; between them the best is a few per cent better.
const LEVELS: [u32; 15] = [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256];
/// The kept fractions searched are 2^(−i/2) for i up to this.
const HALVINGS: i32 = 20;
/// Bisections between two of them: to a part in 180.
const BISECTIONS: u32 = 6;

/// The setting of least cost that fits.
///
/// The size of a frame grows with the kept fraction. The error mostly falls,
/// but with one range for a tensor of unlike rows it rises again: that is why
/// kept fractions are scanned and not bisected at once.
fn search_top_k(
    codec: impl Fn(f64, u32) -> Result<Codec>,
    sample: TensorView<'_>,
    wanted: Wanted,
) -> Result<Codec> {
    let mut scan = Scan {
        wanted,
        best: None,
        least: f64::INFINITY,
    };
    for levels in LEVELS {
        scan.keep(|keep| {
            let codec = codec(keep, levels)?;
            Ok((codec, measure(codec, sample, 0)?))
        })?;
    }
    let best = scan.best.ok_or_else(|| wanted.out_of_reach(scan.least))?;
    Ok(best.0)
}

/// What a search has found so far.
struct Scan {
    wanted: Wanted,
    /// Of the settings that fit, the best.
    best: Option<(Codec, Measure)>,
    /// The least of what is bounded.
    least: f64,
}

impl Scan {
    /// Scans the kept fractions upward until the bound begins or ceases to
    /// hold, and bisects to where, or until more bits are of no use.
    fn keep(&mut self, at: impl Fn(f64) -> Result<(Codec, Measure)>) -> Result<()> {
        let mut before = None;
        for i in (0..=HALVINGS).rev() {
            let mut right = 0.5_f64.powi(i).sqrt();
            let found = at(right)?;
            let fits = self.offer(found);
            if let Some((mut left, fitted)) = before
                && fits != fitted
            {
                for _ in 0..BISECTIONS {
                    let middle = f64::sqrt(left * right);
                    let end = if self.offer(at(middle)?) == fitted {
                        &mut left
                    } else {
                        &mut right
                    };
                    *end = middle;
                }
                return Ok(());
            }
            if found.1.bits_per_element >= self.most_bits() {
                return Ok(());
            }
            before = Some((right, fits));
        }
        Ok(())
    }

    /// Takes a setting if it is the best so far; tells whether it fits.
    fn offer(&mut self, found: (Codec, Measure)) -> bool {
        let (bounded, cost) = self.wanted.bounded_and_least(&found.1);
        self.least = self.least.min(bounded);
        let fits = self.wanted.fits(&found.1);
        let best = self.best.as_ref();
        if fits && best.is_none_or(|(_, best)| cost < self.wanted.bounded_and_least(best).1) {
            self.best = Some(found);
        }
        fits
    }

    /// Bits an element from which on no setting can be better.
    fn most_bits(&self) -> f64 {
        match (self.wanted, &self.best) {
            (Wanted::Bits(bits), _) => bits,
            (Wanted::Error(_), Some((_, best))) => best.bits_per_element,
            (Wanted::Error(_), None) => f64::INFINITY,
        }
    }
}

fn check_positive(name: &str, value: f64) -> Result<()> {
    if value > 0.0 {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name} must be positive, got {value}"
    )))
}
