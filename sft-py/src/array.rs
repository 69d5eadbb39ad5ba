use std::borrow::Cow;

use numpy::{
    PyArray1, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArray1,
    PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods, dtype,
};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// The tensor `x`, not copied: C-contiguous `float32`.
pub(crate) fn tensor<'py>(x: &Bound<'py, PyAny>) -> PyResult<PyReadonlyArrayDyn<'py, f32>> {
    let Ok(array) = x.cast::<PyUntypedArray>() else {
        return Err(PyTypeError::new_err(format!(
            "x must be a NumPy array of float32, got {}: convert it with \
             numpy.asarray(x, dtype=numpy.float32)",
            x.get_type().name()?
        )));
    };
    if !array.dtype().is_equiv_to(&dtype::<f32>(x.py())) {
        return Err(PyTypeError::new_err(format!(
            "x must have dtype float32, got {}: convert it with x.astype(numpy.float32)",
            array.dtype()
        )));
    }
    if !(array.is_c_contiguous() && array.is_aligned()) {
        return Err(PyValueError::new_err(
            "x must be C-contiguous and aligned: copy it with numpy.require(x, requirements=\"CA\")",
        ));
    }
    Ok(array.cast::<PyArrayDyn<f32>>()?.try_readonly()?)
}

/// A list, tuple or array of numbers as a contiguous array of one dimension; an array that is
/// one already is not copied.
pub(crate) fn vector<'py>(
    values: &Bound<'py, PyAny>,
    name: &str,
) -> PyResult<PyReadonlyArray1<'py, f64>> {
    let py = values.py();
    let array = (py.import("numpy")?)
        .call_method1("require", (values, dtype::<f64>(py), "CA"))
        .map_err(|error| {
            let reason = error.value(py);
            PyTypeError::new_err(format!("{name} must be a sequence of numbers: {reason}"))
        })?;
    let ndim = array.cast::<PyUntypedArray>()?.ndim();
    let array = array.cast::<PyArray1<f64>>().map_err(|_| {
        PyValueError::new_err(format!("{name} must have one dimension, got {ndim}"))
    })?;
    Ok(array.try_readonly()?)
}

/// The bytes of `frame`. Only `bytes` cannot change without the lock: others are copied.
pub(crate) fn frame_bytes<'a>(frame: &'a Bound<'_, PyAny>) -> PyResult<Cow<'a, [u8]>> {
    if let Ok(bytes) = frame.cast::<PyBytes>() {
        return Ok(Cow::Borrowed(bytes.as_bytes()));
    }
    let name = frame.get_type().name()?;
    let buffer = PyBuffer::<u8>::get(frame).map_err(|_| {
        PyTypeError::new_err(format!(
            "frame must be bytes, bytearray, memoryview or another buffer of bytes, got {name}"
        ))
    })?;
    buffer.to_vec(frame.py()).map(Cow::Owned)
}

/// A whole number that `T` can hold; `accepted` tells what can.
pub(crate) fn unsigned<'py, T>(value: &Bound<'py, PyAny>, name: &str, accepted: &str) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    value.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            PyValueError::new_err(format!("{name} must be in {accepted}, got {value}"))
        } else {
            error
        }
    })
}

/// A seed of any 64 bits.
pub(crate) fn seed(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    unsigned(value, "seed", "0..2**64")
}
