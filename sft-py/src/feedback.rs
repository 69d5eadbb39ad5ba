use std::sync::{Mutex, MutexGuard, PoisonError};

use numpy::{PyArrayDyn, PyArrayMethods, ToPyArray};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use sft_compress::{Codec, TensorView, decode};

use crate::array::{Array, unsigned};
use crate::error::detached;

/// What a codec dropped from one tensor, to be added to the next.
///
/// Independent of the codec: `add` before encoding, and `keep` afterwards with
/// what the receiver decodes. For tensors that change little from one message
/// to the next, not for activations of different samples.
///
/// Parameters
/// ----------
/// shape : sequence of int
///     The shape of the tensors.
/// residual : numpy.ndarray of float32, optional
///     What was dropped so far, of that shape; nothing by default. `shape` and
///     `residual` are all of the state: save them to go on later.
///
/// Raises
/// ------
/// ValueError
///     If `shape` is not that of a tensor, or `residual` has another size.
/// CodecError
///     If `residual` holds NaN or an infinity.
///
/// Examples
/// --------
/// >>> import numpy as np
/// >>> import sft
/// >>> x = np.float32([1.0, 0.4, 0.4])
/// >>> codec, feedback = sft.Codec.paper(keep=0.34, levels=2), sft.ErrorFeedback(x.shape)
/// >>> sent = []
/// >>> for seed in range(10):
/// ...     sent.append(sft.decode(codec.encode(feedback.add(x), seed)))
/// ...     feedback.keep(sent[-1])
/// >>> bool(np.allclose(sum(sent) + feedback.residual, 10 * x))
/// True
#[pyclass(frozen, module = "sft")]
pub(crate) struct ErrorFeedback(Mutex<sft_compress::ErrorFeedback>);

impl ErrorFeedback {
    fn state(&self) -> MutexGuard<'_, sft_compress::ErrorFeedback> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl ErrorFeedback {
    #[new]
    #[pyo3(signature = (shape, residual=None))]
    fn new(
        py: Python<'_>,
        #[pyo3(from_py_with = sizes)] shape: Vec<usize>,
        residual: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let residual = residual
            .map(|x| Array::extract(x, "residual"))
            .transpose()?;
        let parts = residual.as_ref().map(Array::parts).transpose()?;
        let state = detached(py, || match parts {
            None => sft_compress::ErrorFeedback::new(&shape),
            Some((elements, _)) => {
                sft_compress::ErrorFeedback::restore(&shape, elements.to_f32().into_owned())
            }
        })?;
        Ok(Self(Mutex::new(state)))
    }

    /// The shape of the tensors.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.state().shape())
    }

    /// What was dropped, a copy.
    #[getter]
    fn residual<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        let state = self.state();
        state
            .residual()
            .to_pyarray(py)
            .reshape(state.shape().to_vec())
    }

    /// Add what was dropped to a tensor.
    ///
    /// Parameters
    /// ----------
    /// x : numpy.ndarray of float32, float16 or bfloat16
    ///     As `Codec.encode` takes it.
    ///
    /// Returns
    /// -------
    /// numpy.ndarray of float32
    ///     The sum, which is what to encode.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If the shape is another.
    /// TypeError
    ///     As `Codec.encode`.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> feedback = sft.ErrorFeedback((2,), np.float32([0.5, 0.0]))
    /// >>> feedback.add(np.float32([1.0, 1.0]))
    /// array([1.5, 1. ], dtype=float32)
    fn add<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        let x = Array::extract(x, "x")?;
        let (elements, shape) = x.parts()?;
        detached(py, || {
            self.state()
                .add(TensorView::of(elements, shape)?)
                .map(|_| ())
        })?;
        self.residual(py)
    }

    /// Keep what a decoded tensor lacks of the last sum.
    ///
    /// Parameters
    /// ----------
    /// y : numpy.ndarray of float32, float16 or bfloat16
    ///     What the receiver decodes.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If the shape is another.
    /// TypeError
    ///     As `Codec.encode`.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> feedback = sft.ErrorFeedback((2,))
    /// >>> x = feedback.add(np.float32([1.0, 0.25]))
    /// >>> feedback.keep(np.float32([1.0, 0.0]))
    /// >>> feedback.residual
    /// array([0.  , 0.25], dtype=float32)
    fn keep(&self, py: Python<'_>, y: &Bound<'_, PyAny>) -> PyResult<()> {
        let y = Array::extract(y, "y")?;
        let (elements, shape) = y.parts()?;
        detached(py, || {
            // A decoded tensor is made by decoding alone.
            let frame = Codec::raw().encode(TensorView::of(elements, shape)?, 0)?;
            self.state().keep(&decode(&frame)?)
        })
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("ErrorFeedback(shape={})", self.shape(py)?.repr()?))
    }

    fn __getnewargs__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyArrayDyn<f32>>)> {
        Ok((self.shape(py)?, self.residual(py)?))
    }
}

/// The sizes of a shape.
fn sizes(shape: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    let sizes = shape
        .try_iter()?
        .map(|size| unsigned(&size?, "shape", "0..2**64"));
    sizes.collect()
}
