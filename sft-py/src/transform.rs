//! `sft.Basis`, `sft.TransformEncoder` and `sft.TransformDecoder`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sft_compress::{
    Compressor, Context, Decompressor, Stateful, Tensor, TensorView, Tokens, TransformDecoder,
    TransformEncoder,
};

use crate::array::{Array, Decoded, bfloat16, frame_bytes, sizes, unsigned};
use crate::error::{detached, raised};

/// What both sides of a cut know of its activations or gradients: means, a rotation of the
/// channels, steps, and which magnitudes to expect where.
///
/// A `TransformEncoder` and a `TransformDecoder` share one. It is learnt from some tens of samples
/// and travels as bytes; messages name it, so that another one is never used by mistake.
///
/// Samples are grids of tokens, as those of a vision transformer, or sequences, as those of a
/// language model, behind some tokens of a prefix. In sequences a token with massive activations
/// is coded like the first, and rows may be differences to rows of earlier messages.
///
/// Parameters
/// ----------
/// data : bytes, bytearray, memoryview or another buffer of bytes
///     What `to_bytes` returned.
///
/// Raises
/// ------
/// CodecError
///     If the bytes are no basis.
///
/// Examples
/// --------
/// >>> import numpy as np
/// >>> import sft
/// >>> x = np.random.default_rng(0).standard_normal((32, 10, 16), dtype=np.float32)
/// >>> basis = sft.Basis.of_activations(x, 0.2)
/// >>> encoder, decoder = sft.TransformEncoder(basis), sft.TransformDecoder(basis)
/// >>> y = decoder.decode(encoder.encode(x), x.shape)
/// >>> bool(((y - x) ** 2).mean() < 0.01)
/// True
#[pyclass(frozen, eq, module = "sft")]
#[derive(Clone, PartialEq)]
pub(crate) struct Basis(pub(crate) Arc<sft_compress::Basis>);

#[pymethods]
impl Basis {
    #[new]
    fn new(py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let bytes = frame_bytes(data, "data")?;
        let basis = detached(py, || sft_compress::Basis::from_bytes(&bytes))?;
        Ok(Self(Arc::new(basis)))
    }

    /// Learn the basis of activations from some of them.
    ///
    /// Parameters
    /// ----------
    /// x : numpy.ndarray
    ///     Samples [n, S, D], or [S, D] with `lengths`.
    /// step : float
    ///     The step of the quantizer, 0.001 to 1000: on a grid over the root mean square of the
    ///     activations times the root of its tokens, in a sequence over that of what the means
    ///     leave. 0.3 is the default for both.
    /// grid : tuple of int, optional
    ///     Height and width of the grid of tokens; a sequence by default.
    /// prefix : int, default 1
    ///     Tokens before the grid or sequence that have a mean of their own, such as a class token
    ///     or the first token of a text.
    /// lengths : sequence of int, optional
    ///     The tokens of each sample, where samples of several lengths are one array.
    /// sensitivity : numpy.ndarray, optional
    ///     Gradients of the same shape, by which frequencies of a grid get their steps.
    ///
    /// Raises
    /// ------
    /// TypeError, ValueError, CodecError
    ///     If an argument is not what it must be.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> x = np.random.default_rng(0).standard_normal((32, 17, 16), dtype=np.float32)
    /// >>> sft.Basis.of_activations(x, 0.3, grid=(4, 4)).grid
    /// (4, 4)
    #[staticmethod]
    #[pyo3(signature = (x, step, *, grid=None, prefix=1, lengths=None, sensitivity=None))]
    fn of_activations(
        py: Python<'_>,
        x: &Bound<'_, PyAny>,
        step: f64,
        grid: Option<(usize, usize)>,
        #[pyo3(from_py_with = prefix)] prefix: usize,
        lengths: Option<&Bound<'_, PyAny>>,
        sensitivity: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let (_, lengths) = named(None, lengths)?;
        let tokens = tokens(grid, prefix)?;
        let x = Array::extract(x, "x")?;
        let sensitivity = sensitivity
            .map(|array| Array::extract(array, "sensitivity"))
            .transpose()?;
        let (elements, shape) = x.parts()?;
        let sensitivity = sensitivity.as_ref().map(Array::parts).transpose()?;
        let basis = detached(py, || {
            let x = TensorView::of(elements, shape)?;
            let sensitivity = sensitivity
                .map(|(elements, shape)| TensorView::of(elements, shape))
                .transpose()?;
            sft_compress::Basis::of_activations(x, &lengths, tokens, step, sensitivity)
        })?;
        Ok(Self(Arc::new(basis)))
    }

    /// Learn the basis of the gradients of activations like these.
    ///
    /// Steps are relative to the root mean square of each gradient: 1.5 is the default for vision
    /// transformers, 2 for language models.
    ///
    /// Parameters
    /// ----------
    /// x, step, grid, prefix, lengths
    ///     As `of_activations` takes them.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> x = np.random.default_rng(0).standard_normal((32, 10, 16), dtype=np.float32)
    /// >>> sft.Basis.of_gradients(x, 2.0).width
    /// 16
    #[staticmethod]
    #[pyo3(signature = (x, step, *, grid=None, prefix=1, lengths=None))]
    fn of_gradients(
        py: Python<'_>,
        x: &Bound<'_, PyAny>,
        step: f64,
        grid: Option<(usize, usize)>,
        #[pyo3(from_py_with = prefix)] prefix: usize,
        lengths: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let (_, lengths) = named(None, lengths)?;
        let tokens = tokens(grid, prefix)?;
        let x = Array::extract(x, "x")?;
        let (elements, shape) = x.parts()?;
        let basis = detached(py, || {
            let x = TensorView::of(elements, shape)?;
            sft_compress::Basis::of_gradients(x, &lengths, tokens, step)
        })?;
        Ok(Self(Arc::new(basis)))
    }

    /// Return the basis as bytes.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> basis = sft.Basis.of_gradients(np.ones((1, 4, 8), np.float32), 2.0)
    /// >>> sft.Basis(basis.to_bytes()) == basis
    /// True
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.to_bytes())
    }

    /// The name by which messages know it, the checksum of its bytes.
    #[getter]
    fn name(&self) -> u32 {
        self.0.name()
    }

    /// Channels of a token.
    #[getter]
    fn width(&self) -> usize {
        self.0.width()
    }

    /// Channels that are coded.
    #[getter]
    fn channels(&self) -> usize {
        self.0.channels()
    }

    /// Height and width of the grid; None of a sequence.
    #[getter]
    fn grid(&self) -> Option<(usize, usize)> {
        self.0
            .tokens()
            .sides()
            .map(|[height, width]| (height, width))
    }

    /// Tokens before the grid or sequence.
    #[getter]
    fn prefix(&self) -> usize {
        self.0.tokens().prefix()
    }

    /// Rows of earlier messages that both sides keep.
    #[getter]
    fn cached_rows(&self) -> usize {
        self.0.cached_rows()
    }

    fn __repr__(&self) -> String {
        format!(
            "<sft.Basis {:08x} of {} channels, {} bytes>",
            self.0.name(),
            self.0.width(),
            self.0.to_bytes().len()
        )
    }

    fn __hash__(&self) -> u64 {
        self.0.name().into()
    }

    fn __getnewargs__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyBytes>,) {
        (self.to_bytes(py),)
    }
}

fn tokens(grid: Option<(usize, usize)>, prefix: usize) -> PyResult<Tokens> {
    raised(match grid {
        Some((height, width)) => Tokens::grid(prefix, height, width),
        None => Tokens::sequence(prefix),
    })
}

fn prefix(value: &Bound<'_, PyAny>) -> PyResult<usize> {
    unsigned(value, "prefix", "0..=64")
}

fn memory_bytes(value: &Bound<'_, PyAny>) -> PyResult<usize> {
    unsigned(value, "memory_bytes", "0..2**64")
}

fn numbers<'py, T>(values: Option<&Bound<'py, PyAny>>, name: &str) -> PyResult<Vec<T>>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    let Some(values) = values else {
        return Ok(Vec::new());
    };
    let values = values.try_iter()?;
    values
        .map(|value| unsigned(&value?, name, "0..2**64"))
        .collect()
}

macro_rules! common {
    ($side:ident, $inner:ident) => {
        impl $side {
            fn state(&self) -> MutexGuard<'_, $inner> {
                self.0.lock().unwrap_or_else(PoisonError::into_inner)
            }
        }

        #[pymethods]
        impl $side {
            #[new]
            #[pyo3(signature = (basis, *, memory_bytes=0))]
            fn new(
                basis: &Basis,
                #[pyo3(from_py_with = memory_bytes)] memory_bytes: usize,
            ) -> Self {
                let inner = $inner::new(Arc::clone(&basis.0)).with_memory(memory_bytes);
                Self(Mutex::new(inner))
            }

            /// The basis.
            #[getter]
            fn basis(&self) -> Basis {
                Basis(Arc::clone(self.state().basis()))
            }

            /// Bytes of samples in memory.
            #[getter]
            fn used_bytes(&self) -> usize {
                self.state().memory_bytes()
            }

            /// Samples that were forgotten for want of memory.
            #[getter]
            fn evicted(&self) -> u64 {
                self.state().evicted()
            }

            /// Forget samples and rows, not the basis; both sides together.
            ///
            /// Examples
            /// --------
            /// >>> import numpy as np
            /// >>> import sft
            /// >>> basis = sft.Basis.of_activations(np.eye(8, dtype=np.float32)[None], 0.2)
            /// >>> side = sft.TransformEncoder(basis)
            /// >>> side.reset()
            fn reset(&self) {
                self.state().reset();
            }

            /// Return the memory as bytes, for `restore`.
            ///
            /// Examples
            /// --------
            /// >>> import numpy as np
            /// >>> import sft
            /// >>> basis = sft.Basis.of_activations(np.eye(8, dtype=np.float32)[None], 0.2)
            /// >>> sft.TransformDecoder(basis).save()
            /// b''
            fn save<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
                let state = detached(py, || self.state().save())?;
                Ok(PyBytes::new(py, &state))
            }

            /// Take over a memory that `save` returned, of the same basis.
            ///
            /// Raises
            /// ------
            /// CodecError
            ///     If the bytes are none; the memory is then as before.
            ///
            /// Examples
            /// --------
            /// >>> import numpy as np
            /// >>> import sft
            /// >>> basis = sft.Basis.of_activations(np.eye(8, dtype=np.float32)[None], 0.2)
            /// >>> sides = sft.TransformEncoder(basis), sft.TransformEncoder(basis)
            /// >>> _ = sides[0].encode(np.ones((5, 8), np.float32))
            /// >>> sides[1].restore(sides[0].save())
            fn restore(&self, py: Python<'_>, state: &Bound<'_, PyAny>) -> PyResult<()> {
                let bytes = frame_bytes(state, "state")?;
                detached(py, || self.state().restore(&bytes))
            }
        }
    };
}

/// The sending side of the transform codec: samples as coefficients of a `Basis`.
///
/// Messages build on each other: the other side, a `TransformDecoder` with the same basis and
/// memory, must decode all of them in the same order. After a message was lost, `reset` both.
///
/// Parameters
/// ----------
/// basis : Basis
///     What both sides know.
/// memory_bytes : int, default 0
///     Memory for samples that have numbers, about a byte for forty elements: one that comes again
///     is coded as what has changed.
///
/// Examples
/// --------
/// >>> import numpy as np
/// >>> import sft
/// >>> x = np.random.default_rng(0).standard_normal((32, 10, 16), dtype=np.float32)
/// >>> basis = sft.Basis.of_activations(x, 0.2)
/// >>> encoder = sft.TransformEncoder(basis, memory_bytes=1 << 20)
/// >>> first, again = (encoder.encode(x, samples=range(32)) for _ in range(2))
/// >>> len(first) > 20 * len(again)
/// True
#[pyclass(frozen, module = "sft", name = "TransformEncoder")]
pub(crate) struct PyEncoder(Mutex<TransformEncoder>);

common!(PyEncoder, TransformEncoder);

#[pymethods]
impl PyEncoder {
    /// Encode samples as one message.
    ///
    /// Parameters
    /// ----------
    /// x : numpy.ndarray
    ///     Samples [..., S, D], or [S, D] with `lengths`, of float32, float16 or bfloat16.
    /// samples : sequence of int, optional
    ///     The number of each sample in its data set.
    /// lengths : sequence of int, optional
    ///     The tokens of each sample, where samples of several lengths are one array.
    /// dtype : {'f16', 'bf16'}, optional
    ///     As `Codec.encode` takes it.
    ///
    /// Raises
    /// ------
    /// TypeError, ValueError, CodecError
    ///     As `Codec.encode`; the memory is then as before.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> basis = sft.Basis.of_activations(np.eye(8, dtype=np.float32)[None], 0.2)
    /// >>> message = sft.TransformEncoder(basis).encode(np.eye(8, dtype=np.float32), lengths=[3, 5])
    /// >>> sft.inspect(message).shape
    /// (8, 8)
    #[pyo3(signature = (x, *, samples=None, lengths=None, dtype=None))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        samples: Option<&Bound<'py, PyAny>>,
        lengths: Option<&Bound<'py, PyAny>>,
        dtype: Option<&str>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let x = Array::argument(x, dtype)?;
        let (elements, shape) = x.parts()?;
        let (samples, lengths) = named(samples, lengths)?;
        let message = detached(py, || {
            let context = Context::new(shape, 0)
                .with_samples(&samples)
                .with_lengths(&lengths);
            let (tensor, mut message) = (TensorView::of(elements, shape)?, Vec::new());
            self.state()
                .compress(tensor, &context, &mut message, None)?;
            Ok::<_, sft_compress::Error>(message)
        })?;
        Ok(PyBytes::new(py, &message))
    }
}

/// The receiving side of a `TransformEncoder` with the same basis and memory.
///
/// Parameters
/// ----------
/// basis, memory_bytes
///     Those of the encoder.
///
/// Examples
/// --------
/// >>> import numpy as np
/// >>> import sft
/// >>> x = np.ones((2, 3, 8), np.float32)
/// >>> basis = sft.Basis.of_activations(x, 0.2)
/// >>> message = sft.TransformEncoder(basis).encode(x)
/// >>> sft.TransformDecoder(basis).decode(message, x.shape).shape
/// (2, 3, 8)
#[pyclass(frozen, module = "sft", name = "TransformDecoder")]
pub(crate) struct PyDecoder(Mutex<TransformDecoder>);

common!(PyDecoder, TransformDecoder);

#[pymethods]
impl PyDecoder {
    /// Decode a message.
    ///
    /// Safe on hostile bytes: any damage raises an exception, and the memory is then as before.
    ///
    /// Parameters
    /// ----------
    /// message : bytes, bytearray, memoryview or another buffer of bytes
    ///     What the encoder returned.
    /// shape : sequence of int
    ///     The shape of the samples.
    /// samples, lengths : sequence of int, optional
    ///     Those of the encoder's call.
    ///
    /// Raises
    /// ------
    /// CodecError
    ///     If the bytes are no such message; of the `kind` 'lost_reference' if they build on
    ///     messages that this side has not seen.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> x = np.eye(8, dtype=np.float32)
    /// >>> basis = sft.Basis.of_activations(x[None], 0.2)
    /// >>> message = sft.TransformEncoder(basis).encode(x, lengths=[3, 5])
    /// >>> y = sft.TransformDecoder(basis).decode(message, x.shape, lengths=[3, 5])
    /// >>> bool(abs(y - x).max() < 0.1)
    /// True
    #[pyo3(signature = (message, shape, *, samples=None, lengths=None))]
    fn decode<'py>(
        &self,
        py: Python<'py>,
        message: &Bound<'py, PyAny>,
        #[pyo3(from_py_with = sizes)] shape: Vec<usize>,
        samples: Option<&Bound<'py, PyAny>>,
        lengths: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let message = frame_bytes(message, "message")?;
        let (samples, lengths) = named(samples, lengths)?;
        let brain = bfloat16(py).is_some();
        let elements = detached(py, || {
            let context = Context::new(&shape, 0)
                .with_samples(&samples)
                .with_lengths(&lengths);
            let mut tensor = Tensor::default();
            self.state().decompress(&message, &context, &mut tensor)?;
            Ok::<_, sft_compress::Error>(Decoded::new(tensor, brain))
        })?;
        elements.into_array(py, &shape)
    }
}

/// The numbers of samples, and the tokens of each; none where they are not given.
fn named(
    samples: Option<&Bound<'_, PyAny>>,
    lengths: Option<&Bound<'_, PyAny>>,
) -> PyResult<(Vec<u64>, Vec<usize>)> {
    Ok((numbers(samples, "samples")?, numbers(lengths, "lengths")?))
}
