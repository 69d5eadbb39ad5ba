use std::ops::Range;

use crate::coding::bytes::{ByteReader, put_varint};
use crate::error::{Error, Result};
use crate::tensor::row_len;

/// Most elements of a chunk, if its rows are not longer.
const CHUNK_ELEMENTS: usize = 1 << 18;

/// How a tensor is divided for the context model: into rows of channels, and
/// those into chunks that are coded independently.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Geometry {
    pub(crate) elements: usize,
    /// Elements in a row of the tensor, which may share a quantization range.
    pub(crate) row_len: usize,
    /// Elements in a row of the model: the channels.
    pub(crate) width: usize,
    /// Elements in a chunk: a multiple of `width`.
    pub(crate) chunk_len: usize,
    /// Lanes of the entropy coder, a power of two up to 32 and `width`; none if chunks are lists.
    pub(crate) lanes: usize,
}

/// What stands for lists in the place of the binary logarithm of lanes.
const LISTS: u8 = 6;

impl Geometry {
    /// Of a tensor with at least one element.
    pub(crate) fn choose(shape: &[usize]) -> Self {
        let elements: usize = shape.iter().product();
        let row_len = row_len(shape);
        let mut width = 1;
        for dim in shape.iter().rev() {
            if width >= 32 {
                break;
            }
            width *= dim;
        }
        if width > 1 << 14 {
            width = 1024;
        }
        let chunk_len = (CHUNK_ELEMENTS / width).max(1) * width;
        let lanes: usize = match elements {
            0..0x400 => 1,
            0x400..0x4000 => 4,
            0x4000..0x1_0000 => 8,
            _ => 32,
        };
        let lanes = lanes.min(1 << width.ilog2());
        Self {
            elements,
            row_len,
            width,
            chunk_len,
            lanes,
        }
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        put_varint(out, self.width as u64);
        put_varint(out, (self.chunk_len / self.width) as u64);
        out.push(self.lanes.checked_ilog2().map_or(LISTS, |log| log as u8));
    }

    /// The same with chunks as lists.
    pub(crate) fn of_lists(self) -> Self {
        Self { lanes: 0, ..self }
    }

    pub(crate) fn has_lists(&self) -> bool {
        self.lanes == 0
    }

    pub(crate) fn read(
        body: &mut ByteReader<'_>,
        shape: &[usize],
        elements: usize,
    ) -> Result<Self> {
        let width = body.varint_up_to(elements, "the model's row length")?;
        let chunk_rows = body.varint_up_to(1 << 31, "the rows of a chunk")?;
        let lanes = match body.u8()? {
            LISTS => 0,
            log => 1_usize << log.min(7),
        };
        if width == 0 || chunk_rows == 0 || lanes > width.min(32) {
            return Err(Error::corrupt(format!(
                "chunks of {chunk_rows} rows of {width} elements in {lanes} lanes"
            )));
        }
        Ok(Self {
            elements,
            row_len: row_len(shape),
            width,
            chunk_len: width.saturating_mul(chunk_rows),
            lanes,
        })
    }

    pub(crate) fn rows(&self) -> usize {
        self.elements.div_ceil(self.width)
    }

    pub(crate) fn chunks(&self) -> usize {
        self.elements.div_ceil(self.chunk_len)
    }

    /// The elements of a chunk.
    pub(crate) fn chunk(&self, index: usize) -> Range<usize> {
        let start = index * self.chunk_len;
        start..(start + self.chunk_len).min(self.elements)
    }

    /// The end of the part of `position`'s row that lies in its chunk.
    pub(super) fn segment_end(&self, position: usize) -> usize {
        let row = (position / self.row_len + 1) * self.row_len;
        row.min((position / self.chunk_len + 1) * self.chunk_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::MAX_ELEMENTS;

    #[test]
    fn rows_have_enough_channels_and_not_too_many() {
        for (shape, width, lanes) in [
            (&[32, 197, 192][..], 192, 32),
            (&[4096, 4, 8], 32, 32),
            (&[8192, 3, 5, 1], 1024, 32),
            (&[6], 6, 1),
            (&[1 << 20], 1024, 32),
            (&[100, 40], 40, 4),
        ] {
            let geometry = Geometry::choose(shape);
            assert_eq!(
                (geometry.width, geometry.lanes),
                (width, lanes),
                "{shape:?}"
            );
            assert_eq!(geometry.chunk_len % width, 0);
        }
    }

    /// Sums and products stay in range on 32-bit machines, too, whatever a frame says.
    #[test]
    fn the_longest_chunks_do_not_overflow() {
        for (width, rows) in [
            (1, 1 << 31),
            (1 << 20, 1 << 31),
            (MAX_ELEMENTS, 1),
            (1, 1 << 20),
        ] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, width as u64);
            put_varint(&mut bytes, rows);
            bytes.push(0);
            let shape = [1, MAX_ELEMENTS];
            let mut body = ByteReader::new(&bytes);
            let geometry = Geometry::read(&mut body, &shape, MAX_ELEMENTS).unwrap();
            let last = geometry.chunk(geometry.chunks() - 1);
            assert_eq!(last.end, MAX_ELEMENTS);
            assert!(geometry.segment_end(MAX_ELEMENTS - 1) >= MAX_ELEMENTS);
        }
    }

    #[test]
    fn chunks_cover_all_elements_once() {
        let geometry = Geometry::choose(&[1000, 777]);
        let mut next = 0;
        for index in 0..geometry.chunks() {
            let chunk = geometry.chunk(index);
            assert!(chunk.start == next && !chunk.is_empty());
            next = chunk.end;
        }
        assert_eq!(next, geometry.elements);
    }
}
