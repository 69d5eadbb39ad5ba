use std::path::{Path, PathBuf};

use pyo3::prelude::*;
use sft_core::net::{self, Identity};

use crate::array::unsigned;
use crate::error::detached;

/// Make an authority, a certificate for a server and one for each device, for trying.
///
/// For a deployment certificates are better made where each key is used.
///
/// Parameters
/// ----------
/// folder : path
///     Where they go: ``server``, ``device-0`` and so on are what `listen` and `connect` take as
///     `certs`, each for the machine that it is named by. With the authority's ``ca-key.pem`` more
///     could be made: it belongs on none of them.
/// devices : int
///     The number of devices.
/// hosts : sequence of str
///     Names and addresses that devices reach the server by, beside localhost, 127.0.0.1 and ::1.
/// days : int, default 90
///     How long the certificates hold.
///
/// Raises
/// ------
/// OSError
///     If the folder has an authority already, or cannot be written.
/// ValueError
///     If `devices` or `days` is out of its range, or a host is no name.
///
/// Examples
/// --------
/// >>> import pathlib
/// >>> import tempfile
/// >>> import sft
/// >>> with tempfile.TemporaryDirectory() as folder:
/// ...     sft.make_certificates(folder, 2, hosts=("edge", "192.168.1.7"))
/// ...     print(*sorted(path.name for path in pathlib.Path(folder).iterdir()))
/// ca-key.pem ca.pem device-0 device-1 server
#[pyfunction]
#[pyo3(signature = (folder, devices, hosts = Vec::new(), days = 90), text_signature = "(folder, devices, hosts=(), days=90)")]
pub(crate) fn make_certificates(
    py: Python<'_>,
    folder: PathBuf,
    #[pyo3(from_py_with = devices_argument)] devices: usize,
    hosts: Vec<String>,
    #[pyo3(from_py_with = days_argument)] days: u32,
) -> PyResult<()> {
    detached(py, || {
        net::make_certificates(&folder, devices, &hosts, days)
    })
}

fn devices_argument(value: &Bound<'_, PyAny>) -> PyResult<usize> {
    unsigned(value, "devices", "1..2**64")
}

fn days_argument(value: &Bound<'_, PyAny>) -> PyResult<u32> {
    unsigned(value, "days", "1..=36500")
}

/// The identity of a device in a folder.
pub(super) fn identity(py: Python<'_>, folder: Option<&Path>) -> PyResult<Option<Identity>> {
    detached(py, || folder.map(Identity::open).transpose())
}

/// The identity of a server, in a folder or in the one for it there.
pub(super) fn server_identity(py: Python<'_>, folder: Option<&Path>) -> PyResult<Option<Identity>> {
    detached(py, || folder.map(Identity::open_server).transpose())
}
