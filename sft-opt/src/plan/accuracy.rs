//! The accuracy surface: a cubic in kept fraction and bits (section IV-C).

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, check};
use crate::numeric::polynomial::{Cubic, value};

/// What the surface is a polynomial of, beside the bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepScale {
    /// `x = log₂ ρ`: the better fit of measured surfaces.
    #[default]
    Log2Keep,
    /// `x = ρ`.
    Keep,
}

impl KeepScale {
    /// `x` of a kept fraction.
    pub fn of(self, keep: f64) -> f64 {
        match self {
            Self::Log2Keep => keep.log2(),
            Self::Keep => keep,
        }
    }

    /// The kept fraction of `x`.
    pub fn keep(self, x: f64) -> f64 {
        match self {
            Self::Log2Keep => x.exp2(),
            Self::Keep => x,
        }
    }
}

/// One term `w·xⁱ·qʲ` of an accuracy surface.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// Power of `x`.
    pub i: usize,
    /// Power of the bits `q`; `i + j` is at most 3.
    pub j: usize,
    /// Weight, finite.
    pub w: f64,
}

/// Accuracy as a cubic: `A(ρ, q) = Σ_{i+j≤3} w_ij·x(ρ)ⁱ·qʲ`, a fraction of 1.
///
/// `ρ` is the kept fraction, `q` the bits of a level (`2^q` levels), `x` as [`KeepScale`] says.
/// [`Accuracy::fit`] makes one from measured runs.
///
/// ```
/// use sft_opt::plan::{Accuracy, KeepScale, Term};
///
/// let terms = [Term { i: 0, j: 0, w: 0.5 }, Term { i: 1, j: 1, w: 0.1 }];
/// let accuracy = Accuracy::new(KeepScale::Keep, &terms)?;
/// assert_eq!(accuracy.at(0.25, 2.0), 0.55);
/// # Ok::<(), sft_opt::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Terms", into = "Terms")]
pub struct Accuracy {
    scale: KeepScale,
    /// `weights[i][j]` of `xⁱqʲ`.
    weights: [[f64; 4]; 4],
}

impl Accuracy {
    /// A surface of given terms; terms of the same powers add up.
    ///
    /// # Errors
    /// A term of a degree above 3, a weight that is not finite.
    pub fn new(scale: KeepScale, terms: &[Term]) -> Result<Self> {
        let mut weights = [[0.0; 4]; 4];
        for (index, term) in terms.iter().enumerate() {
            let degree = term.i.saturating_add(term.j);
            check(degree <= 3, "terms.i + j", degree as f64, "at most 3")
                .and_then(|()| check(term.w.is_finite(), "terms.w", term.w, "finite"))
                .map_err(|error| error.at(index))?;
            weights[term.i][term.j] += term.w;
        }
        Ok(Self { scale, weights })
    }

    /// What the surface is a polynomial of.
    pub fn scale(&self) -> KeepScale {
        self.scale
    }

    /// The terms that are not 0.
    pub fn terms(&self) -> Vec<Term> {
        let powers = (0..4).flat_map(|i| (0..4 - i).map(move |j| (i, j)));
        powers
            .map(|(i, j)| Term {
                i,
                j,
                w: self.weights[i][j],
            })
            .filter(|term| term.w != 0.0)
            .collect()
    }

    /// Accuracy at a kept fraction and a number of bits.
    pub fn at(&self, keep: f64, bits: f64) -> f64 {
        value(&self.along_keep(bits), self.scale.of(keep))
    }

    /// The cubic in `x` at a number of bits.
    pub(crate) fn along_keep(&self, bits: f64) -> Cubic {
        self.weights.map(|row| value(&row, bits))
    }

    /// The cubic in the bits at `x`.
    pub(crate) fn along_bits(&self, x: f64) -> Cubic {
        std::array::from_fn(|j| value(&self.weights.map(|row| row[j]), x))
    }
}

/// A surface as it stands in files.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Terms {
    #[serde(default)]
    scale: KeepScale,
    terms: Vec<Term>,
}

impl TryFrom<Terms> for Accuracy {
    type Error = Error;

    fn try_from(file: Terms) -> Result<Self> {
        Self::new(file.scale, &file.terms)
    }
}

impl From<Accuracy> for Terms {
    fn from(accuracy: Accuracy) -> Self {
        Self {
            scale: accuracy.scale,
            terms: accuracy.terms(),
        }
    }
}
