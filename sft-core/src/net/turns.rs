//! Turns at the server's work, in the order in which they were asked for.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::ThreadPool;
use tokio::sync::Semaphore;

use super::link::runtime;
use crate::Result;
use crate::parallel::pool;

/// Some workers of a few threads each; who asks first works first.
pub(super) struct Turns {
    /// As many as there are workers; tokio's semaphores are fair.
    free: Semaphore,
    idle: Mutex<Vec<ThreadPool>>,
    /// One thread, whose heap all that lasts is in: heaps of several would each need place for as much as
    /// falls to them at the most (with 256 devices of the digits 0.71 to 0.72 MB a device, else 0.72 to 0.78).
    keeper: ThreadPool,
}

impl Turns {
    /// `workers` at a time, with `threads` among them.
    ///
    /// # Errors
    /// Threads that the system does not have.
    pub(super) fn new(workers: usize, threads: usize) -> Result<Self> {
        let workers = workers.clamp(1, threads.max(1));
        let each = (threads / workers).max(1);
        let idle = (0..workers).map(|_| pool(each)).collect::<Result<_>>()?;
        Ok(Self {
            free: Semaphore::new(workers),
            idle: Mutex::new(idle),
            keeper: pool(1)?,
        })
    }

    /// Does some work when it is its turn.
    ///
    /// # Errors
    /// What the work fails with.
    pub(super) fn take<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let _turn = runtime()?.block_on(self.free.acquire());
        // Who has a turn finds a worker idle.
        let Some(worker) = self.idle().pop() else {
            return work();
        };
        let done = worker.install(work);
        self.idle().push(worker);
        done
    }

    /// The same for work whose results last, as a side of the server for a whole round.
    ///
    /// # Errors
    /// What the work fails with.
    pub(super) fn keep<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let _turn = runtime()?.block_on(self.free.acquire());
        self.keeper.install(work)
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

    #[test]
    fn all_that_lasts_is_made_by_one_thread() {
        let turns = Turns::new(2, 2).unwrap();
        let made = || turns.keep(|| Ok(std::thread::current().id())).unwrap();
        let other = std::thread::scope(|scope| scope.spawn(made).join().unwrap());
        assert_eq!(made(), other);
    }
}
