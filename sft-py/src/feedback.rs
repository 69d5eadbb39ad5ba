use std::sync::{Mutex, MutexGuard, PoisonError};

use numpy::{PyArrayDyn, PyArrayMethods, ToPyArray};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sft_compress::{Compressor, Context, Encoder, Tensor, TensorView};

use crate::array::{Array, seed};
use crate::codec::Codec;
use crate::error::detached;

/// A codec that adds what it dropped from one tensor to the next.
///
/// For tensors that change little from one message to the next, not for
/// activations of different samples. A tensor of another shape than the one
/// before begins anew. The receiver decodes as always.
///
/// Parameters
/// ----------
/// codec : Codec or str
///     What encodes the sums.
/// residual : numpy.ndarray of float32, optional
///     What was dropped so far; nothing by default. `codec` and `residual` are all
///     of the state: save them to go on later.
///
/// Raises
/// ------
/// CodecError
///     If `residual` holds NaN or an infinity.
///
/// Examples
/// --------
/// >>> import numpy as np
/// >>> import sft
/// >>> x = np.float32([1.0, 0.4, 0.4])
/// >>> feedback = sft.ErrorFeedback(sft.Codec.paper(keep=0.34, levels=2))
/// >>> sent = [sft.decode(feedback.encode(x, seed)) for seed in range(10)]
/// >>> bool(np.allclose(sum(sent) + feedback.residual, 10 * x))
/// True
#[pyclass(frozen, module = "sft")]
pub(crate) struct ErrorFeedback(Mutex<sft_compress::ErrorFeedback<Encoder>>);

impl ErrorFeedback {
    fn state(&self) -> MutexGuard<'_, sft_compress::ErrorFeedback<Encoder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl ErrorFeedback {
    #[new]
    #[pyo3(signature = (codec, residual=None))]
    fn new(py: Python<'_>, codec: Codec, residual: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let residual = residual
            .map(|x| Array::extract(x, "residual"))
            .transpose()?;
        let parts = residual.as_ref().map(Array::parts).transpose()?;
        let state = detached(py, || {
            let feedback = sft_compress::ErrorFeedback::new(Encoder::new(codec.0));
            let Some((elements, shape)) = parts else {
                return Ok(feedback);
            };
            feedback.with_residual(Tensor::new(elements.to_f32().into_owned(), shape)?)
        })?;
        Ok(Self(Mutex::new(state)))
    }

    /// What encodes the sums.
    #[getter]
    fn codec(&self) -> Codec {
        Codec(self.state().inner().codec())
    }

    /// What was dropped, a copy of the shape of the last tensor; None before the first.
    #[getter]
    fn residual<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyArrayDyn<f32>>>> {
        let state = self.state();
        let residual = state.residual();
        if residual == &Tensor::default() {
            return Ok(None);
        }
        let array = residual.data().to_pyarray(py);
        array.reshape(residual.shape().to_vec()).map(Some)
    }

    /// Encode a tensor and what was dropped before as one frame.
    ///
    /// If it is refused, what was dropped stays as it was.
    ///
    /// Parameters
    /// ----------
    /// x, seed, dtype
    ///     As `Codec.encode` takes them.
    ///
    /// Returns
    /// -------
    /// bytes
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
    /// >>> feedback = sft.ErrorFeedback("paper:0.5:2")
    /// >>> sft.decode(feedback.encode(np.float32([1.0, 0.75])))
    /// array([1., 0.], dtype=float32)
    /// >>> feedback.residual
    /// array([0.  , 0.75], dtype=float32)
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
        let frame = detached(py, || {
            let (mut frame, context) = (Vec::new(), Context::new(shape, seed));
            let tensor = TensorView::of(elements, shape)?;
            self.state().compress(tensor, &context, &mut frame, None)?;
            Ok::<_, sft_compress::Error>(frame)
        })?;
        Ok(PyBytes::new(py, &frame))
    }

    fn __repr__(&self) -> String {
        format!("ErrorFeedback('{}')", self.state().inner().codec())
    }

    fn __getnewargs__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Codec, Option<Bound<'py, PyArrayDyn<f32>>>)> {
        Ok((self.codec(), self.residual(py)?))
    }
}
