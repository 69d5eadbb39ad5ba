use std::path::PathBuf;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyString};
use serde_json::{Map, Number, Value};
use sft_core::run::RunConfig;

use crate::codec::Codec;
use crate::error::{Raise, bad_argument};

/// The default of every field of a run's configuration, as JSON.
#[pyfunction]
pub(crate) fn _run_defaults() -> PyResult<String> {
    serde_json::to_string(&RunConfig::default()).map_err(|error| bad_argument(error.to_string()))
}

/// The configuration of which a dict gives some fields.
pub(super) fn extract(given: &Bound<'_, PyDict>) -> PyResult<RunConfig> {
    let mut fields = Map::new();
    for (name, given) in given {
        let name: String = name.extract()?;
        let value = value(&name, &given)?;
        fields.insert(name, value);
    }
    RunConfig::from_fields(&fields).map_err(|error| error.raise(given.py()))
}

/// A value as JSON has it.
fn value(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Value> {
    if given.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(flag) = given.cast::<PyBool>() {
        return Ok(Value::Bool(flag.is_true()));
    }
    if let Ok(text) = given.cast::<PyString>() {
        return Ok(Value::String(text.extract()?));
    }
    if let Ok(codec) = given.extract::<Codec>() {
        return Ok(Value::String(codec.0.to_string()));
    }
    if given.cast::<PyFloat>().is_err() {
        if let Ok(path) = given.extract::<PathBuf>() {
            return Ok(Value::String(path.display().to_string()));
        }
        if let Some(integer) = integer(name, given)? {
            return Ok(integer);
        }
        if let Ok(items) = given.try_iter() {
            let items = items.map(|item| value(name, &item?));
            return items.collect::<PyResult<_>>().map(Value::Array);
        }
    }
    let number: f64 = given.extract().map_err(|_| {
        let message = format!("{name} is of a wrong type, got {given}");
        PyTypeError::new_err(message)
    })?;
    let finite = Number::from_f64(number).map(Value::Number);
    finite.ok_or_else(|| bad_argument(format!("{name} must be finite, got {number}")))
}

/// What counts as an integer in Python, NumPy's among it.
fn integer(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Option<Value>> {
    let index = given.call_method0("__index__");
    let Ok(index) = index.and_then(|index| Ok(index.cast_into::<PyInt>()?)) else {
        return Ok(None);
    };
    if let Ok(positive) = index.extract::<u64>() {
        return Ok(Some(positive.into()));
    }
    let negative = index.extract::<i64>();
    let accepted = "in -2**63..2**64 at the most";
    let negative =
        negative.map_err(|_| bad_argument(format!("{name} must be {accepted}, got {index}")))?;
    Ok(Some(negative.into()))
}
