//! What all links of a listener carry together.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A window ends after so long and so many bytes: at high rates in spite of pauses between messages, at low
/// ones in spite of what a queue on the way lets through at once, or a reader that was late.
const WINDOW: Duration = Duration::from_millis(100);
const WINDOW_BYTES: u64 = 512 << 10;

/// The highest rate that was seen of all links together.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    bytes: u64,
    highest_bit_s: Option<f64>,
}

impl Meter {
    /// Bytes came.
    pub(super) fn count(&self, now: Instant, bytes: u64) {
        let mut window = self.lock();
        let Some(since) = window.since else {
            // Those that begin a window came before it.
            window.since = Some(now);
            return;
        };
        window.bytes += bytes;
        let time = now.saturating_duration_since(since);
        if time >= WINDOW && window.bytes >= WINDOW_BYTES {
            let bit_s = 8.0 * window.bytes as f64 / time.as_secs_f64();
            let highest = window.highest_bit_s.unwrap_or(0.0).max(bit_s);
            *window = Window {
                since: Some(now),
                bytes: 0,
                highest_bit_s: Some(highest),
            };
        }
    }

    /// The highest rate of a window since this was last asked, bit/s; none where no window came to its end.
    pub(super) fn take(&self) -> Option<f64> {
        std::mem::take(&mut *self.lock()).highest_bit_s
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_rate_of_a_window_is_kept_and_a_burst_is_none() {
        let meter = Meter::default();
        let start = Instant::now();
        let mut now = start;
        let mut carry = |bit_s: f64, s: f64| {
            let pieces = (s / 0.01) as u64;
            for _ in 0..pieces {
                now += Duration::from_millis(10);
                meter.count(now, (bit_s * 0.01 / 8.0) as u64);
            }
        };
        carry(40e6, 0.1);
        assert_eq!(meter.take(), None);
        carry(10e6, 2.0);
        carry(30e6, 2.0);
        carry(5e6, 2.0);
        let highest = meter.take().unwrap();
        assert!((29e6..30.5e6).contains(&highest), "{highest}");
        assert_eq!(meter.take(), None);
    }
}
