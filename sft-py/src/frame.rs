use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::array::{Array, Decoded, bfloat16, frame_bytes, seed, sizes, unsigned};
use crate::codec::Codec;
use crate::config::{CODES, name_of};
use crate::error::{bad_argument, detached};
use sft_compress::TensorView;

/// Decode one frame, whichever codec wrote it.
///
/// Safe on hostile bytes: any damage raises an exception.
///
/// Parameters
/// ----------
/// frame : bytes, bytearray, memoryview or another buffer of bytes
///     Exactly one frame. Anything but `bytes` is copied first.
/// shape : sequence of int, optional
///     The shape that the tensor must have; nothing else limits its size then.
/// max_elements : int, optional
///     Most elements to accept, where the shape is not known. A few bytes can
///     stand for any number of zeros, so that the default is 2**24 and 2**10 more
///     for each byte of the frame.
///
/// Returns
/// -------
/// numpy.ndarray
///     A new array of the encoded tensor's shape and type: float32, float16, or
///     the bfloat16 of ml_dtypes. Where ml_dtypes is not installed, the elements
///     of a bfloat16 tensor come as float32 instead, not rounded again.
///
/// Raises
/// ------
/// CodecError
///     If the bytes are not a valid frame, or hold too many elements or another
///     shape; its `kind` tells which.
/// TypeError
///     If `frame` is not a buffer of bytes.
/// ValueError
///     If both `shape` and `max_elements` are given.
///
/// Examples
/// --------
/// >>> import numpy as np
/// >>> import sft
/// >>> frame = sft.Codec.raw().encode(np.float32([[1.0, 2.0]]))
/// >>> sft.decode(frame)
/// array([[1., 2.]], dtype=float32)
/// >>> try:
/// ...     sft.decode(frame[:-1])
/// ... except sft.CodecError as error:
/// ...     print(error.kind)
/// truncated
#[pyfunction]
#[pyo3(signature = (frame, *, shape=None, max_elements=None))]
pub(crate) fn decode<'py>(
    py: Python<'py>,
    frame: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = shape_argument)] shape: Option<Vec<usize>>,
    #[pyo3(from_py_with = max_elements_argument)] max_elements: Option<usize>,
) -> PyResult<Bound<'py, PyAny>> {
    let frame = frame_bytes(frame, "frame")?;
    let brain = bfloat16(py).is_some();
    if shape.is_some() && max_elements.is_some() {
        let reason = "shape and max_elements exclude each other: give one of them";
        return Err(bad_argument(reason.into()));
    }
    let (shape, elements) = detached(py, || {
        let tensor = match (&shape, max_elements) {
            (Some(shape), _) => sft_compress::decode_expected(&frame, shape),
            (_, Some(max)) => sft_compress::decode_limited(&frame, max),
            _ => sft_compress::decode(&frame),
        }?;
        Ok::<_, sft_compress::Error>((tensor.shape().to_vec(), Decoded::new(tensor, brain)))
    })?;
    elements.into_array(py, &shape)
}

/// What a frame holds, as `inspect` tells.
///
/// Attributes
/// ----------
/// shape : tuple of int
///     The shape of the tensor.
/// dtype : {'f32', 'f16', 'bf16'}
///     The type of its elements.
/// code : {'context', 'golomb', 'none'}
///     How they are coded.
/// kept : int
///     The number of elements that are kept; all if `code` is 'none'.
/// payload_bytes : int
///     Bytes of the frame beside its envelope and header.
/// chunks : int
///     The number of parts that are coded independently of each other.
///
/// Examples
/// --------
/// >>> import numpy as np
/// >>> import sft
/// >>> info = sft.inspect(sft.Codec.activation(keep=0.25).encode(np.ones((4, 8), np.float32)))
/// >>> info.shape, info.dtype, info.code, info.kept, info.chunks
/// ((4, 8), 'f32', 'context', 8, 1)
#[pyclass(frozen, eq, get_all, module = "sft")]
#[derive(PartialEq)]
pub(crate) struct Info {
    shape: Shape,
    dtype: String,
    code: &'static str,
    kept: usize,
    payload_bytes: usize,
    chunks: usize,
}

/// A shape, a tuple in Python.
#[derive(Clone, PartialEq)]
pub(crate) struct Shape(Vec<usize>);

impl<'py> IntoPyObject<'py> for Shape {
    type Target = PyTuple;
    type Output = Bound<'py, PyTuple>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        PyTuple::new(py, self.0)
    }
}

#[pymethods]
impl Info {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "Info(shape={}, dtype='{}', code='{}', kept={}, payload_bytes={}, chunks={})",
            self.shape.clone().into_pyobject(py)?.repr()?,
            self.dtype,
            self.code,
            self.kept,
            self.payload_bytes,
            self.chunks,
        ))
    }
}

/// Check a frame's envelope and read its headers, without decoding elements.
///
/// Parameters
/// ----------
/// frame : bytes, bytearray, memoryview or another buffer of bytes
///     Exactly one frame.
///
/// Returns
/// -------
/// Info
///
/// Raises
/// ------
/// CodecError
///     If the bytes are not a valid frame. Damage that only decoding finds is
///     not found here.
/// TypeError
///     If `frame` is not a buffer of bytes.
///
/// Examples
/// --------
/// >>> import numpy as np
/// >>> import sft
/// >>> info = sft.inspect(sft.Codec.activation(keep=0.25).encode(np.ones((4, 8), np.float16)))
/// >>> info.shape, info.dtype, info.kept
/// ((4, 8), 'f16', 8)
#[pyfunction]
pub(crate) fn inspect(py: Python<'_>, frame: &Bound<'_, PyAny>) -> PyResult<Info> {
    let frame = frame_bytes(frame, "frame")?;
    let info = detached(py, || sft_compress::inspect(&frame))?;
    Ok(Info {
        shape: Shape(info.shape),
        dtype: info.dtype.to_string(),
        code: name_of(&info.code, CODES),
        kept: info.kept,
        payload_bytes: info.payload_bytes,
        chunks: info.chunks,
    })
}

/// What a codec makes of a tensor, as `measure` tells.
///
/// Attributes
/// ----------
/// bytes : int
///     Bytes of the frame.
/// bits_per_element : float
///     Bits of the frame for each element.
/// relative_mse : float
///     Sum of squared errors relative to the sum of squares.
///
/// Examples
/// --------
/// >>> import numpy as np
/// >>> import sft
/// >>> measured = sft.measure(sft.Codec.raw(), np.ones((4, 8), np.float32))
/// >>> measured.bits_per_element == 8 * measured.bytes / 32, measured.relative_mse
/// (True, 0.0)
#[pyclass(frozen, eq, get_all, module = "sft")]
#[derive(PartialEq)]
pub(crate) struct Measure {
    bytes: usize,
    bits_per_element: f64,
    relative_mse: f64,
}

#[pymethods]
impl Measure {
    fn __repr__(&self) -> String {
        format!(
            "Measure(bytes={}, bits_per_element={:?}, relative_mse={:?})",
            self.bytes, self.bits_per_element, self.relative_mse
        )
    }
}

/// Encode and decode a tensor and compare.
///
/// Parameters
/// ----------
/// codec : Codec
///     The codec.
/// x : numpy.ndarray of float32, float16 or bfloat16
///     As `Codec.encode` takes it.
/// seed : int, default 0
///     As `Codec.encode` takes it.
///
/// Returns
/// -------
/// Measure
///
/// Raises
/// ------
/// TypeError, ValueError, CodecError
///     As `Codec.encode`.
///
/// Examples
/// --------
/// >>> import numpy as np
/// >>> import sft
/// >>> x = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
/// >>> sft.measure(sft.Codec.raw(), x).relative_mse
/// 0.0
/// >>> sft.measure(sft.Codec.activation(keep=0.2, levels=8), x).bits_per_element < 2
/// True
#[pyfunction]
#[pyo3(signature = (codec, x, seed=0))]
pub(crate) fn measure(
    py: Python<'_>,
    codec: Codec,
    x: &Bound<'_, PyAny>,
    #[pyo3(from_py_with = seed)] seed: u64,
) -> PyResult<Measure> {
    let x = Array::extract(x, "x")?;
    let (elements, shape) = x.parts()?;
    let measure = || sft_compress::measure(codec.0, TensorView::of(elements, shape)?, seed);
    let measured = detached(py, measure)?;
    Ok(Measure {
        bytes: measured.bytes,
        bits_per_element: measured.bits_per_element,
        relative_mse: measured.relative_mse,
    })
}

fn max_elements_argument(value: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    unsigned(value, "max_elements", "0..2**64")
}

fn shape_argument(value: &Bound<'_, PyAny>) -> PyResult<Option<Vec<usize>>> {
    (!value.is_none()).then(|| sizes(value)).transpose()
}
