//! What crosses the link between a device and the server; byte for byte in `MESSAGES.md`.
//!
//! A message may come from anyone: reading one never panics, and allocates no more than a small
//! multiple of its own length.

/// Mini-batches going up.
mod activation;
/// Numbers, texts and lengths as bytes.
mod bytes;
/// What only a network has.
mod network;
/// Tensors that the plan means.
mod tensors;

use serde::{Deserialize, Serialize};

pub use activation::Activation;
pub use network::{Begin, FilePart};
pub use tensors::Tensors;

use self::bytes::{Reader, put_bytes, put_u32, put_varint};
use self::network::{put_names, read_names};
use super::{Bases, RoundPlan};
use crate::{Error, Result};

/// The first bytes of every message.
const MAGIC: [u8; 4] = *b"SFTM";
/// Where the header tells the kind of message.
const KIND_AT: usize = 5;
/// The kind of a [`Hello`], which begins a device's part of a round.
const HELLO: u8 = 1;
/// The kind of an update, which ends it.
const UPDATE: u8 = 6;
/// Raised whenever messages change their meaning; a device and a server must share it.
pub const VERSION: u8 = 3;
/// Magic, version, kind and the length of the body.
pub const HEADER_BYTES: usize = 10;
/// The checksum behind the body.
const CHECKSUM_BYTES: usize = 4;
/// The longest body that is read; a receiver on a network may set a smaller limit.
pub const MAX_BODY_BYTES: usize = 1 << 30;
/// The longest text in a message.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// What crosses the link.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A device wants to take part.
    Hello(Hello),
    /// What it is to do in a round.
    Plan(Box<RoundPlan>),
    /// What its codecs need, if it does not have that.
    Bases(Box<Bases>),
    /// What it starts the round with.
    Adapters(Tensors),
    /// A mini-batch going up.
    Activation(Activation),
    /// Its features coming down to the device, where the labels are.
    Features(Coded),
    /// Their gradient going up.
    FeatureGradient(Coded),
    /// The gradient of the activation coming down.
    Gradient(Coded),
    /// In place of a gradient that nobody needs: the number of the mini-batch that the server has.
    Received(u32),
    /// What the device ended the round with.
    Update(Tensors),
    /// The sender takes no further part, for this reason.
    Leave(String),
    /// The sender could not use the last message.
    Error(Failure),
    /// A device of a server on a network wants to be one of its devices: its number, where it has one.
    Join(Option<u32>),
    /// What it needs to know and to have before any round, as JSON.
    Job(String),
    /// The files of that which it does not have, by name.
    Want(Vec<String>),
    /// A part of such a file.
    FilePart(FilePart),
    /// It has everything, and waits for a round.
    Ready,
    /// A round begins for it.
    Begin(Begin),
    /// In place of what follows a mini-batch: the device ends the round with what it has.
    Enough(u32),
}

/// What a device tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Its number among the devices, from 0.
    pub device: u32,
    /// Its training samples.
    pub samples: u64,
    /// The fingerprint of its model, see [`ModelSpec::fingerprint`](crate::adapter::ModelSpec).
    pub model: u32,
    /// The [name](Bases::name) of the bases that it has, 0 for none.
    pub bases: u32,
    /// The CRC-32 of the adapters that it started its last round with, if it still holds them:
    /// what the server may send the difference to.
    pub held: Option<u32>,
}

/// Another tensor of a mini-batch: the gradient of the activation, `[B, S, D]`, or the features or
/// their gradient, `[B, D]`, in language modelling `[T, D]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coded {
    /// The number of the mini-batch.
    pub step: u32,
    /// The compressed tensor.
    pub frame: Vec<u8>,
}

/// Why a message could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the other side can do.
    pub kind: FailureKind,
    /// What was wrong, for a person.
    pub reason: String,
}

/// What the receiver of a [`Failure`] can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// Forget the codec's memory, and send the tensor anew: the sender does not have what it
    /// builds on.
    LostReference,
    /// Nothing: the sender ends the connection.
    Refused,
}

impl Message {
    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => HELLO,
            Self::Plan(_) => 2,
            Self::Adapters(_) => 3,
            Self::Activation(_) => 4,
            Self::Gradient(_) => 5,
            Self::Update(_) => UPDATE,
            Self::Leave(_) => 7,
            Self::Error(_) => 8,
            Self::Bases(_) => 9,
            Self::Received(_) => 10,
            Self::Features(_) => 11,
            Self::FeatureGradient(_) => 12,
            Self::Join(_) => 13,
            Self::Job(_) => 14,
            Self::Want(_) => 15,
            Self::FilePart(_) => 16,
            Self::Ready => 17,
            Self::Begin(_) => 18,
            Self::Enough(_) => 19,
        }
    }

    /// The message's name, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Plan(_) => "plan",
            Self::Bases(_) => "bases",
            Self::Adapters(_) => "adapters",
            Self::Activation(_) => "activation",
            Self::Features(_) => "features",
            Self::FeatureGradient(_) => "the gradient of features",
            Self::Gradient(_) => "gradient",
            Self::Received(_) => "received",
            Self::Update(_) => "update",
            Self::Leave(_) => "leave",
            Self::Error(_) => "error",
            Self::Join(_) => "join",
            Self::Job(_) => "job",
            Self::Want(_) => "want",
            Self::FilePart(_) => "a part of a file",
            Self::Ready => "ready",
            Self::Begin(_) => "begin",
            Self::Enough(_) => "enough",
        }
    }

    /// Bytes of the frame in it, and of labels: what is counted as payload.
    pub(super) fn payload_bytes(&self) -> u64 {
        let bytes = match self {
            Self::Adapters(tensors) | Self::Update(tensors) => tensors.frame.len(),
            Self::Activation(up) => up.frame.len() + up.label_bytes().len(),
            Self::Gradient(coded) | Self::Features(coded) | Self::FeatureGradient(coded) => {
                coded.frame.len()
            }
            Self::Bases(bases) => bases.to_bytes().len(),
            _ => 0,
        };
        bytes as u64
    }

    /// The message as bytes.
    ///
    /// # Errors
    /// A body of 1 GiB or more.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = [MAGIC.as_slice(), &[VERSION, self.kind()], &[0; 4]].concat();
        self.put_body(&mut bytes)?;
        let length = bytes.len() - HEADER_BYTES;
        match u32::try_from(length) {
            Ok(short) if length <= MAX_BODY_BYTES => {
                bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&short.to_le_bytes());
            }
            _ => {
                let reason = format!("must be at most {MAX_BODY_BYTES} bytes, got {length}");
                return Err(Error::argument("message", reason));
            }
        }
        let checksum = crc32fast::hash(&bytes);
        put_u32(&mut bytes, checksum);
        Ok(bytes)
    }

    fn put_body(&self, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Hello(hello) => {
                put_u32(out, hello.device);
                put_varint(out, hello.samples);
                put_u32(out, hello.model);
                put_u32(out, hello.bases);
                out.push(u8::from(hello.held.is_some()));
                hello.held.into_iter().for_each(|sum| put_u32(out, sum));
            }
            Self::Plan(plan) => {
                let json = serde_json::to_vec(plan);
                out.extend(json.map_err(|e| Error::argument("plan", e.to_string()))?);
            }
            Self::Adapters(tensors) | Self::Update(tensors) => tensors.put(out),
            Self::Bases(bases) => out.extend(bases.to_bytes()),
            Self::Activation(activation) => activation.put(out),
            Self::Gradient(coded) | Self::Features(coded) | Self::FeatureGradient(coded) => {
                put_u32(out, coded.step);
                out.extend(&coded.frame);
            }
            Self::Received(step) | Self::Enough(step) => put_u32(out, *step),
            Self::Leave(reason) => put_bytes(out, reason.as_bytes()),
            Self::Error(failure) => {
                out.push(match failure.kind {
                    FailureKind::LostReference => 1,
                    FailureKind::Refused => 2,
                });
                put_bytes(out, failure.reason.as_bytes());
            }
            Self::Join(number) => {
                out.push(u8::from(number.is_some()));
                if let Some(number) = number {
                    put_u32(out, *number);
                }
            }
            Self::Job(json) => out.extend(json.as_bytes()),
            Self::Want(names) => put_names(names, out),
            Self::FilePart(part) => part.put(out),
            Self::Ready => {}
            Self::Begin(begin) => begin.put(out),
        }
        Ok(())
    }

    /// The length of the body, from the first [`HEADER_BYTES`] of a message.
    ///
    /// # Errors
    /// Bytes that are no header of this version, or a body of more than `limit` bytes.
    pub fn body_bytes(header: &[u8], limit: usize) -> Result<usize> {
        let mut reader = Reader::new(header);
        if reader.take(4)? != MAGIC {
            return Err(Error::protocol("sent what is no message"));
        }
        let version = reader.byte()?;
        if version != VERSION {
            let reason = format!("speaks version {version} of the protocol, this is {VERSION}");
            return Err(Error::protocol(reason));
        }
        reader.byte()?;
        let length = reader.u32()? as usize;
        if length > limit.min(MAX_BODY_BYTES) {
            let reason = format!("sent a message of {length} bytes, at most {limit} are taken");
            return Err(Error::protocol(reason));
        }
        Ok(length)
    }

    /// Bytes of the whole message whose header is given.
    ///
    /// # Errors
    /// As [`Self::body_bytes`].
    pub fn total_bytes(header: &[u8], limit: usize) -> Result<usize> {
        Ok(HEADER_BYTES + Self::body_bytes(header, limit)? + CHECKSUM_BYTES)
    }

    /// Reads one whole message.
    ///
    /// # Errors
    /// Bytes that are no message of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let length = Self::body_bytes(bytes, MAX_BODY_BYTES)?;
        if bytes.len() != HEADER_BYTES + length + CHECKSUM_BYTES {
            return Err(Error::protocol(
                "sent a message of another length than it says",
            ));
        }
        let (message, checksum) = bytes.split_at(HEADER_BYTES + length);
        if crc32fast::hash(message) != Reader::new(checksum).u32()? {
            return Err(Error::protocol(
                "sent a message that was damaged on the way",
            ));
        }
        let mut body = Reader::new(&message[HEADER_BYTES..]);
        let read = Self::read_body(message[KIND_AT], &mut body)?;
        body.end()?;
        Ok(read)
    }

    fn read_body(kind: u8, body: &mut Reader<'_>) -> Result<Self> {
        Ok(match kind {
            HELLO => Self::Hello(Hello {
                device: body.u32()?,
                samples: body.varint()?,
                model: body.u32()?,
                bases: body.u32()?,
                held: body.flag("a hello")?.then(|| body.u32()).transpose()?,
            }),
            2 => {
                let plan = serde_json::from_slice(body.rest());
                Self::Plan(plan.map_err(|e| Error::protocol(format!("sent a bad plan: {e}")))?)
            }
            3 => Self::Adapters(Tensors::read(body)?),
            4 => Self::Activation(Activation::read(body)?),
            5 => Self::Gradient(Coded::read(body)?),
            UPDATE => Self::Update(Tensors::read(body)?),
            7 => Self::Leave(body.text(MAX_TEXT_BYTES)?),
            8 => {
                let kind = match body.byte()? {
                    1 => FailureKind::LostReference,
                    2 => FailureKind::Refused,
                    other => {
                        let reason = format!("sent an error of the unknown kind {other}");
                        return Err(Error::protocol(reason));
                    }
                };
                let reason = body.text(MAX_TEXT_BYTES)?;
                Self::Error(Failure { kind, reason })
            }
            9 => Self::Bases(Box::new(Bases::from_bytes(body.rest())?)),
            10 => Self::Received(body.u32()?),
            11 => Self::Features(Coded::read(body)?),
            12 => Self::FeatureGradient(Coded::read(body)?),
            13 => Self::Join(body.flag("a join")?.then(|| body.u32()).transpose()?),
            14 => {
                let json = std::str::from_utf8(body.rest());
                let json = json.map_err(|_| Error::protocol("sent a job that is not UTF-8"))?;
                Self::Job(json.into())
            }
            15 => Self::Want(read_names(body)?),
            16 => Self::FilePart(FilePart::read(body)?),
            17 => Self::Ready,
            18 => Self::Begin(Begin::read(body)?),
            19 => Self::Enough(body.u32()?),
            other => {
                let reason = format!("sent a message of the unknown kind {other}");
                return Err(Error::protocol(reason));
            }
        })
    }
}

impl Coded {
    fn read(body: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            step: body.u32()?,
            frame: body.rest().to_vec(),
        })
    }
}
