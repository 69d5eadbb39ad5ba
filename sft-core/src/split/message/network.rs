//! What only devices on a network say and hear.

use super::MAX_TEXT_BYTES;
use super::bytes::{Reader, put_bytes, put_u32, put_varint};
#[cfg(feature = "net")]
use super::{HELLO, KIND_AT, Message, UPDATE};
use crate::{Error, Result};

/// The most files that one message asks for.
const MAX_FILES: usize = 64;

/// A part of a file; the parts come in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePart {
    /// The file's name.
    pub name: String,
    /// Where the part begins, bytes.
    pub offset: u64,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// The beginning of a device's round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The round, from 1.
    pub round: u32,
    /// The last round whose end both sides' codecs remember, 0 for none.
    pub since: u32,
    /// The rate that the device holds its uplink to, bit/s; 0 for none.
    pub uplink_bit_s: u64,
}

impl FilePart {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.name.as_bytes());
        put_varint(out, self.offset);
        out.extend(&self.bytes);
    }

    pub(super) fn read(body: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            name: body.text(MAX_TEXT_BYTES)?,
            offset: body.varint()?,
            bytes: body.rest().to_vec(),
        })
    }
}

impl Begin {
    pub(super) fn put(self, out: &mut Vec<u8>) {
        put_u32(out, self.round);
        put_u32(out, self.since);
        put_varint(out, self.uplink_bit_s);
    }

    pub(super) fn read(body: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            round: body.u32()?,
            since: body.u32()?,
            uplink_bit_s: body.varint()?,
        })
    }
}

/// Writes names of files.
pub(super) fn put_names(names: &[String], out: &mut Vec<u8>) {
    put_varint(out, names.len() as u64);
    for name in names {
        put_bytes(out, name.as_bytes());
    }
}

/// Reads names of files.
pub(super) fn read_names(body: &mut Reader<'_>) -> Result<Vec<String>> {
    let count = body.count(1)?;
    if count > MAX_FILES {
        let reason = format!("wants {count} files, at most {MAX_FILES} are told");
        return Err(Error::protocol(reason));
    }
    (0..count).map(|_| body.text(MAX_TEXT_BYTES)).collect()
}

#[cfg(feature = "net")]
impl Message {
    /// Whether encoded bytes say that they are neither the beginning nor the end of a device's part of a
    /// round.
    pub(crate) fn is_step(bytes: &[u8]) -> bool {
        !matches!(bytes.get(KIND_AT), Some(&(HELLO | UPDATE)))
    }
}

#[cfg(all(test, feature = "net"))]
mod tests {
    use super::super::{Hello, Tensors};
    use super::*;

    #[test]
    fn beginnings_and_ends_of_rounds_are_no_steps() {
        let hello = Hello {
            device: 0,
            samples: 1,
            model: 0,
            bases: 0,
            held: None,
        };
        let tensors = || Tensors {
            layout: 0,
            difference: false,
            frame: Vec::new(),
        };
        let is_step = |message: Message| Message::is_step(&message.encode().unwrap());
        assert!(!is_step(Message::Hello(hello)));
        assert!(!is_step(Message::Update(tensors())));
        assert!(is_step(Message::Received(0)));
        assert!(is_step(Message::Adapters(tensors())));
    }
}
