//! Tensors that the plan means, their values in one frame.

use sft_compress::{Codec, TensorView, decode_expected};

use super::bytes::{Reader, put_u32};
use crate::adapter::NamedShape;
use crate::{Error, Result};

/// Adapters, in FL with the head: which they are, and all values in one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensors {
    /// The fingerprint of names and shapes, see [`NamedShape::fingerprint`].
    pub layout: u32,
    /// Whether the values are the difference to what both sides hold.
    pub difference: bool,
    /// The encoded values, one tensor after the other.
    pub frame: Vec<u8>,
}

impl Tensors {
    /// The values of a layout bit for bit; vectors may hold several tensors.
    ///
    /// # Errors
    /// Values of another number than the layout has, or more than a frame can hold.
    pub fn whole<'a>(
        layout: &[NamedShape],
        vectors: impl IntoIterator<Item = &'a [f32]>,
    ) -> Result<Self> {
        let values = vectors.into_iter().collect::<Vec<_>>().concat();
        let (got, wanted) = (values.len(), elements(layout));
        if got != wanted {
            let reason = format!("must be {wanted} values, got {got}");
            return Err(Error::argument("adapters", reason));
        }
        let frame = Codec::raw().encode(TensorView::new(&values, &[got])?, 0)?;
        Ok(Self::new(layout, false, frame))
    }

    pub(in crate::split) fn new(layout: &[NamedShape], difference: bool, frame: Vec<u8>) -> Self {
        Self {
            layout: NamedShape::fingerprint(layout),
            difference,
            frame,
        }
    }

    /// The values of the frame, if its tensors are those that are expected.
    ///
    /// # Errors
    /// Another layout, or a damaged frame.
    pub fn decode(&self, expected: &[NamedShape]) -> Result<Vec<f32>> {
        let (got, wanted) = (self.layout, NamedShape::fingerprint(expected));
        if got != wanted {
            let reason = format!("sent tensors of fingerprint {got:08x}, expected {wanted:08x}");
            return Err(Error::protocol(reason));
        }
        Ok(decode_expected(&self.frame, &[elements(expected)])?.into_data())
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_u32(out, self.layout);
        out.push(u8::from(self.difference));
        out.extend(&self.frame);
    }

    pub(super) fn read(body: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            layout: body.u32()?,
            difference: body.flag("tensors")?,
            frame: body.rest().to_vec(),
        })
    }
}

fn elements(layout: &[NamedShape]) -> usize {
    let each = |tensor: &NamedShape| tensor.shape.iter().product::<usize>();
    layout.iter().map(each).sum()
}
