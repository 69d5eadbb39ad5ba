//! What carries messages between a device and the server, and what crossed.

use sft_compress::inspect;

use super::message::Message;
use crate::{Error, Result};

/// A device's connection to the server. Messages are whole and arrive in order.
pub trait Transport {
    /// Sends a message.
    ///
    /// # Errors
    /// The connection or the server failed.
    fn send(&mut self, message: Vec<u8>) -> Result<()>;

    /// Waits for a message.
    ///
    /// # Errors
    /// The connection or the server failed.
    fn receive(&mut self) -> Result<Vec<u8>>;
}

/// What crossed one device's link: bytes, and how many messages held nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames of activations and of the gradient of features, and labels.
    pub up: u64,
    /// Frames of gradients and features, and bases.
    pub down: u64,
    /// Frames of adapters and head from the device.
    pub adapter_up: u64,
    /// Frames of adapters and head to the device.
    pub adapter_down: u64,
    /// Everything else from the device: other messages, names, sample numbers, headers.
    pub protocol_up: u64,
    /// Everything else to the device.
    pub protocol_down: u64,
    /// Tensors in `up` that decode to zero: of one that was not zero, the codec kept nothing.
    pub zero_up: u64,
    /// Tensors in `down` that decode to zero.
    pub zero_down: u64,
}

impl Traffic {
    /// What a message from the device adds.
    pub(crate) fn sent(message: &Message, bytes: u64) -> Self {
        let (frame, zero) = (message.payload_bytes(), Self::default());
        let protocol_up = bytes - frame;
        match message {
            Message::Activation(sent) => Self {
                zero_up: u64::from(is_zero(&sent.frame)),
                up: frame,
                protocol_up,
                ..zero
            },
            Message::FeatureGradient(sent) => Self {
                zero_up: u64::from(is_zero(&sent.frame)),
                up: frame,
                protocol_up,
                ..zero
            },
            Message::Update(_) => Self {
                adapter_up: frame,
                protocol_up,
                ..zero
            },
            _ => Self {
                protocol_up: bytes,
                ..zero
            },
        }
    }

    /// What a message to the device adds.
    pub(crate) fn received(message: &Message, bytes: u64) -> Self {
        let (frame, zero) = (message.payload_bytes(), Self::default());
        let protocol_down = bytes - frame;
        match message {
            Message::Gradient(sent) | Message::Features(sent) => Self {
                zero_down: u64::from(is_zero(&sent.frame)),
                down: frame,
                protocol_down,
                ..zero
            },
            Message::Bases(_) => Self {
                down: frame,
                protocol_down,
                ..zero
            },
            Message::Adapters(_) => Self {
                adapter_down: frame,
                protocol_down,
                ..zero
            },
            _ => Self {
                protocol_down: bytes,
                ..zero
            },
        }
    }
}

/// More bytes than a frame has that keeps nothing.
const EMPTY_BYTES: usize = 128;

fn is_zero(frame: &[u8]) -> bool {
    frame.len() < EMPTY_BYTES && inspect(frame).is_ok_and(|info| info.kept == 0)
}

impl std::ops::Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            up: self.up + other.up,
            down: self.down + other.down,
            adapter_up: self.adapter_up + other.adapter_up,
            adapter_down: self.adapter_down + other.adapter_down,
            protocol_up: self.protocol_up + other.protocol_up,
            protocol_down: self.protocol_down + other.protocol_down,
            zero_up: self.zero_up + other.zero_up,
            zero_down: self.zero_down + other.zero_down,
        }
    }
}

impl std::iter::Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| sum + one)
    }
}

/// A device's end of a transport: messages instead of bytes, and a count of what crossed.
pub struct Connection<T> {
    transport: T,
    traffic: Traffic,
}

impl<T: Transport> Connection<T> {
    /// Counts from zero.
    pub fn new(transport: T) -> Self {
        Self {
            transport,
            traffic: Traffic::default(),
        }
    }

    /// The bytes so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// What carries the messages.
    pub fn into_transport(self) -> T {
        self.transport
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The connection or the server failed.
    pub fn send(&mut self, message: &Message) -> Result<()> {
        let bytes = message.encode()?;
        self.traffic = self.traffic + Traffic::sent(message, bytes.len() as u64);
        self.transport.send(bytes)
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// The connection or the server failed, or bytes that are no message.
    pub fn receive(&mut self) -> Result<Message> {
        let bytes = self.transport.receive()?;
        let message = Message::decode(&bytes)?;
        self.traffic = self.traffic + Traffic::received(&message, bytes.len() as u64);
        Ok(message)
    }
}

/// The error for a message that does not belong here.
pub(crate) fn unexpected(message: &Message, wanted: &str) -> Error {
    match message {
        Message::Leave(reason) => Error::protocol(format!("left: {reason}")),
        Message::Error(failure) => Error::protocol(format!("failed: {}", failure.reason)),
        other => Error::protocol(format!("sent {}, expected {wanted}", other.name())),
    }
}
