//! Compressed bits over raw bits, `β(ρ, q)`.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, check, check_len};

/// How many bits are left of a raw bit at a kept fraction `ρ` and `q` bits for a level.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rate {
    /// `β = (ρ(1 + q) + H₂(ρ))/32`: sign and level of every kept element, positions at their
    /// entropy, raw numbers of 32 bits.
    #[default]
    Formula,
    /// Rates measured on data.
    Table(RateGrid),
}

impl Rate {
    /// `β` at a kept fraction from 0 to 1 and a number of bits; `None` where a table has no such
    /// bits or does not reach the kept fraction.
    pub fn at(&self, keep: f64, bits: u32) -> Option<f64> {
        match self {
            Self::Formula => Some(formula(keep, f64::from(bits))),
            Self::Table(grid) => grid.at(keep, bits),
        }
    }

    /// Kept fractions strictly between which `β` is concave, for one number of bits.
    pub(crate) fn knots(&self) -> &[f64] {
        match self {
            Self::Formula => &[],
            Self::Table(grid) => &grid.keep,
        }
    }
}

/// `(ρ(1 + q) + H₂(ρ))/32`.
pub(crate) fn formula(keep: f64, bits: f64) -> f64 {
    (keep * (1.0 + bits) + binary_entropy(keep)) / 32.0
}

/// `H₂(p)` in bits, 0 at both ends.
pub(crate) fn binary_entropy(p: f64) -> f64 {
    let part = |p: f64| if p > 0.0 { -p * p.log2() } else { 0.0 };
    // ln_1p keeps the digits of 1 − p.
    let rest = if p < 1.0 {
        -(1.0 - p) * (-p).ln_1p() / std::f64::consts::LN_2
    } else {
        0.0
    };
    part(p) + rest
}

/// Measured rates on a grid, linear in the kept fraction between its points: the paper's
/// piecewise-linear function (IV-B).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Grid", into = "Grid")]
pub struct RateGrid {
    keep: Vec<f64>,
    bits: Vec<u32>,
    /// One row for every number of bits.
    beta: Vec<Vec<f64>>,
}

impl RateGrid {
    /// A table: `beta[k][m]` is the rate at `bits[k]` and `keep[m]`.
    ///
    /// # Errors
    /// Kept fractions that are not above 0, at most 1 and ascending; bits that are not ascending;
    /// rates that are not one per point, finite and positive.
    pub fn new(keep: Vec<f64>, bits: Vec<u32>, beta: Vec<Vec<f64>>) -> Result<Self> {
        for (index, &x) in keep.iter().enumerate() {
            let after = index == 0 || x > keep[index - 1];
            let legal = x > 0.0 && x <= 1.0 && after;
            check(legal, "keep", x, "above 0, at most 1 and ascending")
                .map_err(|error| error.at(index))?;
        }
        for (index, &q) in bits.iter().enumerate() {
            let after = index == 0 || q > bits[index - 1];
            check(after, "bits", q.into(), "ascending").map_err(|error| error.at(index))?;
        }
        for (name, empty) in [("keep", keep.is_empty()), ("bits", bits.is_empty())] {
            if empty {
                return Err(Error::Empty { name });
            }
        }
        check_len("beta", beta.len(), bits.len())?;
        for row in &beta {
            check_len("beta", row.len(), keep.len())?;
            for (index, &x) in row.iter().enumerate() {
                let legal = x > 0.0 && x.is_finite();
                check(legal, "beta", x, "finite and positive").map_err(|error| error.at(index))?;
            }
        }
        Ok(Self { keep, bits, beta })
    }

    fn at(&self, keep: f64, bits: u32) -> Option<f64> {
        let row = &self.beta[self.bits.binary_search(&bits).ok()?];
        let above = self.keep.partition_point(|&x| x < keep);
        let right = *self.keep.get(above)?;
        if above == 0 {
            return (keep >= right).then_some(row[0]);
        }
        let left = self.keep[above - 1];
        let weight = (keep - left) / (right - left);
        Some(row[above - 1] + weight * (row[above] - row[above - 1]))
    }
}

/// A table as it stands in files.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grid {
    keep: Vec<f64>,
    bits: Vec<u32>,
    beta: Vec<Vec<f64>>,
}

impl TryFrom<Grid> for RateGrid {
    type Error = Error;

    fn try_from(grid: Grid) -> Result<Self> {
        Self::new(grid.keep, grid.bits, grid.beta)
    }
}

impl From<RateGrid> for Grid {
    fn from(grid: RateGrid) -> Self {
        Self {
            keep: grid.keep,
            bits: grid.bits,
            beta: grid.beta,
        }
    }
}
