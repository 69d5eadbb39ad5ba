//! The one spelling of a codec, as the documentation of [`Codec`] describes it.

use std::fmt;
use std::str::FromStr;

use crate::codec::Codec;
use crate::config::Range;
use crate::config::{Code, Config, Energy, NonFinite, Quantize, Rounding, Spacing, Sparsify};
use crate::error::{Error, Result};
use crate::named::Named;

/// The values of an option by their words.
type Words<T> = &'static [(&'static str, T)];

const SPACINGS: Words<Spacing> = &[("log", Spacing::Log), ("linear", Spacing::Linear)];
const ROUNDINGS: Words<Rounding> = &[
    ("stochastic", Rounding::Stochastic),
    ("nearest", Rounding::Nearest),
];
const RANGES: Words<Range> = &[("tensor", Range::Tensor), ("row", Range::Row)];
const ENERGIES: Words<Energy> = &[("bulk", Energy::Bulk), ("all", Energy::All)];
const CODES: Words<Code> = &[("context", Code::Context), ("golomb", Code::Golomb)];
const NON_FINITES: Words<NonFinite> = &[
    ("refuse", NonFinite::Refuse),
    ("saturate", NonFinite::Saturate),
];

impl fmt::Display for Codec {
    /// The [spelling](Codec#spelling).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.config();
        let named = Named::of(config);
        let plain = named.config();
        write!(f, "{named}")?;
        match config.sparsify {
            _ if named.sparsifies() => {}
            Sparsify::None => {}
            Sparsify::TopK(keep) => write!(f, ",keep={keep}")?,
            Sparsify::RowTopK(keep) => write!(f, ",row-keep={keep}")?,
            Sparsify::Threshold(threshold) => write!(f, ",threshold={threshold}")?,
        }
        if let (
            Quantize::Levels {
                spacing,
                rounding,
                range,
                ..
            },
            Quantize::Levels {
                spacing: plain_spacing,
                rounding: plain_rounding,
                range: plain_range,
                ..
            },
        ) = (config.quantize, plain.quantize)
        {
            write_option(f, "spacing", SPACINGS, spacing, plain_spacing)?;
            write_option(f, "rounding", ROUNDINGS, rounding, plain_rounding)?;
            write_option(f, "range", RANGES, range, plain_range)?;
        }
        if let (Quantize::Error { of, .. }, Quantize::Error { of: plain, .. }) =
            (config.quantize, plain.quantize)
        {
            write_option(f, "of", ENERGIES, of, plain)?;
        }
        write_option(f, "code", CODES, config.code, plain.code)?;
        let (non_finite, plain) = (config.non_finite, plain.non_finite);
        write_option(f, "non-finite", NON_FINITES, non_finite, plain)
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw => f.write_str("raw"),
            Self::DeadZone(step) => write!(f, "dead-zone:{step}"),
            Self::Unbiased(step) => write!(f, "unbiased:{step}"),
            Self::Error(relative_mse) => write!(f, "error:{relative_mse}"),
            Self::Activation(keep, levels) => write!(f, "activation:{keep}:{levels}"),
            Self::Gradient(keep, levels) => write!(f, "gradient:{keep}:{levels}"),
            Self::Paper(keep, levels) => write!(f, "paper:{keep}:{levels}"),
            Self::Levels(levels) => write!(f, "levels:{levels}"),
            Self::F16 => f.write_str("f16"),
            Self::Exact => f.write_str("exact"),
        }
    }
}

/// Writes an option if it is not what the name means by itself.
fn write_option<T: PartialEq + Copy>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    words: Words<T>,
    value: T,
    plain: T,
) -> fmt::Result {
    match words.iter().find(|(_, known)| *known == value) {
        Some((word, _)) if value != plain => write!(f, ",{name}={word}"),
        _ => Ok(()),
    }
}

impl FromStr for Codec {
    type Err = Error;

    /// Reads a [spelling](Codec#spelling).
    ///
    /// # Errors
    /// `InvalidArgument` that names the text and what is accepted.
    fn from_str(text: &str) -> Result<Self> {
        read(text).map_err(|error| Error::invalid(format!("codec {text:?}: {error}")))
    }
}

fn read(text: &str) -> Result<Codec> {
    let mut parts = text.split(',');
    let named: Named = parts.next().unwrap_or_default().parse()?;
    let mut config = named.config();
    let mut seen = Vec::new();
    for option in parts {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let which = if is_sparsify(name) { "keep" } else { name };
        if seen.contains(&which) {
            return Err(Error::invalid(format!("{name} is there twice")));
        }
        seen.push(which);
        read_option(&mut config, named, name, value)?;
    }
    Codec::new(config)
}

impl FromStr for Named {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        Ok(match parts[..] {
            ["raw"] => Self::Raw,
            ["f16"] => Self::F16,
            ["exact"] => Self::Exact,
            ["dead-zone", step] => Self::DeadZone(number("STEP", step)?),
            ["unbiased", step] => Self::Unbiased(number("STEP", step)?),
            ["error", error] => Self::Error(number("MSE", error)?),
            ["levels", levels] => Self::Levels(number("LEVELS", levels)?),
            ["activation", keep, levels] => {
                Self::Activation(number("KEEP", keep)?, number("LEVELS", levels)?)
            }
            ["gradient", keep, levels] => {
                Self::Gradient(number("KEEP", keep)?, number("LEVELS", levels)?)
            }
            ["paper", keep, levels] => {
                Self::Paper(number("KEEP", keep)?, number("LEVELS", levels)?)
            }
            _ => {
                return Err(Error::invalid(
                    "expected raw, dead-zone:STEP, error:MSE, unbiased:STEP, activation:KEEP:LEVELS, \
                     gradient:KEEP:LEVELS, paper:KEEP:LEVELS, levels:LEVELS, f16 or exact, \
                     and then ,OPTION=VALUE",
                ));
            }
        })
    }
}

fn is_sparsify(option: &str) -> bool {
    matches!(option, "keep" | "row-keep" | "threshold")
}

fn read_option(config: &mut Config, named: Named, name: &str, value: &str) -> Result<()> {
    if is_sparsify(name) && named.sparsifies() {
        return Err(Error::invalid(format!("{name} has no place after {named}")));
    }
    match (name, &mut config.quantize) {
        ("keep", _) => config.sparsify = Sparsify::TopK(number(name, value)?),
        ("row-keep", _) => config.sparsify = Sparsify::RowTopK(number(name, value)?),
        ("threshold", _) => config.sparsify = Sparsify::Threshold(number(name, value)?),
        ("spacing", Quantize::Levels { spacing, .. }) => *spacing = word(name, value, SPACINGS)?,
        ("rounding", Quantize::Levels { rounding, .. }) => {
            *rounding = word(name, value, ROUNDINGS)?;
        }
        ("range", Quantize::Levels { range, .. }) => *range = word(name, value, RANGES)?,
        ("spacing" | "rounding" | "range", _) => {
            return Err(Error::invalid(format!("{name} needs levels, not {named}")));
        }
        ("of", Quantize::Error { of, .. }) => *of = word(name, value, ENERGIES)?,
        ("of", _) => {
            return Err(Error::invalid(format!("of needs an error, not {named}")));
        }
        ("code", _) if named == Named::Raw => {
            return Err(Error::invalid("code has no place after raw"));
        }
        ("code", _) => config.code = word(name, value, CODES)?,
        ("non-finite", _) => config.non_finite = word(name, value, NON_FINITES)?,
        _ => {
            return Err(Error::invalid(format!(
                "expected the options keep, row-keep, threshold, spacing, rounding, range, of, \
                 code or non-finite, got {name:?}"
            )));
        }
    }
    Ok(())
}

fn word<T: Copy>(name: &str, value: &str, words: Words<T>) -> Result<T> {
    let found = words.iter().find(|(word, _)| *word == value);
    found.map(|&(_, value)| value).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let known = known.join(" or ");
        Error::invalid(format!("{name} must be {known}, got {value:?}"))
    })
}

fn number<T: FromStr>(name: &str, text: &str) -> Result<T>
where
    T::Err: fmt::Display,
{
    let wrong = |error| Error::invalid(format!("{name} must be a number, got {text:?}: {error}"));
    text.parse().map_err(wrong)
}

#[cfg(feature = "serde")]
impl serde::Serialize for Codec {
    fn serialize<S: serde::Serializer>(&self, out: S) -> std::result::Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Codec {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
