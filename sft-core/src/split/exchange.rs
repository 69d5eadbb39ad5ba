//! A tensor of a mini-batch over the connection, once more where the other side lost what it builds on.

use candle_core::{Device, Tensor};
use sft_compress::{Compressor, Decompressor};

use super::coded::{Crossing, Stream};
use super::message::{Failure, FailureKind, Message};
use super::transport::{Connection, Transport, unexpected};
use crate::{Error, Result};

/// Sends a tensor, and anew if the server lost what it builds on; what comes back.
pub(super) fn exchange<T: Transport>(
    crossing: &Crossing<'_>,
    (stream, tensor): (Stream, &Tensor),
    compressor: &mut dyn Compressor,
    message: impl Fn(Vec<u8>) -> Message,
    connection: &mut Connection<T>,
) -> Result<Message> {
    let mut resent = false;
    loop {
        let frame = crossing.compress(compressor, stream, tensor)?;
        connection.send(&message(frame))?;
        match connection.receive()? {
            Message::Error(failure) if failure.kind == FailureKind::LostReference && !resent => {
                compressor.reset();
                resent = true;
            }
            other => return Ok(other),
        }
    }
}

/// The tensor of the server's reply, which is asked for anew, once, if it builds on what is not there.
pub(super) fn understand<T: Transport>(
    crossing: &Crossing<'_>,
    stream: Stream,
    decompressor: &mut dyn Decompressor,
    (mut reply, device): (Message, &Device),
    connection: &mut Connection<T>,
) -> Result<Tensor> {
    let mut asked = false;
    loop {
        let frame = frame_of(reply, stream, crossing.step)?;
        if let Some(tensor) = crossing.decompress(decompressor, stream, &frame, device)? {
            return Ok(tensor);
        }
        if asked {
            let reason = format!(
                "sent {} that builds on what is not there, twice",
                stream.name()
            );
            return Err(Error::protocol(reason));
        }
        asked = true;
        decompressor.reset();
        connection.send(&lost(stream, crossing.step))?;
        reply = connection.receive()?;
    }
}

/// Checks that the server has a mini-batch of which it sends no gradient.
pub(super) fn received(message: &Message, step: u32) -> Result<()> {
    match *message {
        Message::Received(got) if got == step => Ok(()),
        Message::Received(got) => {
            let reason = format!("received mini-batch {got}, expected {step}");
            Err(Error::protocol(reason))
        }
        _ => Err(unexpected(
            message,
            "no more than that it received the mini-batch",
        )),
    }
}

/// The frame of a message that must be of this stream and mini-batch.
fn frame_of(message: Message, stream: Stream, step: u32) -> Result<Vec<u8>> {
    let coded = match (stream, message) {
        (Stream::Gradient, Message::Gradient(coded))
        | (Stream::Features, Message::Features(coded)) => coded,
        (_, other) => return Err(unexpected(&other, stream.name())),
    };
    if coded.step != step {
        let (name, got) = (stream.name(), coded.step);
        let reason = format!("sent {name} of mini-batch {got} for {step}");
        return Err(Error::protocol(reason));
    }
    Ok(coded.frame)
}

/// That the frame of a tensor builds on what is not there.
pub(super) fn lost(stream: Stream, step: u32) -> Message {
    let name = stream.name();
    Message::Error(Failure {
        kind: FailureKind::LostReference,
        reason: format!("{name} of mini-batch {step} builds on what is not there"),
    })
}
