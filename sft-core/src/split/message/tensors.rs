//! Tensors that travel with their names and shapes.

use sft_compress::{Codec, TensorView, decode_expected};

use super::bytes::{Reader, put_bytes, put_varint};
use crate::adapter::NamedShape;
use crate::{Error, Result};

/// The longest name of a tensor, bytes.
const MAX_NAME_BYTES: usize = 1 << 12;
/// The most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

/// Adapters, in FL with the head: names, shapes, and all values in one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTensors {
    /// What the values are, in their order.
    pub layout: Vec<NamedShape>,
    /// The encoded values, one tensor after the other.
    pub frame: Vec<u8>,
}

impl NamedTensors {
    /// Encodes the values of a layout bit for bit; vectors may hold several tensors.
    ///
    /// # Errors
    /// Values of another number than the layout has, or more than a frame can hold.
    pub fn encode<'a>(
        layout: Vec<NamedShape>,
        vectors: impl IntoIterator<Item = &'a [f32]>,
    ) -> Result<Self> {
        let values = vectors.into_iter().collect::<Vec<_>>().concat();
        let (got, wanted) = (values.len(), elements(&layout));
        if got != wanted {
            let reason = format!("must be {wanted} values, got {got}");
            return Err(Error::argument("adapters", reason));
        }
        let frame = Codec::raw().encode(TensorView::new(&values, &[got])?, 0)?;
        Ok(Self { layout, frame })
    }

    /// The values again, cut into vectors of these lengths, if their layout is the one that is
    /// expected.
    ///
    /// # Errors
    /// Another layout, with the first tensor that differs; a damaged frame.
    pub fn decode(&self, expected: &[NamedShape], lengths: &[usize]) -> Result<Vec<Vec<f32>>> {
        if let Some(reason) = difference(&self.layout, expected) {
            return Err(Error::protocol(reason));
        }
        let values = decode_expected(&self.frame, &[elements(expected)])?.into_data();
        let mut rest = values.as_slice();
        let mut part = |&length: &usize| {
            let (part, tail) = rest.split_at(length);
            rest = tail;
            part.to_vec()
        };
        Ok(lengths.iter().map(&mut part).collect())
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.layout.len() as u64);
        for NamedShape { name, shape } in &self.layout {
            put_bytes(out, name.as_bytes());
            put_varint(out, shape.len() as u64);
            for &size in shape {
                put_varint(out, size as u64);
            }
        }
        out.extend(&self.frame);
    }

    pub(super) fn read(body: &mut Reader<'_>) -> Result<Self> {
        // A tensor takes a byte for the length of its name and one for its dimensions.
        let count = body.count(2)?;
        let layout = (0..count)
            .map(|_| read_shape(body))
            .collect::<Result<_>>()?;
        let frame = body.rest().to_vec();
        Ok(Self { layout, frame })
    }
}

fn read_shape(body: &mut Reader<'_>) -> Result<NamedShape> {
    let name = body.text(MAX_NAME_BYTES)?;
    let dimensions = body.count(1)?;
    if dimensions > MAX_DIMENSIONS {
        let reason = format!("sent a tensor of {dimensions} dimensions, at most 8 are taken");
        return Err(Error::protocol(reason));
    }
    let size = |_| Ok(body.varint_u32()? as usize);
    let shape = (0..dimensions).map(size).collect::<Result<_>>()?;
    Ok(NamedShape { name, shape })
}

fn elements(layout: &[NamedShape]) -> usize {
    layout
        .iter()
        .map(|tensor| tensor.shape.iter().product::<usize>())
        .sum()
}

/// The first difference of a layout from the expected one.
fn difference(got: &[NamedShape], expected: &[NamedShape]) -> Option<String> {
    let differing = got
        .iter()
        .zip(expected)
        .find(|(got, expected)| got != expected);
    if let Some((got, expected)) = differing {
        return Some(format!("sent the tensor {got}, expected {expected}"));
    }
    let (got, wanted) = (got.len(), expected.len());
    (got != wanted).then(|| format!("sent {got} tensors, expected {wanted}"))
}
