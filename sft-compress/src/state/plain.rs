use super::{Compressor, Context, Decompressor, Stateful};
use crate::codec::Codec;
use crate::config::Quantize;
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::tensor::{Tensor, TensorView};

/// Without memory of earlier messages, in new memory for each.
impl Compressor for Codec {
    fn compress(
        &mut self,
        tensor: TensorView<'_>,
        context: &Context<'_>,
        message: &mut Vec<u8>,
        decoded: Option<&mut Tensor>,
    ) -> Result<()> {
        Encoder::new(*self).compress(tensor, context, message, decoded)
    }

    fn owes(&self) -> bool {
        !matches!(self.config().quantize, Quantize::Unbiased { .. })
    }
}

/// Without memory of earlier messages, in new memory for each; decodes the
/// frames of any codec.
impl Decompressor for Codec {
    fn decompress(
        &mut self,
        message: &[u8],
        context: &Context<'_>,
        tensor: &mut Tensor,
    ) -> Result<()> {
        Decoder::new().decompress(message, context, tensor)
    }
}

/// Without memory of earlier messages; a message is a [frame](crate::frame_format).
impl Compressor for Encoder {
    fn compress(
        &mut self,
        tensor: TensorView<'_>,
        context: &Context<'_>,
        message: &mut Vec<u8>,
        decoded: Option<&mut Tensor>,
    ) -> Result<()> {
        message.clear();
        context.check(Some(tensor))?;
        let encoded = self.encode_into(tensor, context.seed, message);
        if encoded.is_err() {
            message.clear();
        }
        encoded?;
        decoded.map_or(Ok(()), |decoded| {
            Decoder::new().decode_expected_into(message, context.shape, decoded)
        })
    }

    fn owes(&self) -> bool {
        self.codec().owes()
    }
}

/// Without memory of earlier messages; a message is a [frame](crate::frame_format)
/// of any codec.
impl Decompressor for Decoder {
    fn decompress(
        &mut self,
        message: &[u8],
        context: &Context<'_>,
        tensor: &mut Tensor,
    ) -> Result<()> {
        self.decode_expected_into(message, context.shape, tensor)
    }
}

/// There is nothing to remember.
macro_rules! stateless {
    ($($codec:ty),+) => {$(
        impl Stateful for $codec {
            fn reset(&mut self) {}

            fn save(&self) -> Result<Vec<u8>> {
                Ok(Vec::new())
            }

            fn restore(&mut self, state: &[u8]) -> Result<()> {
                match state.len() {
                    0 => Ok(()),
                    bytes => Err(Error::corrupt(format!(
                        "{bytes} bytes of state for a codec without memory"
                    ))),
                }
            }
        }
    )+};
}

stateless!(Codec, Encoder, Decoder);
