//! CIFAR-100 in its official Python layout: one pickled dictionary per set.

use std::collections::BTreeMap;
use std::path::Path;

use serde_pickle::{DeOptions, HashableValue, Value, value_from_slice};

use crate::{Error, Result};

/// Bytes of an image, 3 x 32 x 32.
pub(super) const PIXELS: usize = 3 * 32 * 32;

/// The pixels `[N, 3, 32, 32]` and the fine labels of a pickled set.
///
/// Nothing in the file is executed: unknown objects are passed over, an array is known by its
/// state.
pub(super) fn read(path: &Path) -> Result<(Vec<u8>, Vec<u32>)> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    parse(&bytes)
        .map_err(|reason| Error::file(path, format!("not a CIFAR-100 file for Python: {reason}")))
}

fn parse(bytes: &[u8]) -> Result<(Vec<u8>, Vec<u32>), String> {
    let options = DeOptions::new().replace_unresolved_globals();
    let value = value_from_slice(bytes, options).map_err(|e| e.to_string())?;
    let Value::Dict(mut entries) = value else {
        return Err("expected a dictionary".into());
    };
    let Some(Value::List(labels)) = take(&mut entries, "fine_labels") else {
        return Err("expected a list named fine_labels".into());
    };
    let labels = labels.iter().enumerate().map(|(i, value)| match value {
        Value::I64(label @ 0..100) => Ok(*label as u32),
        other => Err(format!("label {other} of image {i} is out of range 0..100")),
    });
    let labels = labels.collect::<Result<Vec<_>, _>>()?;
    let Some(pixels) = take(&mut entries, "data").and_then(array) else {
        return Err("expected an array named data".into());
    };
    let want = labels.len() * PIXELS;
    if labels.is_empty() || pixels.len() != want {
        let (images, got) = (labels.len(), pixels.len());
        return Err(format!(
            "{images} images need {want} bytes of data, got {got}"
        ));
    }
    Ok((pixels, labels))
}

/// The entry of this name, whichever kind of string Python wrote.
fn take(entries: &mut BTreeMap<HashableValue, Value>, name: &str) -> Option<Value> {
    let bytes = HashableValue::Bytes(name.as_bytes().to_vec());
    let text = HashableValue::String(name.to_string());
    entries.remove(&bytes).or_else(|| entries.remove(&text))
}

/// The bytes of a NumPy array in C order, from its state: version, shape, type, order, bytes.
fn array(value: Value) -> Option<Vec<u8>> {
    let Value::Tuple(state) = value else {
        return None;
    };
    match <[Value; 5]>::try_from(state) {
        Ok(
            [
                _,
                Value::Tuple(_),
                _,
                Value::Bool(false),
                Value::Bytes(bytes),
            ],
        ) => Some(bytes),
        _ => None,
    }
}
