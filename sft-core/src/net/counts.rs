//! What a link carried.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::meter::Meter;

/// What a link carried so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkCounts {
    /// Bytes of messages that were handed to the network.
    pub sent_bytes: u64,
    /// Bytes of messages that came.
    pub received_bytes: u64,
    /// Messages that came.
    pub received_messages: u64,
    /// The rate at which the last long message came, bit/s.
    pub receiving_bit_s: Option<f64>,
    /// How long nothing came.
    pub silent: Duration,
}

/// Bytes of a message from which on its rate is measured.
const LONG_BYTES: u64 = 16 << 10;
/// Bytes that come at once which are more than a sign of life: a message begins.
const BEGINS: usize = 200;

/// What came up a link since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Heard {
    /// Bytes of messages, and how long they took to come.
    pub(super) bytes: u64,
    pub(super) time: Duration,
    /// The rate of the fastest long message, bit/s.
    pub(super) fastest_bit_s: Option<f64>,
}

/// What a link carries, and the rate that it keeps.
#[derive(Debug)]
pub(super) struct Counters {
    born: Instant,
    /// When the last byte came, of whatever kind, in nanoseconds since it was born.
    heard: AtomicU64,
    sent: AtomicU64,
    rate: AtomicU64,
    received: Mutex<Received>,
    /// Of all links of the same listener.
    meter: Option<Arc<Meter>>,
    /// Why the link ended.
    ended: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Received {
    bytes: u64,
    messages: u64,
    /// When the message that comes now began, and the bytes of the network since.
    coming: Option<(Instant, u64)>,
    heard: Heard,
    bit_s: Option<f64>,
}

impl Counters {
    /// Those of a link whose bytes count in a meter, too.
    pub(super) fn new(meter: Option<Arc<Meter>>) -> Self {
        Self {
            born: Instant::now(),
            heard: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            received: Mutex::default(),
            meter,
            ended: Mutex::default(),
        }
    }

    /// Bytes came from the network, of whatever kind.
    pub(super) fn heard(&self, count: usize) {
        let now = self.born.elapsed();
        self.heard.store(now.as_nanos() as u64, Ordering::Relaxed);
        let mut received = self.lock();
        match &mut received.coming {
            Some((_, behind)) => *behind += count as u64,
            coming if count >= BEGINS => *coming = Some((self.born + now, 0)),
            _ => {}
        }
        drop(received);
        if let Some(meter) = &self.meter {
            meter.count(self.born + now, count as u64);
        }
    }

    /// How long no byte came.
    pub(super) fn silent(&self) -> Duration {
        let last = Duration::from_nanos(self.heard.load(Ordering::Relaxed));
        self.born.elapsed().saturating_sub(last)
    }

    /// The rate to keep, bit/s.
    pub(super) fn rate(&self) -> Option<f64> {
        let rate = f64::from_bits(self.rate.load(Ordering::Relaxed));
        (rate > 0.0).then_some(rate)
    }

    pub(super) fn set_rate(&self, bit_s: Option<f64>) {
        let rate = bit_s.filter(|rate| rate.is_finite() && *rate > 0.0);
        self.rate
            .store(rate.unwrap_or(0.0).to_bits(), Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn received(&self, bytes: usize) {
        self.lock().bytes += bytes as u64;
    }

    /// The last bytes of a message came.
    pub(super) fn received_message(&self, bytes: usize) {
        let mut received = self.lock();
        received.messages += 1;
        let Some((began, behind)) = received.coming.take() else {
            return;
        };
        let time = began.elapsed();
        received.heard.bytes += bytes as u64;
        received.heard.time += time;
        if behind >= LONG_BYTES && !time.is_zero() {
            let bit_s = 8.0 * behind as f64 / time.as_secs_f64();
            received.bit_s = Some(bit_s);
            let fastest = &mut received.heard.fastest_bit_s;
            *fastest = Some(fastest.map_or(bit_s, |before| before.max(bit_s)));
        }
    }

    /// What came since this was last asked.
    pub(super) fn take_heard(&self) -> Heard {
        std::mem::take(&mut self.lock().heard)
    }

    /// Keeps the first reason that a link ended for.
    pub(super) fn end(&self, reason: String) {
        self.reason().get_or_insert(reason);
    }

    fn reason(&self) -> MutexGuard<'_, Option<String>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the link ended. The sending half may see that first, and not know it.
    pub(super) fn ended(&self) -> String {
        for _ in 0..20 {
            let reason = self.reason().clone();
            if let Some(reason) = reason {
                return reason;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        "was closed".into()
    }

    pub(super) fn counts(&self) -> LinkCounts {
        let received = self.lock();
        LinkCounts {
            sent_bytes: self.sent_bytes(),
            received_bytes: received.bytes,
            received_messages: received.messages,
            receiving_bit_s: received.bit_s,
            silent: self.silent(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
