use crate::codec::Codec;
use crate::config::{Code, Quantize, Rounding};
use crate::context;
use crate::error::Result;
use crate::format::{self, Header, Method, Shape};
use crate::paper;
use crate::quantize::{Levels, Noise, Range};
use crate::select::{Selection, select};
use crate::tensor::{Elements, TensorView};

/// Encodes one message after the other in the same memory.
///
/// No memory is allocated once messages of the same size have been encoded.
///
/// ```
/// # fn main() -> sft_compress::Result<()> {
/// use sft_compress::{Codec, Decoder, Encoder, Tensor, TensorView};
///
/// let mut encoder = Encoder::new(Codec::activation(0.2, 8)?);
/// let mut decoder = Decoder::new();
/// let (mut frame, mut tensor) = (Vec::new(), Tensor::default());
/// for seed in 0..3 {
///     let x = vec![seed as f32 + 0.5; 64];
///     encoder.encode_into(TensorView::new(&x, &[4, 16])?, seed, &mut frame)?;
///     decoder.decode_into(&frame, &mut tensor)?;
///     assert_eq!(tensor.shape(), [4, 16]);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Encoder {
    codec: Codec,
    floats: Vec<f32>,
    selection: Selection,
    context: context::EncodeMemory,
    paper: paper::EncodeMemory,
}

impl Encoder {
    /// An encoder with a codec's settings.
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            floats: Vec::new(),
            selection: Selection::default(),
            context: context::EncodeMemory::default(),
            paper: paper::EncodeMemory::default(),
        }
    }

    /// The settings.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Encodes a tensor as one frame, which replaces the content of `frame`:
    /// the same bytes as [`Codec::encode`].
    ///
    /// # Errors
    /// As [`Codec::encode`]; `frame` then holds no frame.
    pub fn encode_into(
        &mut self,
        tensor: TensorView<'_>,
        seed: u64,
        frame: &mut Vec<u8>,
    ) -> Result<()> {
        let config = self.codec.config();
        let (elements, shape) = (tensor.elements(), tensor.shape());
        format::begin(frame);
        let levels = match config.quantize {
            Quantize::Levels { count, range, .. } => Levels { count, range },
            _ => Levels {
                count: 2,
                range: Range::Tensor,
            },
        };
        let header = |method| Header {
            method,
            dtype: elements.dtype(),
            shape: Shape::new(shape),
        };
        if config.code == Code::None {
            header(Method::Raw).write(frame);
            write_raw(frame, elements);
            return format::seal(frame);
        }
        let (floats, found) = (&mut self.floats, &mut self.selection);
        let data = select(elements, shape, config, floats, found)?;
        let noise = noise(config.quantize, seed);
        if config.code == Code::Golomb {
            header(Method::Paper(levels)).write(frame);
            paper::write(frame, shape, found, levels, noise, &mut self.paper);
        } else {
            header(Method::Context(levels.range)).write(frame);
            let memory = &mut self.context;
            context::write(frame, (data, shape), config.quantize, found, noise, memory);
        }
        format::seal(frame)
    }
}

/// The source of random roundings; none if the nearest point is to be taken.
fn noise(quantize: Quantize, seed: u64) -> Option<Noise> {
    match quantize {
        Quantize::Levels {
            rounding: Rounding::Stochastic,
            ..
        } => Some(Noise::new(seed)),
        _ => None,
    }
}

fn write_raw(out: &mut Vec<u8>, elements: Elements<'_>) {
    match elements {
        Elements::F32(data) => {
            let start = out.len();
            out.resize(start + size_of_val(data), 0);
            for (bytes, x) in out[start..].chunks_exact_mut(4).zip(data) {
                bytes.copy_from_slice(&x.to_le_bytes());
            }
        }
        Elements::F16(bits) | Elements::Bf16(bits) => {
            out.extend(bits.iter().flat_map(|bits| bits.to_le_bytes()));
        }
    }
}
