//! Turns at the server's work, in the order in which they were asked for.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::Semaphore;

use super::link::runtime;
use crate::{Error, Result};

/// Some workers of a few threads each; who asks first works first.
pub(super) struct Turns {
    /// As many as there are workers; tokio's semaphores are fair.
    free: Semaphore,
    idle: Mutex<Vec<ThreadPool>>,
}

impl Turns {
    /// `workers` at a time, with `threads` among them.
    ///
    /// # Errors
    /// Threads that the system does not have.
    pub(super) fn new(workers: usize, threads: usize) -> Result<Self> {
        let workers = workers.clamp(1, threads.max(1));
        let each = (threads / workers).max(1);
        let pool = |_| ThreadPoolBuilder::new().num_threads(each).build();
        let pools = (0..workers).map(pool).collect::<Result<Vec<_>, _>>();
        let failed = |e| Error::argument("threads", format!("{threads} cannot be started: {e}"));
        Ok(Self {
            free: Semaphore::new(workers),
            idle: Mutex::new(pools.map_err(failed)?),
        })
    }

    /// Does some work when it is its turn.
    ///
    /// # Errors
    /// What the work fails with.
    pub(super) fn take<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let _turn = runtime()?.block_on(self.free.acquire());
        // Who has a turn finds a worker idle.
        let Some(pool) = self.idle().pop() else {
            return work();
        };
        let done = pool.install(work);
        self.idle().push(pool);
        done
    }

    fn idle(&self) -> MutexGuard<'_, Vec<ThreadPool>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn so_many_work_at_a_time_and_all_get_their_turn() {
        let turns = Turns::new(2, 2).unwrap();
        let (now, most, done) = (
            AtomicUsize::new(0),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    turns
                        .take(|| {
                            most.fetch_max(
                                now.fetch_add(1, Ordering::SeqCst) + 1,
                                Ordering::SeqCst,
                            );
                            std::thread::sleep(std::time::Duration::from_millis(2));
                            now.fetch_sub(1, Ordering::SeqCst);
                            done.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        })
                        .unwrap();
                });
            }
        });
        assert_eq!(done.load(Ordering::SeqCst), 16);
        assert!(most.load(Ordering::SeqCst) <= 2);
    }
}
