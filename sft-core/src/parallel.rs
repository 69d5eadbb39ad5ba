//! Independent tasks on a few threads, with results in order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{Error, Result};

/// Threads that wait for work.
pub(crate) fn pool(threads: usize) -> Result<ThreadPool> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|e| Error::argument("threads", format!("{threads} cannot be started: {e}")))
}

/// Runs `task` with `threads` threads for what it does in parallel.
pub(crate) fn with_threads<T: Send>(
    threads: usize,
    task: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    pool(threads)?.install(task)
}

/// Starts a thread; the system may have no more of them.
pub(crate) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    let handle = std::thread::Builder::new().spawn_scoped(scope, work);
    handle.map_err(|e| Error::argument("threads", format!("cannot be started: {e}")))
}

/// The stack of a thread that waits, and then calls a side of the server.
const WAITING_STACK_BYTES: usize = 512 << 10;

/// Runs each of `task(0..count)` on a thread of its own: they wait for other machines more than they
/// compute. The error with the lowest index wins.
pub(crate) fn waiting<T: Send>(
    count: usize,
    task: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let task = &task;
    std::thread::scope(|scope| {
        let start = |n| {
            let thread = std::thread::Builder::new().stack_size(WAITING_STACK_BYTES);
            let started = thread.spawn_scoped(scope, move || task(n));
            started.map_err(|e| Error::argument("devices", format!("are too many threads: {e}")))
        };
        let started: Vec<_> = (0..count).map(start).collect::<Result<_>>()?;
        let joined = started.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    })
}

/// Runs `task(0..count)` on up to `threads` threads, of which each task gets an equal share for
/// what it does in parallel; the error with the lowest index wins.
///
/// Every task runs whatever the others return, so that the outcome does not
/// depend on the number of threads.
pub(crate) fn parallel<T: Send>(
    threads: usize,
    count: usize,
    task: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let workers = threads.min(count).max(1);
    let next = AtomicUsize::new(0);
    let work = || {
        with_threads(threads / workers, || {
            let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&i| i < count);
            let tasks = std::iter::from_fn(take);
            Ok(tasks.map(|i| (i, task(i))).collect::<Vec<_>>())
        })
    };
    let joined = std::thread::scope(|scope| {
        let workers = (0..workers).map(|_| spawn(scope, work));
        let workers = workers.collect::<Result<Vec<_>>>()?;
        let join = |worker: ScopedJoinHandle<'_, _>| match worker.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        workers.into_iter().map(join).collect::<Result<Vec<_>>>()
    });
    let mut results = joined?.into_iter().flatten().collect::<Vec<_>>();
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}
