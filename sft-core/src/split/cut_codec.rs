//! How tensors cross the cut, and the bases that transform codecs need.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sft_compress::{
    Basis, Codec, Compressor, Decompressor, ErrorFeedback, TransformDecoder, TransformEncoder,
};

use crate::adapter::ModelSpec;
use crate::{Error, Result};

/// How a text names the transform codec, before a colon and its step.
const TRANSFORM: &str = "transform";

/// How tensors of one direction cross the cut.
///
/// As text: `transform`, `transform:STEP`, or one of [`Codec`]'s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CutCodec {
    /// Each tensor by itself.
    Plain(Codec),
    /// By a basis that the server learns from the first activations and gives to the devices, with
    /// a memory of each sample. The step, 0.001 to 1000, is relative to the root mean square of the
    /// activations, or of each gradient, times the root of the grid's tokens; without one it is
    /// what the kind of model gets, [`for_activations_of`](Self::for_activations_of).
    Transform(Option<f64>),
}

impl CutCodec {
    /// No compression.
    pub fn raw() -> Self {
        Self::Plain(Codec::raw())
    }

    /// The same with the step of a model's activations, where none is named: 0.3, and 0.6 behind
    /// causal blocks.
    ///
    /// Measured: a decoder's hidden states stand twice the step, and a fine one sees how its adapters
    /// move them, so that no sample is known again; an encoder's loss grows by it.
    #[must_use]
    pub fn for_activations_of(self, spec: &ModelSpec) -> Self {
        self.or_step(if spec.causal { 0.6 } else { 0.3 })
    }

    /// The same with the step of a model's gradients, where none is named: 1.5 where its tokens lie in
    /// a grid, else 2.
    #[must_use]
    pub fn for_gradients_of(self, spec: &ModelSpec) -> Self {
        self.or_step(if spec.grid.is_some() { 1.5 } else { 2.0 })
    }

    fn or_step(self, step: f64) -> Self {
        match self {
            Self::Transform(None) => Self::Transform(Some(step)),
            other => other,
        }
    }

    /// The step, if it needs a basis and has one.
    pub fn step(self) -> Option<f64> {
        match self {
            Self::Plain(_) => None,
            Self::Transform(step) => step,
        }
    }

    /// The sender's side, with its memory of samples and of what was dropped.
    ///
    /// # Errors
    /// A transform codec without a basis.
    pub fn compressor(
        self,
        basis: Option<&Arc<Basis>>,
        memory_bytes: usize,
        error_feedback: bool,
    ) -> Result<Box<dyn Compressor>> {
        Ok(match self {
            Self::Plain(codec) => with_feedback(codec, error_feedback),
            Self::Transform(_) => {
                let encoder = TransformEncoder::new(needed(basis)?).with_memory(memory_bytes);
                with_feedback(encoder, error_feedback)
            }
        })
    }

    pub(crate) fn decompressor(
        self,
        basis: Option<&Arc<Basis>>,
        memory_bytes: usize,
    ) -> Result<Box<dyn Decompressor>> {
        Ok(match self {
            Self::Plain(codec) => Box::new(codec),
            Self::Transform(_) => {
                Box::new(TransformDecoder::new(needed(basis)?).with_memory(memory_bytes))
            }
        })
    }
}

fn with_feedback(codec: impl Compressor + 'static, error_feedback: bool) -> Box<dyn Compressor> {
    if error_feedback {
        return Box::new(ErrorFeedback::new(codec));
    }
    Box::new(codec)
}

fn needed(basis: Option<&Arc<Basis>>) -> Result<Arc<Basis>> {
    let missing = || Error::protocol("plans a transform codec without its basis");
    basis.cloned().ok_or_else(missing)
}

impl From<Codec> for CutCodec {
    fn from(codec: Codec) -> Self {
        Self::Plain(codec)
    }
}

impl fmt::Display for CutCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(codec) => codec.fmt(f),
            Self::Transform(None) => f.write_str(TRANSFORM),
            Self::Transform(Some(step)) => write!(f, "{TRANSFORM}:{step}"),
        }
    }
}

impl FromStr for CutCodec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, step) = match text.split_once(':') {
            Some((name, step)) => (name, Some(step)),
            None => (text, None),
        };
        if name != TRANSFORM {
            let codec = text.parse().map(Self::Plain);
            return codec.map_err(|error: sft_compress::Error| error.to_string());
        }
        match step.map(|step| (step, step.parse())) {
            None => Ok(Self::Transform(None)),
            Some((_, Ok(step))) if (0.001..=1000.0).contains(&step) => {
                Ok(Self::Transform(Some(step)))
            }
            Some((step, _)) => Err(format!("step must be in 0.001..=1000, got {step}")),
        }
    }
}

impl Serialize for CutCodec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CutCodec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The bases of both directions, of those that need one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bases {
    /// Of activations.
    pub up: Option<Arc<Basis>>,
    /// Of gradients.
    pub down: Option<Arc<Basis>>,
}

impl Bases {
    /// A number that differs with near certainty between other bases; 0 without any.
    pub fn name(&self) -> u32 {
        if *self == Self::default() {
            return 0;
        }
        crc32fast::hash(&self.to_bytes()).max(1)
    }

    /// Both as bytes, each behind its length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for basis in [&self.up, &self.down] {
            let part = basis.as_ref().map_or(&[][..], |basis| basis.to_bytes());
            bytes.extend((part.len() as u32).to_le_bytes());
            bytes.extend(part);
        }
        bytes
    }

    /// The bases of bytes that may come from anyone.
    ///
    /// # Errors
    /// Bytes that are no bases.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self> {
        let mut next = || {
            let (length, rest) = bytes.split_first_chunk().ok_or_else(cut_off)?;
            let length = u32::from_le_bytes(*length) as usize;
            let (basis, rest) = rest.split_at_checked(length).ok_or_else(cut_off)?;
            bytes = rest;
            let some = !basis.is_empty();
            let basis = some.then(|| Basis::from_bytes(basis).map(Arc::new));
            Ok::<_, Error>(basis.transpose()?)
        };
        let (up, down) = (next()?, next()?);
        if bytes.is_empty() {
            Ok(Self { up, down })
        } else {
            Err(cut_off())
        }
    }
}

fn cut_off() -> Error {
    Error::protocol("sent bases of another length than they say")
}
