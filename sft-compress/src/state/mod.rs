//! Codecs with memory of earlier messages, and the plain ones as the case without.

/// What was dropped from one message, for the next.
mod feedback;
/// Samples of a message by a basis.
mod parts;
/// The codecs without memory.
mod plain;
/// The rows of earlier messages.
mod rows;
/// What samples were last time.
mod samples;
/// Where they lie in a message.
mod sizes;
/// The codec of a basis.
mod transform;

use crate::error::{Error, Result};
use crate::tensor::{Tensor, TensorView};

pub use feedback::ErrorFeedback;
pub use transform::{TransformDecoder, TransformEncoder};

/// The number of a sample in its data set, the same whenever it is seen.
pub type SampleId = u64;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the device to the server: activations.
    Up,
    /// From the server to the device: gradients.
    Down,
}

/// What both sides know about a message without being told by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Context<'a> {
    /// The shape of the tensor.
    pub shape: &'a [usize],
    /// Decides random roundings; a new one for every message. Only compressors
    /// use it.
    pub seed: u64,
    /// The number of each sample; empty where samples have none. A sample is an
    /// index of the first dimension, or as many rows as `lengths` says.
    pub samples: &'a [SampleId],
    /// The tokens of each sample, where samples of several lengths are one
    /// tensor `[S, D]`, one after the other; else empty.
    pub lengths: &'a [usize],
    /// Passes over the data before this one.
    pub epoch: u32,
    /// Which way the message goes.
    pub direction: Direction,
}

impl<'a> Context<'a> {
    /// The context of an activation of samples without numbers, in epoch 0.
    pub fn new(shape: &'a [usize], seed: u64) -> Self {
        Self {
            shape,
            seed,
            samples: &[],
            lengths: &[],
            epoch: 0,
            direction: Direction::Up,
        }
    }

    /// The same context for the samples with these numbers.
    #[must_use]
    pub fn with_samples(self, samples: &'a [SampleId]) -> Self {
        Self { samples, ..self }
    }

    /// The same context for samples of so many tokens.
    #[must_use]
    pub fn with_lengths(self, lengths: &'a [usize]) -> Self {
        Self { lengths, ..self }
    }

    /// The same context in another epoch.
    #[must_use]
    pub fn with_epoch(self, epoch: u32) -> Self {
        Self { epoch, ..self }
    }

    /// The same context for a message of this direction.
    #[must_use]
    pub fn with_direction(self, direction: Direction) -> Self {
        Self { direction, ..self }
    }

    /// Checks that there are as many samples as the shape or the lengths say, or
    /// none, that lengths add up, and that a tensor to compress has the shape.
    ///
    /// # Errors
    /// `InvalidArgument` if not.
    pub fn check(&self, tensor: Option<TensorView<'_>>) -> Result<()> {
        let (first, samples) = (self.shape.first().copied(), self.samples.len());
        if !self.lengths.is_empty() {
            let sum = self
                .lengths
                .iter()
                .try_fold(0, |sum: usize, &len| sum.checked_add(len));
            if self.shape.len() != 2 || sum != first {
                return Err(Error::invalid(format!(
                    "lengths must add up to the rows of a tensor [S, D], got {sum:?} for shape {:?}",
                    self.shape
                )));
            }
            if samples != 0 && samples != self.lengths.len() {
                return Err(Error::invalid(format!(
                    "samples must be one for each of the {} lengths, or none, got {samples}",
                    self.lengths.len()
                )));
            }
        } else if samples != 0 && Some(samples) != first {
            return Err(Error::invalid(format!(
                "samples must be one for each index of the first dimension of shape {:?}, or \
                 none, got {samples}",
                self.shape
            )));
        }
        match tensor {
            Some(tensor) if tensor.shape() != self.shape => Err(Error::invalid(format!(
                "shape must be {:?}, got {:?}",
                self.shape,
                tensor.shape()
            ))),
            _ => Ok(()),
        }
    }
}

/// A memory of earlier messages, which can be saved, restored and forgotten.
///
/// The codecs without memory have an empty one.
pub trait Stateful: Send {
    /// Forgets everything: the next message builds on nothing.
    fn reset(&mut self);

    /// The memory as bytes, for [`restore`](Self::restore).
    ///
    /// # Errors
    /// `TooLarge` if a tensor of it needs 4 GiB or more.
    fn save(&self) -> Result<Vec<u8>>;

    /// Takes over a memory that [`save`](Self::save) gave, of a codec with the
    /// same settings. The bytes may come from anyone: they are checked, and
    /// memory is allocated in proportion to them.
    ///
    /// # Errors
    /// By what is wrong with the bytes, as [`decode`](crate::decode); the memory
    /// is then as before.
    fn restore(&mut self, state: &[u8]) -> Result<()>;
}

/// The sending side of a codec that may remember earlier messages.
///
/// Each stream of messages, of one device in one direction, has a compressor
/// and at the other end a [`Decompressor`] that sees the same messages in the
/// same order with the same [`Context`].
///
/// A message may build on what both sides remember. If the receiver does not
/// have it, after a restart say, it fails with
/// [`LostReference`](crate::ErrorKind::LostReference) and tells the sender;
/// both [reset](Stateful::reset), and the sender compresses the tensor anew.
///
/// ```
/// # fn main() -> sft_compress::Result<()> {
/// use sft_compress::{
///     Codec, Compressor, Context, Decompressor, ErrorFeedback, Tensor, TensorView,
/// };
///
/// // One element of three, and what was dropped comes later.
/// let mut sender: Box<dyn Compressor> = Box::new(ErrorFeedback::new(Codec::paper(0.34, 2)?));
/// let mut receiver: Box<dyn Decompressor> = Box::new(Codec::paper(0.34, 2)?);
/// let (mut message, mut received, mut sum) = (Vec::new(), Tensor::default(), [0.0; 3]);
/// for seed in 0..10 {
///     let (x, context) = ([1.0, 0.4, 0.4], Context::new(&[3], seed));
///     sender.compress(TensorView::new(&x, &[3])?, &context, &mut message, None)?;
///     receiver.decompress(&message, &context, &mut received)?;
///     sum = std::array::from_fn(|i| sum[i] + received.data()[i]);
/// }
/// assert!((sum[1] - 4.0).abs() < 1.5);
/// # Ok(())
/// # }
/// ```
pub trait Compressor: Stateful {
    /// Compresses a tensor to a message, which replaces the content of
    /// `message`; what the receiver will make of it replaces `decoded`, where
    /// that is asked for.
    ///
    /// # Errors
    /// As [`Codec::encode`](crate::Codec::encode), and `InvalidArgument` if the
    /// context is not that of the tensor. The memory is then as before, and
    /// `message` holds none.
    fn compress(
        &mut self,
        tensor: TensorView<'_>,
        context: &Context<'_>,
        message: &mut Vec<u8>,
        decoded: Option<&mut Tensor>,
    ) -> Result<()>;

    /// Whether messages drop something that later ones could make up for. What
    /// rounds at random drops nothing on average, and its errors are too large to
    /// be added up.
    fn owes(&self) -> bool {
        true
    }
}

/// The receiving side of a [`Compressor`].
pub trait Decompressor: Stateful {
    /// Makes a tensor of the context's shape of a message; it replaces `tensor`.
    ///
    /// The message may come from anyone: no bytes make this panic.
    ///
    /// # Errors
    /// As [`decode_expected`](crate::decode_expected), and `LostReference` if
    /// the message builds on what is not remembered. The memory is then as
    /// before, and `tensor` is empty.
    fn decompress(
        &mut self,
        message: &[u8],
        context: &Context<'_>,
        tensor: &mut Tensor,
    ) -> Result<()>;
}

impl<C: Stateful + ?Sized> Stateful for Box<C> {
    fn reset(&mut self) {
        (**self).reset();
    }

    fn save(&self) -> Result<Vec<u8>> {
        (**self).save()
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        (**self).restore(state)
    }
}

impl<C: Compressor + ?Sized> Compressor for Box<C> {
    fn compress(
        &mut self,
        tensor: TensorView<'_>,
        context: &Context<'_>,
        message: &mut Vec<u8>,
        decoded: Option<&mut Tensor>,
    ) -> Result<()> {
        (**self).compress(tensor, context, message, decoded)
    }
}

impl<D: Decompressor + ?Sized> Decompressor for Box<D> {
    fn decompress(
        &mut self,
        message: &[u8],
        context: &Context<'_>,
        tensor: &mut Tensor,
    ) -> Result<()> {
        (**self).decompress(message, context, tensor)
    }
}
