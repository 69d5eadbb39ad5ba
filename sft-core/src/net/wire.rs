//! Messages as pieces of a gRPC stream, and back.
//!
//! A message is cut into pieces, each a gRPC message of its own whose first byte says whether it is the
//! last, so that a receiver holds one message at most and a sender can keep to a rate.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Status, Streaming};

use super::counts::Counters;

/// Where a link is asked for.
pub(super) const PATH: &str = "/sft.Link/Connect";
/// Bytes of a piece.
const PIECE_BYTES: usize = 64 << 10;
/// The same where a rate is kept: a piece leaves once the link would have carried it.
const PACED_PIECE_BYTES: usize = 16 << 10;
/// The clock's resolution: who is ahead by less does not wait.
const TICK: Duration = Duration::from_millis(1);
/// How long what ends together may take to be told.
const FALLING: Duration = Duration::from_millis(20);
/// How a stream may end.
const CLOSED: &str = "was closed by the other side";
const CUT: &str = "was closed in the middle of a message";
/// The first byte of a piece.
const MORE: u8 = 0;
const LAST: u8 = 1;

/// Bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(1 << 10, PIECE_BYTES)
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(1 << 10, PIECE_BYTES)
    }
}

/// The most bytes of a gRPC message of this service.
pub(super) const fn piece_limit() -> usize {
    1 + PIECE_BYTES
}

/// Cuts messages into pieces, at the rate that is set, until there are no more or nobody takes them.
pub(super) async fn cut(
    mut messages: mpsc::Receiver<Vec<u8>>,
    pieces: mpsc::Sender<Bytes>,
    counters: Arc<Counters>,
) {
    let mut free = Instant::now();
    while let Some(message) = messages.recv().await {
        let mut left = Bytes::from(message);
        // A link that was idle begins anew; within a message who woke late catches up.
        free = free.max(Instant::now());
        loop {
            let rate = counters.rate();
            let most = if rate.is_some() {
                PACED_PIECE_BYTES
            } else {
                PIECE_BYTES
            };
            let part = left.split_to(left.len().min(most));
            let mut piece = BytesMut::with_capacity(1 + part.len());
            piece.put_u8(if left.is_empty() { LAST } else { MORE });
            piece.put(part);
            if let Some(bit_s) = rate {
                let time = Duration::from_secs_f64(8.0 * (piece.len() - 1) as f64 / bit_s);
                free += time;
                if free > Instant::now() + TICK || left.is_empty() {
                    sleep_until(free).await;
                }
            }
            let count = piece.len() - 1;
            if pieces.send(piece.freeze()).await.is_err() {
                return;
            }
            counters.sent(count);
            if left.is_empty() {
                break;
            }
        }
    }
}

/// Puts pieces together again; the reason why there are no more.
pub(super) async fn join(
    mut pieces: Streaming<Bytes>,
    messages: mpsc::Sender<Vec<u8>>,
    counters: Arc<Counters>,
    limit: usize,
) -> String {
    // One message is taken before the next is read.
    while let Ok(place) = messages.reserve().await {
        let mut message = Vec::new();
        loop {
            let mut piece = match pieces.message().await {
                Ok(Some(piece)) => piece,
                Ok(None) => {
                    // The connection may have ended for a reason that is told at the same time.
                    sleep(FALLING).await;
                    let told = if message.is_empty() { CLOSED } else { CUT };
                    return told.into();
                }
                Err(status) => return broken(&chain(&status)),
            };
            counters.received(piece.len().saturating_sub(1), message.is_empty());
            let last = match piece.first() {
                Some(&LAST) => true,
                Some(&MORE) if piece.len() > 1 => false,
                _ => return "carried a piece that is none".into(),
            };
            piece.advance(1);
            if message.len() + piece.len() > limit {
                return format!("carried a message of more than the {limit} bytes that are taken");
            }
            if last && message.is_empty() {
                message = piece.into();
            } else {
                message.extend_from_slice(&piece);
            }
            if last {
                break;
            }
        }
        counters.received_message();
        place.send(message);
    }
    "was closed here".into()
}

/// Why a stream or its connection ended, in a few words.
pub(super) fn broken(chain: &str) -> String {
    let has = |words: &[&str]| words.iter().any(|word| chain.contains(word));
    if has(&["keep-alive", "timed out"]) {
        "is silent: the other side does not answer".into()
    } else if has(&[
        "broken pipe",
        "reset",
        "UnexpectedEof",
        "close_notify",
        "body",
    ]) {
        "broke: the other side is gone".into()
    } else {
        format!("broke: {chain}")
    }
}

/// An error with what is behind it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        let more = error.to_string();
        if !text.contains(&more) {
            text += ": ";
            text += &more;
        }
        behind = error.source();
    }
    text
}
