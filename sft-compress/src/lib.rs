#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

/// Bit-level reader and writer, least significant bit first.
mod bits;
/// Byte-level reader and writer: fixed-width numbers and varints.
mod bytes;
/// The settings, encode and decode: what a caller uses.
mod codec;
/// Entropy coder of the level indices.
mod entropy;
/// The crate's error.
mod error;
/// The frame: its envelope, verified before anything else, and its header.
mod format;
/// Golomb code of non-negative integers.
mod golomb;
/// The set of kept positions as Golomb-coded gaps.
mod mask;
/// The paper's method: Top-K, quantization and coding in their order.
mod paper;
/// Stochastic rounding of magnitudes to levels.
mod quantize;
/// The quantization range of the tensor or of each row.
mod ranges;
/// Shapes, borrowed and owned tensors.
mod tensor;
/// Exact selection of the largest magnitudes.
mod topk;

pub use codec::{Codec, decode, decode_limited};
pub use error::{Error, ErrorKind, Result};
pub use quantize::Range;
pub use tensor::{Tensor, TensorView};

#[doc = include_str!("../FORMAT.md")]
pub mod frame_format {}
