//! What a link carried.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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
const LONG_BYTES: u64 = 32 << 10;

/// What a link carries, and the rate that it keeps.
#[derive(Debug)]
pub(super) struct Counters {
    born: Instant,
    /// When the last byte came, of whatever kind, in nanoseconds since it was born.
    heard: AtomicU64,
    sent: AtomicU64,
    rate: AtomicU64,
    received: Mutex<Received>,
    /// Why the link ended.
    ended: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Received {
    bytes: u64,
    messages: u64,
    last: Instant,
    /// When the first piece of the message came that comes now, and the bytes behind it.
    first: Instant,
    behind: u64,
    bit_s: Option<f64>,
}

impl Counters {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            born: now,
            heard: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            received: Mutex::new(Received {
                bytes: 0,
                messages: 0,
                last: now,
                first: now,
                behind: 0,
                bit_s: None,
            }),
            ended: Mutex::default(),
        }
    }

    /// Bytes came, of whatever kind.
    pub(super) fn heard(&self) {
        let now = self.born.elapsed().as_nanos() as u64;
        self.heard.store(now, Ordering::Relaxed);
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

    pub(super) fn received(&self, bytes: usize, is_first: bool) {
        let mut received = self.lock();
        received.bytes += bytes as u64;
        received.last = Instant::now();
        if is_first {
            (received.first, received.behind) = (received.last, 0);
        } else {
            received.behind += bytes as u64;
        }
    }

    pub(super) fn received_message(&self) {
        let mut received = self.lock();
        received.messages += 1;
        let time = (received.last - received.first).as_secs_f64();
        if received.behind >= LONG_BYTES && time > 0.0 {
            received.bit_s = Some(8.0 * received.behind as f64 / time);
        }
    }

    /// Keeps the first reason that a link ended for.
    pub(super) fn end(&self, reason: String) {
        self.reason().get_or_insert(reason);
    }

    fn reason(&self) -> std::sync::MutexGuard<'_, Option<String>> {
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

    fn lock(&self) -> std::sync::MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
