use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::bad_argument;

/// The argument `name` from the JSON that the package made of it; errors name the field.
pub(super) fn read<T: DeserializeOwned>(name: &str, text: &str) -> PyResult<T> {
    let mut json = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let mut at = name.to_string();
        let path = error.path().to_string();
        if path != "." {
            at = format!("{at}.{path}");
        }
        let reason = error.into_inner().to_string();
        // The text is not the user's: where in it means nothing.
        let reason = reason.split(" at line ").next().unwrap_or_default();
        let message = format!("{at}: {}", in_words(reason));
        if reason.starts_with("invalid type") {
            PyTypeError::new_err(message)
        } else {
            PyValueError::new_err(message)
        }
    })
}

/// A reason without the names that Rust has for types.
fn in_words(reason: &str) -> String {
    let Some((before, kind)) = reason.rsplit_once("expected ") else {
        return reason.to_string();
    };
    let kind = match kind {
        "usize" | "u32" | "u64" => "a whole number from 0",
        "f64" => "a number",
        "null" => "None",
        other if other.starts_with("struct ") => "an object with fields",
        other => other,
    };
    format!("{}expected {kind}", before.replace("null", "None"))
}

/// A result as JSON.
pub(super) fn write(value: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| bad_argument(error.to_string()))
}
