use std::borrow::Cow;

use numpy::{
    Element, IntoPyArray, PyArray1, PyArrayDescr, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods,
    PyReadonlyArray1, PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods, dtype,
};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;
use sft_compress::{Dtype, Elements, Tensor};

/// A tensor that Python owns, not copied: C-contiguous, of a type that frames can have.
pub(crate) enum Array<'py> {
    F32(PyReadonlyArrayDyn<'py, f32>),
    F16(PyReadonlyArrayDyn<'py, u16>),
    Bf16(PyReadonlyArrayDyn<'py, u16>),
}

impl<'py> Array<'py> {
    /// The array that the argument `name` is.
    pub(crate) fn extract(x: &Bound<'py, PyAny>, name: &str) -> PyResult<Self> {
        let Ok(array) = x.cast::<PyUntypedArray>() else {
            return Err(PyTypeError::new_err(format!(
                "{name} must be a NumPy array of float32, float16 or bfloat16, got {}: convert it \
                 with numpy.asarray({name}, dtype=numpy.float32)",
                x.get_type().name()?
            )));
        };
        let Some(kind) = frame_dtype(&array.dtype())? else {
            return Err(PyTypeError::new_err(format!(
                "{name} must have dtype float32, float16 or bfloat16, got {}: convert it with \
                 {name}.astype(numpy.float32)",
                array.dtype()
            )));
        };
        if !(array.is_c_contiguous() && array.is_aligned()) {
            return Err(out_of_order(name));
        }
        let bits = || -> PyResult<_> {
            let bits = x.call_method1("view", (dtype::<u16>(x.py()),))?;
            Ok(bits.cast::<PyArrayDyn<u16>>()?.try_readonly()?)
        };
        Ok(match kind {
            Dtype::F32 => Self::F32(array.cast::<PyArrayDyn<f32>>()?.try_readonly()?),
            Dtype::F16 => Self::F16(bits()?),
            Dtype::Bf16 => Self::Bf16(bits()?),
        })
    }

    /// The argument `x` of an encoder, of which `dtype` may say what its bits are.
    pub(crate) fn argument(x: &Bound<'py, PyAny>, dtype: Option<&str>) -> PyResult<Self> {
        match dtype {
            Some(dtype) => Self::bits(x, dtype),
            None => Self::extract(x, "x"),
        }
    }

    /// The bits of half-precision numbers of type `dtype`, as `uint16`.
    fn bits(x: &Bound<'py, PyAny>, dtype: &str) -> PyResult<Self> {
        let Ok(bits) = x.cast::<PyArrayDyn<u16>>() else {
            return Err(PyTypeError::new_err(
                "x must be a NumPy array of uint16 where dtype is given",
            ));
        };
        if !(bits.is_c_contiguous() && bits.is_aligned()) {
            return Err(out_of_order("x"));
        }
        match dtype {
            "f16" => Ok(Self::F16(bits.try_readonly()?)),
            "bf16" => Ok(Self::Bf16(bits.try_readonly()?)),
            other => Err(PyValueError::new_err(format!(
                "dtype must be one of 'f16', 'bf16', got '{other}'"
            ))),
        }
    }

    /// Elements and shape, for `TensorView::of`.
    pub(crate) fn parts(&self) -> PyResult<(Elements<'_>, &[usize])> {
        Ok(match self {
            Self::F32(x) => (Elements::F32(x.as_slice()?), x.shape()),
            Self::F16(x) => (Elements::F16(x.as_slice()?), x.shape()),
            Self::Bf16(x) => (Elements::Bf16(x.as_slice()?), x.shape()),
        })
    }
}

fn out_of_order(name: &str) -> PyErr {
    PyValueError::new_err(format!(
        "{name} must be C-contiguous and aligned: copy it with \
         numpy.require({name}, requirements=\"CA\")"
    ))
}

/// The type of a frame's elements for a NumPy type in native byte order.
fn frame_dtype(descr: &Bound<'_, PyArrayDescr>) -> PyResult<Option<Dtype>> {
    let py = descr.py();
    if descr.is_equiv_to(&dtype::<f32>(py)) {
        return Ok(Some(Dtype::F32));
    }
    if descr.itemsize() != 2 {
        return Ok(None);
    }
    if descr.is_equiv_to(&PyArrayDescr::new(py, "float16")?) {
        return Ok(Some(Dtype::F16));
    }
    // NumPy has no bfloat16 of its own: ml_dtypes registers one.
    let name: String = descr.getattr("name")?.extract()?;
    Ok((name == "bfloat16").then_some(Dtype::Bf16))
}

/// The elements of a decoded tensor in the type that was encoded, to nearest.
pub(crate) enum Decoded {
    F32(Vec<f32>),
    Half(Vec<u16>),
    Brain(Vec<u16>),
}

impl Decoded {
    /// Converts a tensor. `brain` tells whether Python has a bfloat16 to take.
    pub(crate) fn new(tensor: Tensor, brain: bool) -> Self {
        match tensor.dtype() {
            Dtype::F16 => Self::Half(tensor.to_f16_bits()),
            Dtype::Bf16 if brain => Self::Brain(tensor.to_bf16_bits()),
            _ => Self::F32(tensor.into_data()),
        }
    }

    /// The array of `shape`, without a copy.
    pub(crate) fn into_array<'py>(
        self,
        py: Python<'py>,
        shape: &[usize],
    ) -> PyResult<Bound<'py, PyAny>> {
        let bits = |bits: Vec<u16>| bits.into_pyarray(py).reshape(shape.to_vec());
        match self {
            Self::F32(data) => Ok(data.into_pyarray(py).reshape(shape.to_vec())?.into_any()),
            Self::Half(data) => bits(data)?.call_method1("view", ("float16",)),
            Self::Brain(data) => bits(data)?.call_method1("view", (bfloat16(py),)),
        }
    }
}

/// The bfloat16 of ml_dtypes, None where that is not installed.
pub(crate) fn bfloat16(py: Python<'_>) -> Option<&Bound<'_, PyAny>> {
    static TYPE: PyOnceLock<Option<Py<PyAny>>> = PyOnceLock::new();
    let import = || py.import("ml_dtypes")?.getattr("bfloat16");
    let found = TYPE.get_or_init(py, || import().ok().map(Bound::unbind));
    found.as_ref().map(|found| found.bind(py))
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

/// Values that nobody may change.
pub(crate) fn frozen<T: Element>(py: Python<'_>, values: Vec<T>) -> Bound<'_, PyArray1<T>> {
    let array = values.into_pyarray(py);
    array.readwrite().make_nonwriteable();
    array
}

/// The bytes of the argument `name`. Only `bytes` cannot change without the lock: others are copied.
pub(crate) fn frame_bytes<'a>(data: &'a Bound<'_, PyAny>, name: &str) -> PyResult<Cow<'a, [u8]>> {
    if let Ok(bytes) = data.cast::<PyBytes>() {
        return Ok(Cow::Borrowed(bytes.as_bytes()));
    }
    let got = data.get_type().name()?;
    let buffer = PyBuffer::<u8>::get(data).map_err(|_| {
        PyTypeError::new_err(format!(
            "{name} must be bytes, bytearray, memoryview or another buffer of bytes, got {got}"
        ))
    })?;
    buffer.to_vec(data.py()).map(Cow::Owned)
}

/// A whole number that `T` can hold; `accepted` tells what can.
pub(crate) fn unsigned<'py, T>(value: &Bound<'py, PyAny>, name: &str, accepted: &str) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    value.extract().map_err(|error: PyErr| {
        let py = value.py();
        if error.is_instance_of::<PyOverflowError>(py) {
            PyValueError::new_err(format!("{name} must be in {accepted}, got {value}"))
        } else if error.is_instance_of::<PyTypeError>(py) {
            PyTypeError::new_err(format!("{name} must be a whole number, got {value}"))
        } else {
            error
        }
    })
}

/// A seed of any 64 bits.
pub(crate) fn seed(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    unsigned(value, "seed", "0..2**64")
}

/// A positive whole number of levels.
pub(crate) fn levels(value: &Bound<'_, PyAny>) -> PyResult<u32> {
    unsigned(value, "levels", "2..=256")
}

/// The sizes of a shape.
pub(crate) fn sizes(shape: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    let sizes = shape
        .try_iter()?
        .map(|size| unsigned(&size?, "shape", "0..2**64"));
    sizes.collect()
}
