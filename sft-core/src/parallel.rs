//! Independent tasks on a few threads, with results in order.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Result;

/// Runs `task(0..count)` on up to `threads` threads; the error with the lowest index wins.
///
/// Every task runs whatever the others return, so that the outcome does not
/// depend on the number of threads.
pub(crate) fn parallel<T: Send>(
    threads: usize,
    count: usize,
    task: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&i| i < count);
        std::iter::from_fn(take)
            .map(|i| (i, task(i)))
            .collect::<Vec<_>>()
    };
    let mut results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(count)).map(|_| scope.spawn(work)).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, _>| match worker.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        workers.into_iter().flat_map(join).collect::<Vec<_>>()
    });
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}
