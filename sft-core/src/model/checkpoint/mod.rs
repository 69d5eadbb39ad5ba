//! Files of weights whose tensors are read when they are asked for.

/// GGUF files, whose tensors may be quantized.
mod gguf;
/// The parameters of a model by name.
mod named;
/// One safetensors file, or several with an index.
mod safetensors;
/// The bytes of a file.
mod source;
/// A tensor in memory or in a file.
mod weight;

pub(crate) use gguf::Gguf;
pub(crate) use named::NamedWeights;
pub(crate) use safetensors::{Checkpoint, open_shards};
pub(crate) use weight::{Weight, checked};
