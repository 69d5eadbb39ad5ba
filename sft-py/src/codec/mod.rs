//! `sft.Codec`.

/// The combinations of choices that have a name.
mod named;
/// Searches for the codec of a wanted size or error.
mod search;

use std::hash::{Hash, Hasher};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use sft_compress::TensorView;

pub(crate) use self::search::Maker;

use crate::array::{Array, levels, seed};
use crate::config::{RANGES, Settings, name_of, to_dict};
use crate::error::{detached, raised};

/// How tensors are encoded: an immutable set of settings.
///
/// Start from a named constructor: `Codec.dead_zone` for the fewest bits at an
/// error, `Codec.activation` and `Codec.gradient` for unbiased values,
/// `Codec.paper` for fidelity to the paper, `Codec.raw` for no loss. What is used
/// where no codec is given is `Codec.default_activation`, which is ``Codec()``,
/// and `Codec.default_gradient`.
///
/// A codec is written in one way everywhere, such as 'dead-zone:1.25',
/// 'gradient:0.2:8' or 'paper:0.2:8,range=row': ``str(codec)`` gives it,
/// ``Codec(text)`` and whatever takes a codec read it. The rest of the spelling
/// is that of the choices below: 'raw', 'activation:KEEP:LEVELS',
/// 'levels:LEVELS', 'f16' and 'exact', with the options 'keep', 'row-keep',
/// 'threshold', 'spacing', 'rounding', 'range', 'of', 'code' and 'non-finite'.
///
/// The constructor also takes every choice by its name; `config` tells the
/// choices of a codec, and ``Codec(**codec.config) == codec``. Codecs can be
/// compared, hashed and pickled.
///
/// Parameters
/// ----------
/// text : str, optional
///     A codec as it is written, in place of all choices.
/// sparsify : {'none', 'top_k', 'row_top_k', 'threshold'}, default 'none'
///     Which elements are kept; the others decode to zero. The fraction `keep` of
///     largest magnitude in the tensor or in each row, those of magnitude
///     `threshold` or more, or all.
/// keep : float, default 0.2
///     Fraction to keep in (0, 1], with 'top_k' and 'row_top_k'.
/// threshold : float
///     Least magnitude to keep, positive, with 'threshold'.
/// quantize : {'error', 'dead_zone', 'unbiased', 'levels', 'f16', 'none'}, default 'error'
///     What becomes of the kept elements: a uniform quantizer with a dead zone
///     whose step has a wanted error, or is given, rounding at random in steps, one
///     of a few `levels`, half precision, or nothing.
/// levels : int, default 8
///     Number of points, 2 to 256, with 'levels' as the next three.
/// spacing : {'log', 'linear'}, default 'log'
///     How the points are spaced.
/// rounding : {'stochastic', 'nearest'}, default 'stochastic'
///     Unbiased, or of less error.
/// range : {'tensor', 'row'}, default 'tensor'
///     Which kept magnitudes share the points.
/// step : float
///     Step relative to the root mean square of the tensor without its outliers,
///     0.001 to 1000, with 'dead_zone' and 'unbiased'.
/// relative_mse : float, default 0.01
///     With 'error' as the next, as `Codec.for_error` takes them.
/// of : {'bulk', 'all'}, default 'bulk'
///     What the error is relative to.
/// code : {'context', 'golomb', 'none'}, default 'context'
///     How the result becomes bytes. 'golomb' needs linear levels, 'none' needs
///     both `sparsify` and `quantize` to be 'none'.
/// non_finite : {'refuse', 'saturate'}, default 'refuse'
///     Whether NaN and infinities are an error, or become zero and the largest
///     finite number.
///
/// Raises
/// ------
/// ValueError
///     If an argument is not in its range, or belongs to another choice.
///
/// Examples
/// --------
/// >>> import numpy as np
/// >>> import sft
/// >>> x = np.array([[0.5, -2.0, 0.1], [1.0, 0.0, 3.0]], dtype=np.float32)
/// >>> frame = sft.Codec.paper(keep=0.5, levels=8).encode(x, seed=7)
/// >>> sft.decode(frame)[1]
/// array([1., 0., 3.], dtype=float32)
///
/// >>> sft.Codec("error:0.01") == sft.Codec()
/// True
/// >>> sft.Codec(**{**sft.Codec.activation().config, "rounding": "nearest"})
/// Codec('activation:0.2:8,rounding=nearest')
#[pyclass(frozen, eq, hash, module = "sft")]
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Codec(pub(crate) sft_compress::Codec);

impl Hash for Codec {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_string().hash(state);
    }
}

#[pymethods]
impl Codec {
    #[new]
    #[pyo3(signature = (
        text=None, /, *, sparsify=None, keep=None, threshold=None, quantize=None, levels=None,
        spacing=None, rounding=None, range=None, step=None, relative_mse=None, of=None, code=None,
        non_finite=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "every choice by its name")]
    fn new(
        text: Option<&str>,
        sparsify: Option<&str>,
        keep: Option<f64>,
        threshold: Option<f32>,
        quantize: Option<&str>,
        #[pyo3(from_py_with = some_levels)] levels: Option<u32>,
        spacing: Option<&str>,
        rounding: Option<&str>,
        range: Option<&str>,
        step: Option<f64>,
        relative_mse: Option<f64>,
        of: Option<&str>,
        code: Option<&str>,
        non_finite: Option<&str>,
    ) -> PyResult<Self> {
        let settings = Settings {
            sparsify,
            keep,
            threshold,
            quantize,
            levels,
            spacing,
            rounding,
            range,
            step,
            relative_mse,
            of,
            code,
            non_finite,
        };
        let codec = match text {
            None => sft_compress::Codec::new(settings.config()?),
            Some(text) if settings == Settings::default() => text.parse(),
            Some(text) => {
                return Err(PyValueError::new_err(format!(
                    "a codec is given either as text, got '{text}', or by its choices"
                )));
            }
        };
        raised(codec).map(Self)
    }

    /// Encode a tensor as one self-describing frame.
    ///
    /// The same tensor, codec and seed give the same bytes everywhere. Other
    /// threads run meanwhile and must not write to `x`; one tensor is encoded by
    /// one thread, several at once by as many as there are callers.
    ///
    /// Parameters
    /// ----------
    /// x : numpy.ndarray of float32, float16 or bfloat16
    ///     Tensor of 1 to 8 dimensions, C-contiguous; it is not copied. The last
    ///     dimension is that of the channels. bfloat16 is that of ml_dtypes.
    /// seed : int, default 0
    ///     Decides the random roundings, 0 to 2**64 - 1: take a new one for every
    ///     message, or their errors do not average out. Codecs that do not round
    ///     at random ignore it.
    /// dtype : {'f16', 'bf16'}, optional
    ///     That `x` is an array of uint16 that holds the bits of this type, for
    ///     programs that do without ml_dtypes.
    ///
    /// Returns
    /// -------
    /// bytes
    ///
    /// Raises
    /// ------
    /// TypeError
    ///     If `x` is not an array of one of these types.
    /// ValueError
    ///     If `x` is not C-contiguous or has 0 or more than 8 dimensions.
    /// CodecError
    ///     If `x` holds NaN or an infinity that the codec refuses, or if it is too
    ///     large for a frame.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> x = np.random.default_rng(0).standard_normal((64, 128), dtype=np.float32)
    /// >>> len(sft.Codec.paper().encode(x, seed=1)) < x.nbytes / 20
    /// True
    #[pyo3(signature = (x, seed=0, *, dtype=None))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        #[pyo3(from_py_with = seed)] seed: u64,
        dtype: Option<&str>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let x = Array::argument(x, dtype)?;
        let (elements, shape) = x.parts()?;
        let encode = || self.0.encode(TensorView::of(elements, shape)?, seed);
        Ok(PyBytes::new(py, &detached(py, encode)?))
    }

    /// Every choice: the arguments that make an equal codec.
    #[getter]
    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(py, self.0.config())
    }

    /// Fraction of the elements kept, in (0, 1]; 1.0 where it is not a setting.
    #[getter]
    fn keep(&self) -> f64 {
        self.0.keep()
    }

    /// Number of quantization points; None where it is not a setting.
    #[getter]
    fn levels(&self) -> Option<u32> {
        self.0.levels()
    }

    /// Which magnitudes share a range, 'tensor' or 'row'; None without levels.
    #[getter]
    fn range(&self) -> Option<&'static str> {
        self.0.range().map(|range| name_of(&range, RANGES))
    }

    fn __repr__(&self) -> String {
        format!("Codec('{}')", self.0)
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __getnewargs__(&self) -> (String,) {
        (self.0.to_string(),)
    }
}

/// A codec, or how it is written.
impl<'a, 'py> FromPyObject<'a, 'py> for Codec {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(codec) = value.cast::<Self>() {
            return Ok(*codec.get());
        }
        if let Ok(text) = value.cast::<PyString>() {
            return raised(text.to_cow()?.parse()).map(Self);
        }
        let kind = value.get_type().name()?;
        Err(PyTypeError::new_err(format!(
            "a codec must be a sft.Codec or text such as 'dead-zone:1.25', got {kind}"
        )))
    }
}

fn some_levels(value: &Bound<'_, PyAny>) -> PyResult<Option<u32>> {
    if value.is_none() {
        return Ok(None);
    }
    levels(value).map(Some)
}
