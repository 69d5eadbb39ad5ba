//! Messages as pieces of a gRPC stream, and back.
//!
//! A message is cut into pieces, each a gRPC message of its own whose first byte says whether it is the
//! last, so that a receiver holds one message at most and a sender can keep to a rate.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Status, Streaming};

use super::counts::Counters;
use super::heard::SILENT;

/// Where a link is asked for.
pub(super) const PATH: &str = "/sft.Link/Connect";
/// Bytes of a piece, as many as HTTP/2 puts into a frame: each link of a server holds some of them. Where a
/// rate is kept, a piece leaves once the link would have carried it.
const PIECE_BYTES: usize = 16 << 10;
/// The clock's resolution: who is ahead by less does not wait.
const TICK: Duration = Duration::from_millis(1);
/// How long what ends together may take to be told.
const FALLING: Duration = Duration::from_millis(20);
/// The least bytes of a piece at low rates.
const LEAST_PIECE_BYTES: usize = 256;
/// How long a link that was let go waits for the other side to let go too.
const LINGER: Duration = Duration::from_secs(10);
/// How a stream may end.
const CLOSED: &str = "was closed by the other side";
const HERE: &str = "was closed here";
const CUT: &str = "was closed in the middle of a message";
/// The first byte of a piece.
const MORE: u8 = 0;
const LAST: u8 = 1;
const ALIVE: u8 = 2;

/// What crosses a link at once.
#[derive(Debug)]
pub(super) enum Piece {
    /// A part of a message, and whether it is the last.
    Part(Bytes, bool),
    /// A sign of life where there is nothing to send.
    Alive,
}

/// Pieces as bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pieces;

impl Codec for Pieces {
    type Encode = Piece;
    type Decode = Piece;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Pieces {
    type Item = Piece;
    type Error = Status;

    fn encode(&mut self, piece: Piece, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match piece {
            Piece::Part(bytes, last) => {
                to.put_u8(if last { LAST } else { MORE });
                to.put(bytes);
            }
            Piece::Alive => to.put_u8(ALIVE),
        }
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(1 << 10, PIECE_BYTES)
    }
}

impl Decoder for Pieces {
    type Item = Piece;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Piece>, Status> {
        let kind = from.has_remaining().then(|| from.get_u8());
        let bytes = from.copy_to_bytes(from.remaining());
        match kind {
            Some(LAST) => Ok(Some(Piece::Part(bytes, true))),
            Some(MORE) if !bytes.is_empty() => Ok(Some(Piece::Part(bytes, false))),
            Some(ALIVE) if bytes.is_empty() => Ok(Some(Piece::Alive)),
            _ => Err(Status::data_loss("it carried a piece that is none")),
        }
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(1 << 10, PIECE_BYTES)
    }
}

/// The most bytes of a gRPC message of this service.
pub(super) const fn piece_limit() -> usize {
    1 + PIECE_BYTES
}

/// Cuts messages into pieces, at the rate that is set, until there are no more or nobody takes them. Where
/// there is nothing to send for as long as `idle`, a sign of life goes.
pub(super) async fn cut(
    mut messages: mpsc::Receiver<Vec<u8>>,
    pieces: mpsc::Sender<Piece>,
    counters: Arc<Counters>,
    idle: Duration,
) {
    let mut free = Instant::now();
    loop {
        let message = match timeout(idle, messages.recv()).await {
            Ok(Some(message)) => message,
            Err(_) if pieces.send(Piece::Alive).await.is_ok() => continue,
            Ok(None) | Err(_) => return,
        };
        let mut left = Bytes::from(message);
        // A link that was idle begins anew; within a message who woke late catches up.
        free = free.max(Instant::now());
        loop {
            let rate = counters.rate();
            let most = rate.map_or(PIECE_BYTES, |bit_s| paced_piece_bytes(bit_s, idle));
            let bytes = left.split_to(left.len().min(most));
            let (count, last) = (bytes.len(), left.is_empty());
            if let Some(bit_s) = rate {
                free += Duration::from_secs_f64(8.0 * count as f64 / bit_s);
                if free > Instant::now() + TICK || last {
                    sleep_until(free).await;
                }
            }
            if pieces.send(Piece::Part(bytes, last)).await.is_err() {
                return;
            }
            counters.sent(count);
            if last {
                break;
            }
        }
    }
}

/// Bytes of a piece at a rate: none takes longer than `most`, or it would look like silence.
fn paced_piece_bytes(bit_s: f64, most: Duration) -> usize {
    ((bit_s / 8.0 * most.as_secs_f64()) as usize).clamp(LEAST_PIECE_BYTES, PIECE_BYTES)
}

/// Puts pieces together again; the reason why there are no more.
pub(super) async fn join(
    mut pieces: Streaming<Piece>,
    messages: mpsc::Sender<Vec<u8>>,
    counters: Arc<Counters>,
    limit: usize,
) -> String {
    let (mut message, mut place) = (Vec::new(), None);
    loop {
        let piece = select! {
            piece = pieces.message() => piece,
            () = messages.closed() => break,
        };
        let (bytes, last) = match piece {
            Ok(Some(Piece::Part(bytes, last))) => (bytes, last),
            Ok(Some(Piece::Alive)) => continue,
            Ok(None) => {
                // The connection may have ended for a reason that is told at the same time.
                sleep(FALLING).await;
                let told = if message.is_empty() { CLOSED } else { CUT };
                return told.into();
            }
            Err(status) => return broken(&chain(&status)),
        };
        counters.received(bytes.len());
        if message.len() + bytes.len() > limit {
            return format!("carried a message of more than the {limit} bytes that are taken");
        }
        // One message is taken before more than a piece of the next is read.
        if place.is_none() {
            let Ok(free) = messages.reserve().await else {
                break;
            };
            place = Some(free);
        }
        if last && message.is_empty() {
            message = bytes.into();
        } else {
            message.extend_from_slice(&bytes);
        }
        if let Some(place) = place.take_if(|_| last) {
            counters.received_message(message.len());
            place.send(std::mem::take(&mut message));
        }
    }
    linger(pieces).await
}

/// Gives the other side time to read what was sent: a link that is not read any more takes it with it.
async fn linger(mut pieces: Streaming<Piece>) -> String {
    let rest = async { while let Ok(Some(_)) = pieces.message().await {} };
    let _ = timeout(LINGER, rest).await;
    HERE.into()
}

/// Why a stream or its connection ended, in a few words.
pub(super) fn broken(chain: &str) -> String {
    let has = |words: &[&str]| words.iter().any(|word| chain.contains(word));
    if has(&["timed out"]) {
        SILENT.into()
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
