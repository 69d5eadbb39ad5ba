use pyo3::exceptions::{PyConnectionError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::types::PyType;
use sft_compress::ErrorKind;
use sft_opt::Constraint;

pyo3::create_exception!(
    sft,
    CodecError,
    PyValueError,
    "A tensor that cannot be encoded, or bytes that are not a valid frame.\n\
    \n\
    Attributes\n\
    ----------\n\
    kind : str\n\
    \x20   What to act on: 'non_finite' (the tensor holds NaN or an infinity),\n\
    \x20   'truncated' (the frame ends early), 'trailing_bytes', 'corrupt',\n\
    \x20   'checksum' (the frame was damaged), 'unsupported_version', 'too_large',\n\
    \x20   'other_shape' (than the receiver expects) or 'lost_reference' (the message\n\
    \x20   builds on a state that this side does not have).\n\
    \n\
    Examples\n\
    --------\n\
    >>> import numpy as np\n\
    >>> import sft\n\
    >>> try:\n\
    ...     sft.Codec.activation(keep=0.2).encode(np.float32([[np.nan]]))\n\
    ... except sft.CodecError as error:\n\
    ...     print(error.kind)\n\
    non_finite"
);

pyo3::create_exception!(
    sft,
    SolverError,
    PyRuntimeError,
    "A problem that has no solution.\n\
    \n\
    Attributes\n\
    ----------\n\
    constraint : str\n\
    \x20   The first one that cannot be met: 'accuracy', 'memory' or 'bandwidth'.\n\
    \n\
    Examples\n\
    --------\n\
    >>> import sft\n\
    >>> devices = [sft.Device(memory_bytes=1 << 20)]\n\
    >>> try:\n\
    ...     sft.optimize(sft.System(total_hz=30e6, devices=devices))\n\
    ... except sft.SolverError as error:\n\
    ...     print(error.constraint)\n\
    memory"
);

const INTERNAL_ERROR: &str = "\
A bug in sft: please report it, with what led to it.

Examples
--------
>>> import sft
>>> issubclass(sft.InternalError, RuntimeError)
True
";

/// `sft.InternalError`: what PyO3 raises for a panic, wherever it comes from, made a RuntimeError.
///
/// PyO3's own exception is none that `except Exception` catches, and there is no choosing another.
pub(crate) fn internal_error(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let error = py.get_type::<PanicException>();
    error.setattr("__bases__", (py.get_type::<PyRuntimeError>(),))?;
    error.setattr("__name__", "InternalError")?;
    error.setattr("__qualname__", "InternalError")?;
    error.setattr("__module__", "sft")?;
    error.setattr("__doc__", INTERNAL_ERROR)?;
    let text = c"lambda self: f'{self.args[0]}: this is a bug in sft, please report it'";
    error.setattr("__str__", py.eval(text, None, None)?)?;
    Ok(error)
}

/// Panics on a thread of its own, for the tests.
#[pyfunction]
pub(crate) fn _panic(py: Python<'_>) {
    let work = || panic!("a panic on purpose");
    let joined = py.detach(|| std::thread::spawn(work).join());
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// The exception for a problem without a feasible point.
pub(crate) fn infeasible(py: Python<'_>, constraint: Constraint) -> PyErr {
    let (name, reason) = match constraint {
        Constraint::Accuracy => ("accuracy", "no compression in its box is accurate enough"),
        Constraint::Memory => (
            "memory",
            "no cut layer fits into the memory of every device",
        ),
        _ => (
            "bandwidth",
            "a device with something to send cannot have any bandwidth or compute",
        ),
    };
    let error = SolverError::new_err(reason);
    match error.value(py).setattr("constraint", name) {
        Ok(()) => error,
        Err(failure) => failure,
    }
}

/// Runs `work` without the interpreter's lock and raises its error as an exception.
pub(crate) fn detached<T: Send, E: Raise>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> PyResult<T> {
    py.detach(work).map_err(|error| error.raise(py))
}

/// What a constructor of the codec crate makes, its error being a bad argument.
pub(crate) fn raised<T>(result: sft_compress::Result<T>) -> PyResult<T> {
    result.map_err(|error| bad_argument(error.to_string()))
}

/// An argument that is not accepted.
pub(crate) fn bad_argument(message: String) -> PyErr {
    PyValueError::new_err(message)
}

/// An error of a wrapped crate.
pub(crate) trait Raise: Send {
    /// The exception for this error.
    fn raise(self, py: Python<'_>) -> PyErr;
}

impl Raise for sft_compress::Error {
    fn raise(self, py: Python<'_>) -> PyErr {
        let kind = match self.kind() {
            ErrorKind::InvalidArgument => return PyValueError::new_err(self.to_string()),
            ErrorKind::NonFinite => "non_finite",
            ErrorKind::Truncated => "truncated",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Checksum => "checksum",
            ErrorKind::UnsupportedVersion => "unsupported_version",
            ErrorKind::TrailingBytes => "trailing_bytes",
            ErrorKind::TooLarge => "too_large",
            ErrorKind::OtherShape => "other_shape",
            ErrorKind::LostReference => "lost_reference",
            _ => "other",
        };
        let error = CodecError::new_err(self.to_string());
        match error.value(py).setattr("kind", kind) {
            Ok(()) => error,
            Err(failure) => failure,
        }
    }
}

impl Raise for sft_opt::Error {
    fn raise(self, _py: Python<'_>) -> PyErr {
        PyValueError::new_err(self.to_string())
    }
}

impl Raise for sft_core::Error {
    fn raise(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Codec(error) => error.raise(py),
            Self::Cost(error) => error.raise(py),
            Self::Argument { .. } => bad_argument(self.to_string()),
            Self::Link { .. } | Self::Protocol(_) => PyConnectionError::new_err(self.to_string()),
            Self::File { .. } => PyOSError::new_err(self.to_string()),
            _ => PyRuntimeError::new_err(self.to_string()),
        }
    }
}
