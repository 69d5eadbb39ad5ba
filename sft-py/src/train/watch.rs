use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use pyo3::prelude::*;

/// How often signals are looked for and progress is told.
const POLL: Duration = Duration::from_millis(50);

/// Does something on a thread of its own, and tells about every 50 ms what was sent meanwhile; what
/// comes of it, and the exception of a signal or of `tell`, after which it is asked to stop.
pub(super) fn watched<T: Send, E: Send>(
    py: Python<'_>,
    work: impl FnOnce(Sender<E>, &AtomicBool) -> T + Send,
    mut tell: impl FnMut(Vec<E>) -> PyResult<()>,
) -> (T, Option<PyErr>) {
    let (sender, mut receiver) = channel();
    let stop = AtomicBool::new(false);
    let mut failure = None;
    let done = std::thread::scope(|scope| {
        let stop = &stop;
        let worker = scope.spawn(move || work(sender, stop));
        loop {
            let (events, ended) = py.detach(|| next(&mut receiver));
            if failure.is_none() {
                failure = py.check_signals().and_then(|()| tell(events)).err();
                stop.store(failure.is_some(), Ordering::Relaxed);
            }
            if ended {
                break py.detach(|| worker.join());
            }
        }
    });
    let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    (done, failure)
}

/// What was sent within a moment, and whether there will be no more.
fn next<E>(receiver: &mut Receiver<E>) -> (Vec<E>, bool) {
    match receiver.recv_timeout(POLL) {
        Ok(first) => (
            std::iter::once(first).chain(receiver.try_iter()).collect(),
            false,
        ),
        Err(RecvTimeoutError::Timeout) => (Vec::new(), false),
        Err(RecvTimeoutError::Disconnected) => (Vec::new(), true),
    }
}
