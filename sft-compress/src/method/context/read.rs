//! The body of a context-coded frame to elements.

use crate::coding::bits::BitReader;
use crate::coding::bytes::ByteReader;
use crate::config::Range;
use crate::error::{Error, Result};
use crate::simd::{self, Level};

use super::geometry::Geometry;
use super::list;
use super::model::Model;
use super::rans::{self, ContextMemory, DecodeTables, MAX_LANES};
use super::side;
use crate::value::points::{Kind, Points, ValueCoding};
use crate::value::token::DIRECT;

/// The number of kept elements and of chunks, without reading the model.
pub(crate) fn inspect(
    body: &mut ByteReader<'_>,
    shape: &[usize],
    elements: usize,
    range: Range,
) -> Result<(usize, usize)> {
    let kind = Kind::read(body, range)?;
    let kept = body.varint_up_to(elements, "the number of kept elements")?;
    if kept == 0 {
        return Ok((0, 1));
    }
    kind.read_values(body)?;
    Ok((kept, Geometry::read(body, shape, elements)?.chunks()))
}

/// What [`Frame::decode`] works in, kept from one message to the next.
#[derive(Debug, Default)]
pub(crate) struct DecodeMemory {
    shared: Shared,
    plane: Vec<i8>,
    contexts: ContextMemory,
}

/// What all chunks need.
#[derive(Debug, Default)]
struct Shared {
    model: Model,
    tables: DecodeTables,
    /// Where the bytes of each chunk are.
    chunks: Vec<std::ops::Range<usize>>,
}

/// A frame's body with its model read and its chunks found.
pub(crate) struct Frame<'a> {
    /// The number of elements that are not zero.
    pub(crate) kept: usize,
    pub(crate) elements: usize,
    coded: Option<Coded<'a>>,
}

struct Coded<'a> {
    scheme: ValueCoding,
    geometry: Geometry,
    /// The bytes of all chunks.
    bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads everything but the chunks.
    pub(crate) fn read(
        body: &mut ByteReader<'a>,
        shape: &[usize],
        elements: usize,
        range: Range,
        memory: &mut DecodeMemory,
    ) -> Result<Self> {
        let shared = &mut memory.shared;
        let kind = Kind::read(body, range)?;
        let kept = body.varint_up_to(elements, "the number of kept elements")?;
        if kept == 0 {
            shared.chunks.clear();
            return Ok(Self {
                kept,
                elements,
                coded: None,
            });
        }
        let scheme = kind.read_values(body)?;
        let geometry = Geometry::read(body, shape, elements)?;
        if !geometry.has_lists() {
            shared.model.read(body, &geometry)?;
            if shared.model.max_token > scheme.points().max_token() {
                return Err(Error::corrupt(format!(
                    "a token {}",
                    shared.model.max_token
                )));
            }
            shared.tables.fill(&shared.model);
        }
        if geometry.chunks() > body.remaining() {
            return Err(Error::corrupt(format!("{} chunks", geometry.chunks())));
        }
        shared.chunks.clear();
        let mut end = 0;
        for _ in 0..geometry.chunks() {
            let start: usize = end;
            let len = body.varint_up_to(body.remaining(), "the length of a chunk")?;
            end = start.saturating_add(len);
            shared.chunks.push(start..end);
        }
        if end != body.remaining() {
            return Err(Error::corrupt("the chunks do not end with the body"));
        }
        let bytes = body.take_rest();
        let coded = Some(Coded {
            scheme,
            geometry,
            bytes,
        });
        Ok(Self {
            kept,
            elements,
            coded,
        })
    }

    /// The elements that can be decoded independently: one chunk if nothing is kept.
    pub(crate) fn chunks(&self) -> usize {
        self.coded
            .as_ref()
            .map_or(1, |coded| coded.geometry.chunks())
    }

    /// The elements of a chunk.
    pub(crate) fn chunk(&self, index: usize) -> std::ops::Range<usize> {
        match &self.coded {
            Some(coded) => coded.geometry.chunk(index),
            None => 0..self.elements,
        }
    }

    /// Decodes all elements into `out`, which is as long.
    pub(crate) fn decode(&self, out: &mut [f32], memory: &mut DecodeMemory) -> Result<()> {
        let Some(coded) = &self.coded else {
            out.fill(0.0);
            return Ok(());
        };
        memory.plane.resize(out.len(), 0);
        let kept = coded.decode_chunks(out, memory)?;
        if kept != self.kept {
            return Err(Error::corrupt(format!(
                "{kept} elements are kept instead of {}",
                self.kept
            )));
        }
        Ok(())
    }

    /// Decodes one chunk into `out`, which is as long.
    pub(crate) fn decode_chunk(
        &self,
        index: usize,
        out: &mut [f32],
        memory: &mut DecodeMemory,
    ) -> Result<()> {
        let Some(coded) = &self.coded else {
            out.fill(0.0);
            return Ok(());
        };
        memory.plane.resize(out.len(), 0);
        let DecodeMemory {
            shared,
            plane,
            contexts,
        } = memory;
        coded.decode_chunk(index, shared, contexts, plane, out)?;
        Ok(())
    }
}

impl Coded<'_> {
    /// Decodes all chunks, one after the other, and counts the kept elements.
    #[cfg(not(feature = "rayon"))]
    fn decode_chunks(&self, out: &mut [f32], memory: &mut DecodeMemory) -> Result<usize> {
        let DecodeMemory {
            shared,
            plane,
            contexts,
        } = memory;
        let planes = plane.chunks_mut(self.geometry.chunk_len);
        let chunks = out.chunks_mut(self.geometry.chunk_len).zip(planes);
        let counts = chunks
            .enumerate()
            .map(|(index, (out, plane))| self.decode_chunk(index, shared, contexts, plane, out));
        counts.sum()
    }

    /// Decodes all chunks in parallel and counts the kept elements.
    #[cfg(feature = "rayon")]
    fn decode_chunks(&self, out: &mut [f32], memory: &mut DecodeMemory) -> Result<usize> {
        use rayon::prelude::*;
        let DecodeMemory { shared, plane, .. } = memory;
        let planes = plane.par_chunks_mut(self.geometry.chunk_len);
        let chunks = out.par_chunks_mut(self.geometry.chunk_len).zip(planes);
        let counts = chunks.enumerate().map_init(
            ContextMemory::default,
            |contexts, (index, (out, plane))| {
                self.decode_chunk(index, shared, contexts, plane, out)
            },
        );
        // The first chunk that fails decides the error, whichever is first done.
        let counts: Vec<Result<usize>> = counts.collect();
        counts.into_iter().sum()
    }

    /// Decodes a chunk and counts its kept elements.
    fn decode_chunk(
        &self,
        index: usize,
        shared: &Shared,
        contexts: &mut ContextMemory,
        plane: &mut [i8],
        out: &mut [f32],
    ) -> Result<usize> {
        let chunk = ByteReader::new(&self.bytes[shared.chunks[index].clone()]);
        let elements = self.geometry.chunk(index);
        let bits = if self.geometry.has_lists() {
            list::read(chunk, self.scheme.points().max_token(), plane)?
        } else {
            self.decode_symbols(chunk, elements.start, shared, contexts, plane)?
        };
        self.dequantize(elements.start, plane, bits, out)?;
        Ok(simd::count_nonzero(Level::best(), plane) as usize)
    }

    /// Decodes the symbols of a chunk that starts at element `start`, and gives its bits.
    fn decode_symbols<'a>(
        &self,
        mut chunk: ByteReader<'a>,
        start: usize,
        shared: &Shared,
        contexts: &mut ContextMemory,
        plane: &mut [i8],
    ) -> Result<BitReader<'a>> {
        let len = chunk.varint_up_to(chunk.remaining(), "the length of a chunk's bits")?;
        let bits = BitReader::new(chunk.take(len)?);
        let mut states = [0; MAX_LANES];
        for state in &mut states[..self.geometry.lanes] {
            *state = chunk.u32()?;
        }
        let first_row = start / self.geometry.width;
        let coded = (states, chunk.take_rest());
        rans::decode(
            plane,
            first_row,
            &self.geometry,
            &shared.model,
            &shared.tables,
            coded,
            contexts,
        )?;
        Ok(bits)
    }

    /// The elements of the symbols of a chunk that starts at element `start`.
    fn dequantize(
        &self,
        start: usize,
        plane: &[i8],
        mut bits: BitReader<'_>,
        out: &mut [f32],
    ) -> Result<()> {
        let Some(span) = self.scheme.by_row() else {
            let points = self.scheme.points();
            to_values(&points, &points.direct(), plane, &mut bits, out)?;
            return bits.finish();
        };
        // All ends come before all extra bits: one reader for each.
        let mut end_bits = bits.clone();
        let mut skipped = side::Ends::read(&mut bits, span)?;
        for row in self.live_rows(start, plane) {
            if row.live {
                skipped.next(&mut bits)?;
            }
        }
        let mut ends = side::Ends::read(&mut end_bits, span)?;
        for row in self.live_rows(start, plane) {
            let (plane, out) = (&plane[row.range.clone()], &mut out[row.range]);
            if row.live {
                let points = self.scheme.points_to(ends.next(&mut end_bits)?);
                to_values(&points, &points.direct(), plane, &mut bits, out)?;
            } else {
                out.fill(0.0);
            }
        }
        bits.finish()
    }

    /// The rows of the tensor in a chunk from element `start` on.
    fn live_rows<'a>(&'a self, start: usize, plane: &'a [i8]) -> impl Iterator<Item = Row> + 'a {
        let mut at = 0;
        std::iter::from_fn(move || {
            let end = self
                .geometry
                .segment_end(start + at)
                .min(start + plane.len())
                - start;
            let range = at..end;
            at = end;
            (!range.is_empty()).then(|| Row {
                live: simd::count_nonzero(Level::best(), &plane[range.clone()]) != 0,
                range,
            })
        })
    }
}

/// The part of a row in a chunk, and whether it keeps an element.
struct Row {
    range: std::ops::Range<usize>,
    live: bool,
}

/// The values of symbols, of which those without extra bits have the `direct` magnitudes.
fn to_values(
    points: &Points,
    direct: &[f32; DIRECT as usize],
    plane: &[i8],
    bits: &mut BitReader<'_>,
    out: &mut [f32],
) -> Result<()> {
    /// Elements that are looked through if one has a large token.
    const BLOCK: usize = 64;
    let large = |symbol: i8| symbol.unsigned_abs() > DIRECT as u8;
    if !simd::expand(Level::best(), plane, direct, out) {
        return Ok(());
    }
    for (out, plane) in out.chunks_mut(BLOCK).zip(plane.chunks(BLOCK)) {
        if simd::max_magnitude(Level::best(), plane) <= DIRECT as u8 {
            continue;
        }
        for (x, &symbol) in out.iter_mut().zip(plane).filter(|(_, s)| large(**s)) {
            let index = side::read_index(bits, symbol.unsigned_abs())?;
            let magnitude = points
                .magnitude(index)
                .ok_or_else(|| Error::corrupt(format!("an index {index}")))?;
            *x = if symbol < 0 { -magnitude } else { magnitude };
        }
    }
    Ok(())
}
