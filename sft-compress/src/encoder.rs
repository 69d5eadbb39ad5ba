use crate::codec::Codec;
use crate::encode;
use crate::error::Result;
use crate::tensor::TensorView;

/// Encodes one message after the other in the same memory.
///
/// No memory is allocated once messages of the same size have been encoded,
/// except to share work among threads with the feature `rayon`.
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
    memory: encode::Memory,
}

impl Encoder {
    /// An encoder with a codec's settings.
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            memory: encode::Memory::default(),
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
        encode::write(self.codec.config(), tensor, seed, frame, &mut self.memory)
    }
}
