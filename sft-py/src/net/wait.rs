use std::sync::OnceLock;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use sft_core::Result;

use crate::error::{bad_argument, detached};

/// How often signals are looked for.
const SLICE: Duration = Duration::from_millis(100);

/// Attempts something without the interpreter's lock until it comes to something, the time is over, or a
/// signal's handler raises.
pub(super) fn wait<T: Send>(
    py: Python<'_>,
    timeout: Option<Duration>,
    mut attempt: impl FnMut(Instant) -> Result<Option<T>> + Send,
) -> PyResult<Option<T>> {
    same_process()?;
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let slice = Instant::now() + SLICE;
        let slice = until.map_or(slice, |until| until.min(slice));
        if let Some(found) = detached(py, || attempt(slice))? {
            return Ok(Some(found));
        }
        py.check_signals()?;
        if until.is_some_and(|until| Instant::now() >= until) {
            return Ok(None);
        }
    }
}

/// Seconds as a duration.
pub(crate) fn seconds(name: &str, s: f64) -> PyResult<Duration> {
    let reason = |_| bad_argument(format!("{name} must be at least 0 and finite, got {s}"));
    Duration::try_from_secs_f64(s).map_err(reason)
}

/// Refuses a process that was forked from one that has links: it lacks the threads behind them, and would
/// wait forever.
pub(crate) fn same_process() -> PyResult<()> {
    static PROCESS: OnceLock<u32> = OnceLock::new();
    let here = std::process::id();
    if *PROCESS.get_or_init(|| here) == here {
        return Ok(());
    }
    let reason =
        "links do not work in a process forked from one that has some: start it by 'spawn'";
    Err(PyRuntimeError::new_err(reason))
}
