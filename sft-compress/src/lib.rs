#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

/// Arrays of `ndarray` in and out.
#[cfg(feature = "ndarray")]
mod array;
/// Bit-level reader and writer, least significant bit first.
mod bits;
/// Byte-level reader and writer: fixed-width numbers and varints.
mod bytes;
/// The settings by name: what a caller starts with.
mod codec;
/// Every choice there is.
mod config;
/// The context-coded method.
mod context;
/// Decoding, whole and in parts.
mod decoder;
/// Half-precision numbers.
mod dtype;
/// A tensor to a frame.
mod encode;
/// Encoding with memory to reuse.
mod encoder;
/// Entropy coder of the level indices.
mod entropy;
/// The crate's error.
mod error;
/// The frame: its envelope, verified before anything else, and its header.
mod format;
/// Golomb codes of non-negative integers.
mod golomb;
/// The set of kept positions as Golomb-coded gaps.
mod mask;
/// A logarithm that is the same everywhere.
mod math;
/// The combinations of choices that have a name.
mod named;
/// The paper's method: Top-K, quantization and coding in their order.
mod paper;
/// Work on independent parts.
mod parallel;
/// Stochastic rounding of magnitudes to levels.
mod quantize;
/// The quantization range of the tensor or of each row.
mod ranges;
/// Measured rate and error over the settings.
mod rate;
/// Measuring, and settings for a wanted size or error.
mod search;
/// The elements to keep, as finite numbers.
mod select;
/// Vector instructions: the only unsafe code.
mod simd;
/// Settings as text.
mod spelling;
/// Codecs with memory of earlier messages.
mod state;
/// Shapes, borrowed and owned tensors.
mod tensor;
/// Exact selection of the largest magnitudes.
mod topk;

pub use codec::Codec;
pub use config::{Code, Config, NonFinite, Quantize, Rounding, Spacing, Sparsify};
pub use decoder::{Decoder, Info, decode, decode_expected, decode_limited, inspect};
pub use dtype::Dtype;
pub use encoder::Encoder;
pub use error::{Error, ErrorKind, Result};
pub use quantize::Range;
pub use rate::{Choice, RateTable};
pub use search::{Measure, measure};
pub use state::{Compressor, Context, Decompressor, Direction, ErrorFeedback, SampleId, Stateful};
pub use tensor::{Elements, Tensor, TensorView};

#[doc = include_str!("../FORMAT.md")]
pub mod frame_format {}
