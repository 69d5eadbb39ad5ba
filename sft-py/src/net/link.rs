use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sft_core::net::{self, LinkLimits};

use super::certs::identity;
use super::wait::{same_process, seconds, wait};
use crate::array::{frame_bytes, unsigned};
use crate::error::{bad_argument, detached};

/// One end of a connection to another process: whole messages, in order.
///
/// What `connect` and `Listener.accept` return. Any thread may use it. Waiting releases the
/// interpreter's lock, and Ctrl-C ends it. The other side is asked for signs of life, which it gives while
/// it computes; one that is silent for `silence_s` is given up.
///
/// Attributes
/// ----------
/// peer : str
///     The name in the other side's certificate, such as 'device-3'; empty without certificates.
/// counts : LinkCounts
///     What it carried so far.
///
/// Examples
/// --------
/// >>> import sft
/// >>> with sft.listen("127.0.0.1:0") as listener, sft.connect(listener.address) as device:
/// ...     with listener.accept() as server:
/// ...         device.send(b"to the server")
/// ...         print(server.receive())
/// b'to the server'
#[pyclass(frozen, module = "sft")]
pub(crate) struct Link(pub(super) net::Link);

#[pymethods]
impl Link {
    #[getter]
    fn peer(&self) -> &str {
        self.0.peer()
    }

    #[getter]
    fn counts(&self) -> LinkCounts {
        let counts = self.0.counts();
        LinkCounts {
            sent_bytes: counts.sent_bytes,
            received_bytes: counts.received_bytes,
            received_messages: counts.received_messages,
            receiving_bit_s: counts.receiving_bit_s,
            silent_s: counts.silent.as_secs_f64(),
        }
    }

    /// Send a message; waits while the one before it is on its way.
    ///
    /// Parameters
    /// ----------
    /// message : bytes, bytearray, memoryview or another buffer of bytes
    ///     Anything, also nothing.
    ///
    /// Raises
    /// ------
    /// ConnectionError
    ///     If the link has ended; what the other side had not received is lost.
    /// TypeError
    ///     If `message` is not a buffer of bytes.
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> with sft.listen("127.0.0.1:0") as listener, sft.connect(listener.address) as device:
    /// ...     with listener.accept() as server:
    /// ...         device.send(bytearray(3))
    /// ...         print(server.receive())
    /// b'\x00\x00\x00'
    fn send(&self, py: Python<'_>, message: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut left = Some(frame_bytes(message, "message")?.into_owned());
        wait(py, None, |until| {
            if let Some(message) = left.take() {
                left = self.0.send_until(message, until)?;
            }
            Ok(left.is_none().then_some(()))
        })?;
        Ok(())
    }

    /// Wait for a message.
    ///
    /// Parameters
    /// ----------
    /// timeout : float, optional
    ///     Seconds to wait; by default as long as it takes.
    ///
    /// Returns
    /// -------
    /// bytes or None
    ///     The message; None if none came in time.
    ///
    /// Raises
    /// ------
    /// ConnectionError
    ///     If the link has ended.
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> with sft.listen("127.0.0.1:0") as listener, sft.connect(listener.address) as device:
    /// ...     with listener.accept() as server:
    /// ...         print(server.receive(timeout=0.01))
    /// None
    #[pyo3(signature = (timeout = None))]
    fn receive<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let timeout = timeout.map(|s| seconds("timeout", s)).transpose()?;
        let message = wait(py, timeout, |until| self.0.receive_until(until))?;
        Ok(message.map(|message| PyBytes::new(py, &message)))
    }

    /// Hold what this end sends to a rate: a message arrives when a link of it would have carried it.
    ///
    /// Parameters
    /// ----------
    /// bit_s : float or None
    ///     Bits per second; None for as fast as it goes.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If it is not positive.
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> with sft.listen("127.0.0.1:0") as listener, sft.connect(listener.address) as device:
    /// ...     device.set_rate(10e6)
    #[pyo3(signature = (bit_s))]
    fn set_rate(&self, bit_s: Option<f64>) -> PyResult<()> {
        if let Some(bit_s) = bit_s.filter(|bit_s| !(bit_s.is_finite() && *bit_s > 0.0)) {
            let reason = format!("bit_s must be positive and finite, or None, got {bit_s}");
            return Err(bad_argument(reason));
        }
        self.0.set_rate(bit_s);
        Ok(())
    }

    /// End the link, once the other side has read what was sent or half a second later.
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> with sft.listen("127.0.0.1:0") as listener:
    /// ...     link = sft.connect(listener.address)
    /// ...     link.close()
    /// ...     link.send(b"")
    /// Traceback (most recent call last):
    ///     ...
    /// ConnectionError: the link to the other side was closed: by this side
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        same_process()?;
        py.detach(|| self.0.close("by this side"));
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
        format!("Link(peer='{}')", self.0.peer())
    }
}

/// What a link carried so far, as `Link.counts` tells.
///
/// Attributes
/// ----------
/// sent_bytes : int
///     Bytes of messages that were handed to the network.
/// received_bytes, received_messages : int
///     Bytes and messages that came.
/// receiving_bit_s : float or None
///     The rate in bit/s at which the last long message came.
/// silent_s : float
///     Seconds in which nothing came.
///
/// Examples
/// --------
/// >>> import sft
/// >>> with sft.listen("127.0.0.1:0") as listener, sft.connect(listener.address) as device:
/// ...     with listener.accept() as server:
/// ...         device.send(b"four")
/// ...         _ = server.receive()
/// ...         print(server.counts.received_bytes, server.counts.received_messages)
/// 4 1
#[pyclass(frozen, eq, get_all, module = "sft")]
#[derive(PartialEq)]
pub(crate) struct LinkCounts {
    sent_bytes: u64,
    received_bytes: u64,
    received_messages: u64,
    receiving_bit_s: Option<f64>,
    silent_s: f64,
}

#[pymethods]
impl LinkCounts {
    fn __repr__(&self) -> String {
        let rate = self
            .receiving_bit_s
            .map_or("None".into(), |rate| format!("{rate:.0}"));
        format!(
            "LinkCounts(sent_bytes={}, received_bytes={}, received_messages={}, \
             receiving_bit_s={rate}, silent_s={:.3})",
            self.sent_bytes, self.received_bytes, self.received_messages, self.silent_s
        )
    }
}

/// Connect to a server, which `listen` made.
///
/// Parameters
/// ----------
/// server : str
///     As ``'host:port'``.
/// certs : path, optional
///     The folder with this device's certificate, its key and the authority (``cert.pem``,
///     ``key.pem``, ``ca.pem``), as `make_certificates` makes it; without it the server must be on this
///     machine.
/// max_message_bytes : int, default 2**28
///     The longest message that is taken.
/// silence_s : float, default 1.5
///     Seconds of silence after which the other side is given up.
///
/// Returns
/// -------
/// Link
///
/// Raises
/// ------
/// ConnectionError
///     If nobody answers, or one of the two does not believe the other's certificate.
/// OSError
///     If a file of the certificate is not there or not what it should be.
/// ValueError
///     If an argument is out of its range, or without `certs` the server is on another machine.
///
/// Examples
/// --------
/// >>> import sft
/// >>> with sft.listen("127.0.0.1:0") as listener, sft.connect(listener.address) as link:
/// ...     print(link)
/// Link(peer='')
#[pyfunction]
#[pyo3(
    signature = (server, certs = None, *, max_message_bytes = 268_435_456, silence_s = 1.5),
    text_signature = "(server, certs=None, *, max_message_bytes=268435456, silence_s=1.5)"
)]
pub(crate) fn connect(
    py: Python<'_>,
    server: &str,
    certs: Option<PathBuf>,
    #[pyo3(from_py_with = message_bytes)] max_message_bytes: usize,
    silence_s: f64,
) -> PyResult<Link> {
    same_process()?;
    let limits = limits(max_message_bytes, silence_s)?;
    let identity = identity(py, certs.as_deref())?;
    // Takes no longer than the handshake may.
    let link = detached(py, || net::connect(server, identity.as_ref(), &limits))?;
    Ok(Link(link))
}

pub(super) fn message_bytes(value: &Bound<'_, PyAny>) -> PyResult<usize> {
    unsigned(value, "max_message_bytes", "0..2**64")
}

/// The limits of a link, all but two the default ones.
pub(super) fn limits(message_bytes: usize, silence_s: f64) -> PyResult<LinkLimits> {
    let silence = seconds("silence_s", silence_s)?;
    if silence.is_zero() {
        let reason = format!("silence_s must be positive, got {silence_s}");
        return Err(bad_argument(reason));
    }
    Ok(LinkLimits {
        message_bytes,
        silence,
        ..LinkLimits::default()
    })
}
