#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

// From the caller down to the processor; each imports only from those below it.

/// Codecs with memory of earlier messages.
mod state;
/// A basis that both sides know.
mod transform;

/// What a codec makes of a tensor, and settings for a wanted size or error.
mod measure;

/// Decoding, whole and in parts.
mod decoder;
/// Encoding with memory to reuse.
mod encoder;
/// Settings as text.
mod spelling;

/// The settings by name: what a caller starts with.
mod codec;
/// The combinations of choices that have a name.
mod named;

/// A tensor to a frame.
mod encode;

/// How it is coded: raw, the paper's way, by context.
mod method;
/// What is kept: the elements to code, as finite numbers.
mod select;
/// What a value becomes: levels, steps, halves; indices and tokens.
mod value;

/// Numbers to bits and bytes, and back.
mod coding;
/// Every choice there is.
mod config;
/// The frame: its envelope, verified before anything else, and its header.
mod format;

/// Arrays of `ndarray` in and out.
#[cfg(feature = "ndarray")]
mod array;
/// Shapes, borrowed and owned tensors.
mod tensor;

/// Half-precision numbers.
mod dtype;
/// The crate's error.
mod error;
/// A logarithm that is the same everywhere.
mod math;
/// Work on independent parts.
mod parallel;
/// Vector instructions: the only unsafe code.
mod simd;

pub use codec::Codec;
pub use config::{Code, Config, Energy, NonFinite, Quantize, Range, Rounding, Spacing, Sparsify};
pub use decoder::{Decoder, Info, decode, decode_expected, decode_limited, inspect};
pub use dtype::Dtype;
pub use encoder::Encoder;
pub use error::{Error, ErrorKind, Result};
pub use measure::{Choice, Measure, RateTable, measure};
pub use state::{
    Compressor, Context, Decompressor, Direction, ErrorFeedback, SampleId, Stateful,
    TransformDecoder, TransformEncoder,
};
pub use tensor::{Elements, Tensor, TensorView};
pub use transform::{Basis, Tokens};

#[doc = include_str!("../FORMAT.md")]
pub mod frame_format {}
