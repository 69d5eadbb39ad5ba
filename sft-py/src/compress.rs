use std::hash::{Hash, Hasher};

use numpy::{IntoPyArray, PyArrayDyn, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sft_compress::{Range, TensorView};

use crate::array::{frame_bytes, seed, tensor, unsigned};
use crate::error::detached;

/// How tensors are encoded: the paper's lossy codec or no compression.
///
/// Made by `Codec.paper` or `Codec.raw`; immutable, comparable and hashable.
///
/// Examples
/// --------
/// >>> import numpy as np
/// >>> import sft
/// >>> x = np.array([[0.5, -2.0, 0.1], [1.0, 0.0, 3.0]], dtype=np.float32)
/// >>> frame = sft.Codec.paper(keep=0.5, levels=8).encode(x, seed=7)
/// >>> sft.decode(frame)[1]
/// array([1., 0., 3.], dtype=float32)
#[pyclass(frozen, eq, hash, module = "sft")]
#[derive(PartialEq)]
pub(crate) struct Codec(sft_compress::Codec);

impl Hash for Codec {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.keep().to_bits(), self.0.levels(), self.0.range()).hash(state);
    }
}

#[pymethods]
impl Codec {
    /// The paper's codec: Top-K, stochastic quantization, lossless coding.
    ///
    /// Parameters
    /// ----------
    /// keep : float, default 0.2
    ///     Fraction of the elements to keep, in (0, 1]: those of largest
    ///     magnitude. The others decode to zero.
    /// levels : int, default 8
    ///     Number of quantization points, 2 to 256.
    /// range : {'tensor', 'row'}, default 'tensor'
    ///     Which kept magnitudes share a quantization range: all of the tensor,
    ///     as in the paper, or those of one row, a row being one index into all
    ///     dimensions but the last. Rows cost a few more bits and are far more
    ///     accurate where rows differ in scale, as they do in gradients.
    ///
    /// Returns
    /// -------
    /// Codec
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If an argument is not in its range.
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> sft.Codec.paper(keep=0.1, range="row")
    /// Codec.paper(keep=0.1, levels=8, range='row')
    #[staticmethod]
    #[pyo3(signature = (*, keep=0.2, levels=8, range="tensor"))]
    fn paper(
        keep: f64,
        #[pyo3(from_py_with = levels_argument)] levels: u32,
        range: &str,
    ) -> PyResult<Self> {
        let range = parse_range(range)?;
        let codec = sft_compress::Codec::paper(keep, levels);
        let codec = codec.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self(codec.with_range(range)))
    }

    /// No compression: every element as a float32, bit for bit, NaN included.
    ///
    /// Returns
    /// -------
    /// Codec
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> sft.decode(sft.Codec.raw().encode(np.float32([1.5, np.nan])))
    /// array([1.5, nan], dtype=float32)
    #[staticmethod]
    fn raw() -> Self {
        Self(sft_compress::Codec::raw())
    }

    /// Encode a tensor as one self-describing frame.
    ///
    /// The same tensor, codec and seed give the same bytes everywhere. Other
    /// threads run meanwhile and must not write to `x`.
    ///
    /// Parameters
    /// ----------
    /// x : numpy.ndarray of float32
    ///     Tensor of 1 to 8 dimensions, C-contiguous; it is not copied.
    /// seed : int, default 0
    ///     Decides the random roundings, 0 to 2**64 - 1: take a new one for every
    ///     message, or their errors do not average out. `Codec.raw` ignores it.
    ///
    /// Returns
    /// -------
    /// bytes
    ///
    /// Raises
    /// ------
    /// TypeError
    ///     If `x` is not an array of float32.
    /// ValueError
    ///     If `x` is not C-contiguous or has 0 or more than 8 dimensions.
    /// CodecError
    ///     If `x` holds NaN or an infinity and the codec is not `Codec.raw`, or
    ///     if it is too large for a frame.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> x = np.random.default_rng(0).standard_normal((64, 128), dtype=np.float32)
    /// >>> len(sft.Codec.paper().encode(x, seed=1)) < x.nbytes / 20
    /// True
    #[pyo3(signature = (x, seed=0))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        #[pyo3(from_py_with = seed)] seed: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let x = tensor(x)?;
        let (data, shape) = (x.as_slice()?, x.shape());
        let frame = detached(py, || self.0.encode(TensorView::new(data, shape)?, seed))?;
        Ok(PyBytes::new(py, &frame))
    }

    /// Fraction of the elements kept, in (0, 1]; 1.0 for `Codec.raw`.
    #[getter]
    fn keep(&self) -> f64 {
        self.0.keep()
    }

    /// Number of quantization points; None for `Codec.raw`.
    #[getter]
    fn levels(&self) -> Option<u32> {
        self.0.levels()
    }

    /// Which magnitudes share a range, 'tensor' or 'row'; None for `Codec.raw`.
    #[getter]
    fn range(&self) -> Option<String> {
        self.0.range().map(|range| range.to_string())
    }

    fn __repr__(&self) -> String {
        let (Some(levels), Some(range)) = (self.0.levels(), self.0.range()) else {
            return "Codec.raw()".to_owned();
        };
        format!(
            "Codec.paper(keep={}, levels={levels}, range='{range}')",
            self.0.keep()
        )
    }
}

/// Decode one frame, whichever codec wrote it.
///
/// Safe on hostile bytes: any damage raises an exception.
///
/// Parameters
/// ----------
/// frame : bytes, bytearray, memoryview or another buffer of bytes
///     Exactly one frame. Anything but `bytes` is copied first.
/// max_elements : int, optional
///     Most elements to accept. A few bytes can stand for any number of zeros:
///     set this where you know what to expect. By default 2**24 and 2**10 more
///     for each byte of the frame.
///
/// Returns
/// -------
/// numpy.ndarray of float32
///     A new array of the encoded tensor's shape.
///
/// Raises
/// ------
/// CodecError
///     If the bytes are not a valid frame or hold too many elements; its `kind`
///     tells which.
/// TypeError
///     If `frame` is not a buffer of bytes.
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
#[pyo3(signature = (frame, *, max_elements=None))]
pub(crate) fn decode<'py>(
    py: Python<'py>,
    frame: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = max_elements_argument)] max_elements: Option<usize>,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let frame = frame_bytes(frame)?;
    let tensor = detached(py, || match max_elements {
        Some(max) => sft_compress::decode_limited(&frame, max),
        None => sft_compress::decode(&frame),
    })?;
    let shape = tensor.shape().to_vec();
    tensor.into_data().into_pyarray(py).reshape(shape)
}

fn parse_range(range: &str) -> PyResult<Range> {
    match range {
        "tensor" => Ok(Range::Tensor),
        "row" => Ok(Range::Row),
        other => Err(PyValueError::new_err(format!(
            "range must be 'tensor' or 'row', got '{other}'"
        ))),
    }
}

fn levels_argument(value: &Bound<'_, PyAny>) -> PyResult<u32> {
    unsigned(value, "levels", "2..=256")
}

fn max_elements_argument(value: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    unsigned(value, "max_elements", "0..2**64")
}
