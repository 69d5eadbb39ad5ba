use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use sft_compress::TensorView;

use super::Codec;
use crate::array::Array;
use crate::error::detached;

#[pymethods]
impl Codec {
    /// The dead zone of least step within a size on a sample.
    ///
    /// Parameters
    /// ----------
    /// sample : numpy.ndarray of float32, float16 or bfloat16
    ///     As `encode` takes it.
    /// bits : float
    ///     Most bits of the frame for each element.
    ///
    /// Returns
    /// -------
    /// Codec
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If `bits` is not positive or no step reaches it.
    /// TypeError, CodecError
    ///     As `encode`.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> x = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
    /// >>> codec = sft.Codec.dead_zone_for_bits(x, 1.5)
    /// >>> sft.measure(codec, x).bits_per_element <= 1.5
    /// True
    #[staticmethod]
    fn dead_zone_for_bits(py: Python<'_>, sample: &Bound<'_, PyAny>, bits: f64) -> PyResult<Self> {
        search(py, sample, bits, sft_compress::Codec::dead_zone_for_bits)
    }

    /// The keep and levels of fewest bits within an error on a sample.
    ///
    /// Parameters
    /// ----------
    /// codec : callable
    ///     Makes a codec of ``keep`` and ``levels``, as `Codec.gradient` does.
    /// sample : numpy.ndarray of float32, float16 or bfloat16
    ///     As `encode` takes it. It is encoded hundreds of times: some 10**5
    ///     elements of a message are enough.
    /// relative_mse : float
    ///     Largest sum of squared errors relative to the sum of squares.
    ///
    /// Returns
    /// -------
    /// Codec
    ///     What `codec` made of them.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If `relative_mse` is not positive or no setting reaches it.
    /// TypeError, CodecError
    ///     As `encode`.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> x = np.random.default_rng(0).standard_normal((16, 64), dtype=np.float32)
    /// >>> codec = sft.Codec.top_k_for_error(sft.Codec.gradient, x, 0.1)
    /// >>> sft.measure(codec, x).relative_mse <= 0.1
    /// True
    #[staticmethod]
    fn top_k_for_error(
        py: Python<'_>,
        codec: &Bound<'_, PyAny>,
        sample: &Bound<'_, PyAny>,
        relative_mse: f64,
    ) -> PyResult<Self> {
        let maker = Maker::new(codec);
        let find = |sample: TensorView<'_>, wanted| {
            sft_compress::Codec::top_k_for_error(
                |keep, levels| maker.make(keep, levels),
                sample,
                wanted,
            )
        };
        let found = search(py, sample, relative_mse, find);
        maker.finish(found)
    }

    /// The keep and levels of least error within a size on a sample.
    ///
    /// Parameters
    /// ----------
    /// codec, sample
    ///     As `top_k_for_error` takes them.
    /// bits : float
    ///     Most bits of the frame for each element.
    ///
    /// Returns
    /// -------
    /// Codec
    ///     What `codec` made of them.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If `bits` is not positive or no setting reaches it.
    /// TypeError, CodecError
    ///     As `encode`.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> x = np.random.default_rng(0).standard_normal((16, 64), dtype=np.float32)
    /// >>> codec = sft.Codec.top_k_for_bits(sft.Codec.activation, x, 2.0)
    /// >>> sft.measure(codec, x).bits_per_element <= 2.0
    /// True
    #[staticmethod]
    fn top_k_for_bits(
        py: Python<'_>,
        codec: &Bound<'_, PyAny>,
        sample: &Bound<'_, PyAny>,
        bits: f64,
    ) -> PyResult<Self> {
        let maker = Maker::new(codec);
        let find = |sample: TensorView<'_>, wanted| {
            sft_compress::Codec::top_k_for_bits(
                |keep, levels| maker.make(keep, levels),
                sample,
                wanted,
            )
        };
        let found = search(py, sample, bits, find);
        maker.finish(found)
    }
}

/// Searches on a sample without the interpreter's lock.
fn search(
    py: Python<'_>,
    sample: &Bound<'_, PyAny>,
    wanted: f64,
    find: impl Fn(TensorView<'_>, f64) -> sft_compress::Result<sft_compress::Codec> + Sync,
) -> PyResult<Codec> {
    let sample = Array::extract(sample, "sample")?;
    let (elements, shape) = sample.parts()?;
    let find = || find(TensorView::of(elements, shape)?, wanted);
    detached(py, find).map(Codec)
}

/// Python's function from kept fraction and levels to a codec, called without the lock held.
pub(crate) struct Maker {
    function: Py<PyAny>,
    failure: Mutex<Option<PyErr>>,
}

impl Maker {
    pub(crate) fn new(function: &Bound<'_, PyAny>) -> Self {
        Self {
            function: function.clone().unbind(),
            failure: Mutex::new(None),
        }
    }

    /// The codec; an error stands for the exception that `finish` raises.
    pub(crate) fn make(&self, keep: f64, levels: u32) -> sft_compress::Result<sft_compress::Codec> {
        let made = Python::attach(|py| {
            let settings = PyDict::new(py);
            settings.set_item("keep", keep)?;
            settings.set_item("levels", levels)?;
            let made = self.function.bind(py).call((), Some(&settings))?;
            Ok(made.extract::<Codec>()?.0)
        });
        made.or_else(|error: PyErr| {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            sft_compress::Codec::paper(f64::NAN, levels)
        })
    }

    /// The result, or what Python's function raised.
    pub(crate) fn finish<T>(self, result: PyResult<T>) -> PyResult<T> {
        let failure = self.failure.into_inner();
        match failure.unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => Err(failure),
            None => result,
        }
    }
}
