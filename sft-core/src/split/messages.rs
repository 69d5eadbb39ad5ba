//! What crosses the wireless link between a device and the server.
//!
//! The messages are plain data, so that a network can carry them as well as
//! memory; their sizes are those of the frames really encoded.

use sft_compress::{Codec, TensorView, decode};

use crate::{Error, Result};

/// A mini-batch going up: the compressed activation at the cut, and the labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivationMessage {
    /// The encoded activation `[B, S, D]`.
    pub frame: Vec<u8>,
    /// The class of each sample.
    pub labels: Vec<u32>,
}

impl ActivationMessage {
    /// Bytes on the link: the frame, and four per label.
    pub fn bytes(&self) -> u64 {
        (self.frame.len() + size_of_val(self.labels.as_slice())) as u64
    }
}

/// A mini-batch going down: the compressed gradient of the activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GradientMessage {
    /// The encoded gradient `[B, S, D]`.
    pub frame: Vec<u8>,
}

impl GradientMessage {
    /// Bytes on the link.
    pub fn bytes(&self) -> u64 {
        self.frame.len() as u64
    }
}

/// Adapters, and in FL the head, in either direction: uncompressed, in one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterMessage {
    /// The encoded values, one after the other.
    pub frame: Vec<u8>,
}

impl AdapterMessage {
    /// Encodes vectors, bit for bit, as one frame.
    ///
    /// # Errors
    /// More values than a frame can hold.
    pub fn encode<'a>(vectors: impl IntoIterator<Item = &'a [f32]>) -> Result<Self> {
        let values = vectors.into_iter().collect::<Vec<_>>().concat();
        let frame = Codec::raw().encode(TensorView::new(&values, &[values.len()])?, 0)?;
        Ok(Self { frame })
    }

    /// The vectors again, given their lengths.
    ///
    /// # Errors
    /// A damaged frame, or one that holds another number of values.
    pub fn decode(&self, lengths: &[usize]) -> Result<Vec<Vec<f32>>> {
        let values = decode(&self.frame)?.into_data();
        let expected: usize = lengths.iter().sum();
        if values.len() != expected {
            let got = values.len();
            let reason = format!("must hold {expected} values, got {got}");
            return Err(Error::argument("adapter message", reason));
        }
        let mut rest = values.as_slice();
        let mut part = |&length| {
            let (part, tail) = rest.split_at(length);
            rest = tail;
            part.to_vec()
        };
        Ok(lengths.iter().map(&mut part).collect())
    }

    /// Bytes on the link.
    pub fn bytes(&self) -> u64 {
        self.frame.len() as u64
    }
}

/// Bytes that crossed one device's link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Activations with labels.
    pub up: u64,
    /// Gradients.
    pub down: u64,
    /// Adapters and head from the device.
    pub adapter_up: u64,
    /// Adapters and head to the device.
    pub adapter_down: u64,
}

impl std::ops::Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            up: self.up + other.up,
            down: self.down + other.down,
            adapter_up: self.adapter_up + other.adapter_up,
            adapter_down: self.adapter_down + other.adapter_down,
        }
    }
}

impl std::iter::Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| sum + one)
    }
}

/// A device's connection to the server for one round.
pub trait Link {
    /// The adapter that the round starts with.
    ///
    /// # Errors
    /// The server or the connection failed.
    fn receive_adapter(&mut self) -> Result<AdapterMessage>;

    /// Sends a mini-batch up; waits for its gradient.
    ///
    /// # Errors
    /// The server or the connection failed.
    fn exchange(&mut self, up: &ActivationMessage) -> Result<GradientMessage>;

    /// Sends the adapter that the round ended with.
    ///
    /// # Errors
    /// The server or the connection failed.
    fn send_adapter(&mut self, up: &AdapterMessage) -> Result<()>;
}

/// A link that counts what crosses it.
pub struct Counted<L> {
    link: L,
    traffic: Traffic,
}

impl<L: Link> Counted<L> {
    /// Counts on `link` from zero.
    pub fn new(link: L) -> Self {
        Self {
            link,
            traffic: Traffic::default(),
        }
    }

    /// The link without the counter.
    pub fn into_inner(self) -> L {
        self.link
    }

    /// The bytes so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }
}

impl<L: Link> Link for Counted<L> {
    fn receive_adapter(&mut self) -> Result<AdapterMessage> {
        let down = self.link.receive_adapter()?;
        self.traffic.adapter_down += down.bytes();
        Ok(down)
    }

    fn exchange(&mut self, up: &ActivationMessage) -> Result<GradientMessage> {
        self.traffic.up += up.bytes();
        let down = self.link.exchange(up)?;
        self.traffic.down += down.bytes();
        Ok(down)
    }

    fn send_adapter(&mut self, up: &AdapterMessage) -> Result<()> {
        self.traffic.adapter_up += up.bytes();
        self.link.send_adapter(up)
    }
}
