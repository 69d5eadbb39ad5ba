use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sft_compress::{Code, Config, Energy, NonFinite, Quantize, Range, Rounding, Spacing, Sparsify};

/// The settings of a codec as Python gives them: some belong to one choice only.
#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) struct Settings<'a> {
    pub(crate) sparsify: Option<&'a str>,
    pub(crate) keep: Option<f64>,
    pub(crate) threshold: Option<f32>,
    pub(crate) quantize: Option<&'a str>,
    pub(crate) levels: Option<u32>,
    pub(crate) spacing: Option<&'a str>,
    pub(crate) rounding: Option<&'a str>,
    pub(crate) range: Option<&'a str>,
    pub(crate) step: Option<f64>,
    pub(crate) relative_mse: Option<f64>,
    pub(crate) of: Option<&'a str>,
    pub(crate) code: Option<&'a str>,
    pub(crate) non_finite: Option<&'a str>,
}

/// The values of an enumeration by their names in Python.
type Names<T> = &'static [(&'static str, T)];

pub(crate) const RANGES: Names<Range> = &[("tensor", Range::Tensor), ("row", Range::Row)];
pub(crate) const NON_FINITES: Names<NonFinite> = &[
    ("refuse", NonFinite::Refuse),
    ("saturate", NonFinite::Saturate),
];
pub(crate) const CODES: Names<Code> = &[
    ("none", Code::None),
    ("golomb", Code::Golomb),
    ("context", Code::Context),
];
pub(crate) const ENERGIES: Names<Energy> = &[("bulk", Energy::Bulk), ("all", Energy::All)];
const SPACINGS: Names<Spacing> = &[("linear", Spacing::Linear), ("log", Spacing::Log)];
const ROUNDINGS: Names<Rounding> = &[
    ("stochastic", Rounding::Stochastic),
    ("nearest", Rounding::Nearest),
];

/// The value that the argument `name` names.
pub(crate) fn parse<T: Copy>(name: &str, value: &str, names: Names<T>) -> PyResult<T> {
    let found = names.iter().find(|(known, _)| *known == value);
    found.map(|&(_, value)| value).ok_or_else(|| {
        let known: Vec<_> = names.iter().map(|(known, _)| *known).collect();
        unknown(name, value, &known)
    })
}

/// The name of a value.
pub(crate) fn name_of<T: PartialEq>(value: &T, names: Names<T>) -> &'static str {
    let found = names.iter().find(|(_, known)| known == value);
    found.map_or("unknown", |(name, _)| name)
}

impl Settings<'_> {
    /// The configuration, before its values are checked.
    pub(crate) fn config(self) -> PyResult<Config> {
        let code = parse("code", self.code.unwrap_or("context"), CODES)?;
        let non_finite = self.non_finite.unwrap_or("refuse");
        Ok(Config::default()
            .with_sparsify(self.sparsify()?)
            .with_quantize(self.quantize()?)
            .with_code(code)
            .with_non_finite(parse("non_finite", non_finite, NON_FINITES)?))
    }

    fn sparsify(&self) -> PyResult<Sparsify> {
        let sparsify = self.sparsify.unwrap_or("none");
        let top_k = matches!(sparsify, "top_k" | "row_top_k");
        belongs("keep", self.keep, top_k, "sparsify 'top_k' or 'row_top_k'")?;
        let threshold = sparsify == "threshold";
        belongs(
            "threshold",
            self.threshold,
            threshold,
            "sparsify 'threshold'",
        )?;
        let keep = self.keep.unwrap_or(0.2);
        match sparsify {
            "none" => Ok(Sparsify::None),
            "top_k" => Ok(Sparsify::TopK(keep)),
            "row_top_k" => Ok(Sparsify::RowTopK(keep)),
            "threshold" => needed("threshold", self.threshold).map(Sparsify::Threshold),
            other => Err(unknown(
                "sparsify",
                other,
                &["none", "top_k", "row_top_k", "threshold"],
            )),
        }
    }

    fn quantize(&self) -> PyResult<Quantize> {
        let quantize = self.quantize.unwrap_or("error");
        let levels = quantize == "levels";
        let owner = "quantize 'levels'";
        belongs("levels", self.levels, levels, owner)?;
        belongs("spacing", self.spacing, levels, owner)?;
        belongs("rounding", self.rounding, levels, owner)?;
        belongs("range", self.range, levels, owner)?;
        let stepped = matches!(quantize, "dead_zone" | "unbiased");
        let owner = "quantize 'dead_zone' or 'unbiased'";
        belongs("step", self.step, stepped, owner)?;
        let error = quantize == "error";
        belongs("relative_mse", self.relative_mse, error, "quantize 'error'")?;
        belongs("of", self.of, error, "quantize 'error'")?;
        match quantize {
            "none" => Ok(Quantize::None),
            "f16" => Ok(Quantize::F16),
            "levels" => Ok(Quantize::Levels {
                count: self.levels.unwrap_or(8),
                spacing: parse("spacing", self.spacing.unwrap_or("log"), SPACINGS)?,
                rounding: parse("rounding", self.rounding.unwrap_or("stochastic"), ROUNDINGS)?,
                range: parse("range", self.range.unwrap_or("tensor"), RANGES)?,
            }),
            "dead_zone" => Ok(Quantize::DeadZone {
                step: needed("step", self.step)?,
            }),
            "unbiased" => Ok(Quantize::Unbiased {
                step: needed("step", self.step)?,
            }),
            "error" => Ok(Quantize::Error {
                relative_mse: self.relative_mse.unwrap_or(Config::ACTIVATION_ERROR),
                of: parse("of", self.of.unwrap_or("bulk"), ENERGIES)?,
            }),
            other => Err(unknown(
                "quantize",
                other,
                &["none", "f16", "levels", "dead_zone", "error", "unbiased"],
            )),
        }
    }
}

/// The arguments that make a codec of this configuration.
pub(crate) fn to_dict<'py>(py: Python<'py>, config: &Config) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    match config.sparsify {
        Sparsify::None => dict.set_item("sparsify", "none")?,
        Sparsify::TopK(keep) => {
            dict.set_item("sparsify", "top_k")?;
            dict.set_item("keep", keep)?;
        }
        Sparsify::RowTopK(keep) => {
            dict.set_item("sparsify", "row_top_k")?;
            dict.set_item("keep", keep)?;
        }
        Sparsify::Threshold(threshold) => {
            dict.set_item("sparsify", "threshold")?;
            dict.set_item("threshold", threshold)?;
        }
    }
    match config.quantize {
        Quantize::None => dict.set_item("quantize", "none")?,
        Quantize::F16 => dict.set_item("quantize", "f16")?,
        Quantize::Levels {
            count,
            spacing,
            rounding,
            range,
        } => {
            dict.set_item("quantize", "levels")?;
            dict.set_item("levels", count)?;
            dict.set_item("spacing", name_of(&spacing, SPACINGS))?;
            dict.set_item("rounding", name_of(&rounding, ROUNDINGS))?;
            dict.set_item("range", name_of(&range, RANGES))?;
        }
        Quantize::DeadZone { step } => {
            dict.set_item("quantize", "dead_zone")?;
            dict.set_item("step", step)?;
        }
        Quantize::Unbiased { step } => {
            dict.set_item("quantize", "unbiased")?;
            dict.set_item("step", step)?;
        }
        Quantize::Error { relative_mse, of } => {
            dict.set_item("quantize", "error")?;
            dict.set_item("relative_mse", relative_mse)?;
            dict.set_item("of", name_of(&of, ENERGIES))?;
        }
    }
    dict.set_item("code", name_of(&config.code, CODES))?;
    dict.set_item("non_finite", name_of(&config.non_finite, NON_FINITES))?;
    Ok(dict)
}

/// Refuses a setting where the choice it belongs to was not made.
fn belongs<T: Copy>(name: &str, value: Option<T>, chosen: bool, owner: &str) -> PyResult<()> {
    if value.is_none() || chosen {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("{name} needs {owner}")))
}

fn needed<T>(name: &str, value: Option<T>) -> PyResult<T> {
    value.ok_or_else(|| PyValueError::new_err(format!("{name} is missing")))
}

fn unknown(name: &str, value: &str, known: &[&str]) -> PyErr {
    let known = known.join("', '");
    PyValueError::new_err(format!("{name} must be one of '{known}', got '{value}'"))
}
