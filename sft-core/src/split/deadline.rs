//! A server that does not wait for ever.

use std::time::{Duration, Instant};

use super::memory::Serve;
use super::message::Message;
use crate::{Error, Result};

/// A server's side that gives up on a device which is late, by the clock of the server.
///
/// Whoever is given up on is out of this round: nothing of it is averaged.
pub struct Deadline<S> {
    side: S,
    device: u32,
    limit: Option<(Instant, Duration)>,
}

impl<S> Deadline<S> {
    /// Counts `seconds` from now; without a number it waits for ever.
    pub fn new(side: S, device: u32, seconds: Option<f64>) -> Self {
        let limit = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let now = Instant::now();
        Self {
            side,
            device,
            limit: limit.and_then(|limit| now.checked_add(limit).map(|until| (until, limit))),
        }
    }

    /// The server's side.
    pub fn into_side(self) -> S {
        self.side
    }
}

impl<S: Serve> Serve for Deadline<S> {
    fn handle(&mut self, message: Message) -> Result<Vec<Message>> {
        match self.limit {
            Some((until, limit)) if Instant::now() >= until => Err(Error::Late {
                device: self.device as usize,
                deadline_s: limit.as_secs_f64(),
            }),
            _ => self.side.handle(message),
        }
    }

    fn is_done(&self) -> bool {
        self.side.is_done()
    }

    fn end_early(&mut self) {
        self.side.end_early();
    }
}
