//! One end of a connection.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};
use tonic::Streaming;

use super::counts::{Counters, Heard, LinkCounts};
use super::wire::{Piece, cut, join};
use crate::split::Transport;
use crate::{Error, Result};

/// Threads that carry the messages of all links of a process; they compute nothing.
const THREADS: usize = 1;
/// How long a link that is closed waits while nothing moves for the other side to have read all.
const FLUSH: Duration = Duration::from_millis(500);

/// What a link takes and how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkLimits {
    /// The longest message that is taken, bytes.
    pub message_bytes: usize,
    /// How long no byte may come from the other side before it is given up; it sends a sign of life three
    /// times as often, also while it computes.
    pub silence: Duration,
    /// How long a connection may take to be made.
    pub handshake: Duration,
    /// Links at a time.
    pub connections: usize,
}

impl Default for LinkLimits {
    /// Messages of 256 MiB, 1.5 s of silence, 3 s to connect, 1,024 links.
    fn default() -> Self {
        Self {
            message_bytes: 256 << 20,
            silence: Duration::from_millis(1500),
            handshake: Duration::from_secs(3),
            connections: 1024,
        }
    }
}

impl LinkLimits {
    /// Between two signs of life.
    pub(super) fn alive(&self) -> Duration {
        self.silence / 3
    }
}

/// One end of a connection: whole messages, in order. Any thread may use it; all calls may wait.
///
/// Not for tasks of an asynchronous runtime, which it would block.
#[derive(Debug)]
pub struct Link {
    peer: String,
    outbox: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
    inbox: Mutex<mpsc::Receiver<Vec<u8>>>,
    counters: Arc<Counters>,
}

impl Link {
    /// A link to `peer`, and the sender of its pieces, which someone must take from the queue.
    pub(super) fn new(
        peer: String,
        pieces: mpsc::Sender<Piece>,
        incoming: Streaming<Piece>,
        counters: Arc<Counters>,
        limits: &LinkLimits,
    ) -> Result<Self> {
        let (outbox, messages) = mpsc::channel(1);
        let (arrived, inbox) = mpsc::channel(1);
        let runtime = runtime()?;
        runtime.spawn(cut(messages, pieces, counters.clone(), limits.alive()));
        let (limit, counted) = (limits.message_bytes, counters.clone());
        runtime.spawn(async move {
            let reason = join(incoming, arrived, counted.clone(), limit).await;
            counted.end(reason);
        });
        Ok(Self {
            peer,
            outbox: Mutex::new(Some(outbox)),
            inbox: Mutex::new(inbox),
            counters,
        })
    }

    /// The name in the other side's certificate; empty without certificates.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Sends a message; waits while the one before it is on its way.
    ///
    /// # Errors
    /// [`Error::Link`] where the link has ended.
    pub fn send(&self, message: Vec<u8>) -> Result<()> {
        let outbox = self.outbox().clone().ok_or_else(|| self.lost())?;
        runtime()?
            .block_on(outbox.send(message))
            .map_err(|_| self.lost())
    }

    /// Sends a message unless the one before it is still on its way then: what was not sent comes back.
    ///
    /// # Errors
    /// [`Error::Link`] where the link has ended.
    pub fn send_until(&self, message: Vec<u8>, until: Instant) -> Result<Option<Vec<u8>>> {
        let outbox = self.outbox().clone().ok_or_else(|| self.lost())?;
        match runtime()?.block_on(async { timeout_at(until.into(), outbox.reserve()).await }) {
            Ok(Ok(place)) => place.send(message),
            Ok(Err(_)) => return Err(self.lost()),
            Err(_) => return Ok(Some(message)),
        }
        Ok(None)
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// [`Error::Link`] where the link has ended.
    pub fn receive(&self) -> Result<Vec<u8>> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let message = runtime()?.block_on(inbox.recv());
        message.ok_or_else(|| self.lost())
    }

    /// Waits for a message until then, or has none.
    ///
    /// # Errors
    /// [`Error::Link`] where the link has ended.
    pub fn receive_until(&self, until: Instant) -> Result<Option<Vec<u8>>> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        match inbox.try_recv() {
            Ok(message) => return Ok(Some(message)),
            Err(mpsc::error::TryRecvError::Disconnected) => return Err(self.lost()),
            Err(mpsc::error::TryRecvError::Empty) => {}
        }
        let message = runtime()?.block_on(async { timeout_at(until.into(), inbox.recv()).await });
        match message {
            Ok(Some(message)) => Ok(Some(message)),
            Ok(None) => Err(self.lost()),
            Err(_) => Ok(None),
        }
    }

    /// Holds what this end sends to a rate, bit/s: a message arrives when a link of this rate would have
    /// carried it. None: as fast as it goes.
    pub fn set_rate(&self, bit_s: Option<f64>) {
        self.counters.set_rate(bit_s);
    }

    /// What it carried so far.
    pub fn counts(&self) -> LinkCounts {
        self.counters.counts()
    }

    /// What came, and in what time, since this was last asked.
    pub(super) fn take_heard(&self) -> Heard {
        self.counters.take_heard()
    }

    /// Ends the link once what was sent is read by the other side, or does not read it.
    pub fn close(&self, reason: &str) {
        self.counters.end(format!("was closed: {reason}"));
        *self.outbox() = None;
        // Someone else may be waiting for a message: it sees the end.
        if let (Ok(mut inbox), Ok(runtime)) = (self.inbox.try_lock(), runtime()) {
            runtime.block_on(flush(&mut inbox, &self.counters));
            inbox.close();
        }
    }

    fn outbox(&self) -> MutexGuard<'_, Option<mpsc::Sender<Vec<u8>>>> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self) -> Error {
        Error::Link {
            peer: if self.peer.is_empty() {
                "the other side".into()
            } else {
                self.peer.clone()
            },
            reason: self.counters.ended(),
        }
    }
}

/// Waits until the other side ends the link, as it does when it has read all, as long as there is something
/// to wait for. Who stopped reading would leave what was sent unread.
async fn flush(inbox: &mut mpsc::Receiver<Vec<u8>>, counters: &Counters) {
    loop {
        let before = counters.sent_bytes();
        match timeout(FLUSH, inbox.recv()).await {
            Ok(None) => return,
            Err(_) if counters.sent_bytes() == before => return,
            _ => {}
        }
    }
}

impl Transport for &Link {
    fn send(&mut self, message: Vec<u8>) -> Result<()> {
        Link::send(self, message)
    }

    fn receive(&mut self) -> Result<Vec<u8>> {
        Link::receive(self)
    }
}

/// The threads behind all links of the process. They do not survive a `fork`.
pub(super) fn runtime() -> Result<Handle> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let build = || {
        Builder::new_multi_thread()
            .worker_threads(THREADS)
            .enable_all()
            .thread_name("sft-net")
            .build()
    };
    match RUNTIME.get_or_init(build) {
        Ok(runtime) => Ok(runtime.handle().clone()),
        Err(e) => Err(Error::argument(
            "threads",
            format!("of links cannot be started: {e}"),
        )),
    }
}
