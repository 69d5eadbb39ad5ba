use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyConnectionError;
use pyo3::prelude::*;
use sft_core::net::{self, LinkLimits};

use super::certs::server_identity;
use super::link::{Link, limits, message_bytes};
use super::wait::{same_process, seconds, wait};
use crate::array::unsigned;
use crate::error::{bad_argument, detached};

/// Where links come in; what `listen` returns.
///
/// Attributes
/// ----------
/// address : str
///     Where it listens, as ``'host:port'``.
///
/// Examples
/// --------
/// >>> import sft
/// >>> with sft.listen("127.0.0.1:0") as listener:
/// ...     print(listener.address.startswith("127.0.0.1:"))
/// True
#[pyclass(frozen, module = "sft")]
pub(crate) struct Listener {
    address: String,
    open: Mutex<Option<Arc<net::Listener>>>,
}

impl Listener {
    /// What listens, until it is closed.
    pub(crate) fn open(&self) -> PyResult<Arc<net::Listener>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = || PyConnectionError::new_err("the listener was closed");
        open.clone().ok_or_else(closed)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // In a forked process its task is not there, and would be waited for forever.
        if same_process().is_err() {
            std::mem::forget(self.open.get_mut().map(Option::take));
        }
    }
}

#[pymethods]
impl Listener {
    #[getter]
    fn address(&self) -> &str {
        &self.address
    }

    /// Wait for a link.
    ///
    /// Parameters
    /// ----------
    /// timeout : float, optional
    ///     Seconds to wait; by default as long as it takes.
    ///
    /// Returns
    /// -------
    /// Link or None
    ///     None if nobody came in time. Who is refused for a certificate is not seen here.
    ///
    /// Raises
    /// ------
    /// ConnectionError
    ///     If the listener was closed.
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> with sft.listen("127.0.0.1:0") as listener:
    /// ...     print(listener.accept(timeout=0.01))
    /// None
    #[pyo3(signature = (timeout = None))]
    fn accept(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Link>> {
        let timeout = timeout.map(|s| seconds("timeout", s)).transpose()?;
        let open = self.open()?;
        let link = wait(py, timeout, |until| open.accept_until(until))?;
        Ok(link.map(Link))
    }

    /// Let nobody in any more, and free the address; links that are there stay.
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> listener = sft.listen("127.0.0.1:0")
    /// >>> listener.close()
    /// >>> listener.accept()
    /// Traceback (most recent call last):
    ///     ...
    /// ConnectionError: the listener was closed
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        same_process()?;
        let open = (self.open.lock())
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        py.detach(|| drop(open));
        Ok(())
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) -> PyResult<()> {
        self.close(py)
    }

    fn __repr__(&self) -> String {
        format!("Listener('{}')", self.address)
    }
}

/// Listen for devices, which come by `connect`.
///
/// Parameters
/// ----------
/// address : str
///     As ``'host:port'``, such as ``'0.0.0.0:7443'``; port 0 takes a free one.
/// certs : path, optional
///     The folder of `make_certificates`, or the one for the server in it: in comes who has a
///     certificate of the same authority. Without it only devices on this machine come in.
/// max_message_bytes : int, default 2**28
///     The longest message that is taken.
/// silence_s : float, default 1.5
///     Seconds of silence after which the other side is given up.
/// max_connections : int, default 1024
///     Connections at a time; what is more is closed.
///
/// Returns
/// -------
/// Listener
///
/// Raises
/// ------
/// OSError
///     If a file of the certificate is not there or not what it should be.
/// ValueError
///     If an argument is out of its range, the address is taken or none of this machine's, or without
///     `certs` other machines reach it.
///
/// Examples
/// --------
/// >>> import sft
/// >>> with sft.listen("127.0.0.1:0") as listener:
/// ...     print(listener.accept(timeout=0))
/// None
#[pyfunction]
#[pyo3(
    signature = (
        address, certs = None, *,
        max_message_bytes = 268_435_456, silence_s = 1.5, max_connections = 1024
    ),
    text_signature = "(address, certs=None, *, max_message_bytes=268435456, silence_s=1.5, max_connections=1024)"
)]
pub(crate) fn listen(
    py: Python<'_>,
    address: &str,
    certs: Option<PathBuf>,
    #[pyo3(from_py_with = message_bytes)] max_message_bytes: usize,
    silence_s: f64,
    #[pyo3(from_py_with = connections_argument)] max_connections: usize,
) -> PyResult<Listener> {
    same_process()?;
    let limits = LinkLimits {
        connections: max_connections,
        ..limits(max_message_bytes, silence_s)?
    };
    let identity = server_identity(py, certs.as_deref())?;
    let open = detached(py, || {
        net::Listener::bind(address, identity.as_ref(), limits)
    })?;
    Ok(Listener {
        address: open.address().to_string(),
        open: Mutex::new(Some(Arc::new(open))),
    })
}

/// Far more than a process has files.
fn connections_argument(value: &Bound<'_, PyAny>) -> PyResult<usize> {
    let accepted = "1..2**28";
    let count = unsigned(value, "max_connections", accepted)?;
    if (1..1 << 28).contains(&count) {
        return Ok(count);
    }
    let reason = format!("max_connections must be in {accepted}, got {count}");
    Err(bad_argument(reason))
}
