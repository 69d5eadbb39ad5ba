//! Turns at the server's work, in the order in which they were asked for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{Error, Result};

/// Some workers of a few threads each; who asks first works first.
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    idle: Vec<ThreadPool>,
    /// The number that the next one who asks gets, and the one that is served next.
    next: u64,
    serving: u64,
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
            state: Mutex::new(State {
                idle: pools.map_err(failed)?,
                next: 0,
                serving: 0,
            }),
            changed: Condvar::new(),
        })
    }

    /// Does some work when it is its turn.
    pub(super) fn take<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let pool = self.worker();
        let done = pool.install(work);
        self.lock().idle.push(pool);
        self.changed.notify_all();
        done
    }

    fn worker(&self) -> ThreadPool {
        let mut state = self.lock();
        let ticket = state.next;
        state.next += 1;
        loop {
            if state.serving == ticket
                && let Some(pool) = state.idle.pop()
            {
                state.serving += 1;
                self.changed.notify_all();
                return pool;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
                    turns.take(|| {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(2));
                        now.fetch_sub(1, Ordering::SeqCst);
                        done.fetch_add(1, Ordering::SeqCst);
                    });
                });
            }
        });
        assert_eq!(done.load(Ordering::SeqCst), 16);
        assert!(most.load(Ordering::SeqCst) <= 2);
    }
}
