//! Method 2: every element's position, level and sign as one symbol, coded by
//! its context.

/// Which rows and channels share statistics.
mod classes;
/// Rows, channels and chunks.
mod geometry;
/// The tables of frequencies and how an element finds its own.
mod model;
/// Indices to magnitudes and back.
mod points;
/// The entropy coder.
mod rans;
/// Row ranges and extra bits.
mod side;
/// Indices to tokens and extra bits.
mod token;

use crate::bits::{BitReader, BitWriter};
use crate::bytes::{ByteReader, put_varint};
use crate::config::Quantize;
use crate::error::{Error, Result};
use crate::quantize::{Noise, Range};
use crate::ranges::{FINE_GRID_SHIFT, Grid};

use geometry::Geometry;
pub(crate) use geometry::row_len;
use model::{Kept, Model};
pub(crate) use points::dead_zone_step;
use points::{Kind, Points, Scheme};
use rans::{ContextMemory, DecodeTables, EncodeTables, MAX_LANES};
use token::DIRECT;

/// What [`write`] works in, kept from one message to the next.
#[derive(Debug, Default)]
pub(crate) struct EncodeMemory {
    indices: Vec<u32>,
    symbols: Vec<i8>,
    plane: Vec<i8>,
    ends: Vec<u32>,
    /// Where the ends of each chunk start.
    chunk_ends: Vec<usize>,
    starts: Vec<u32>,
    chunks: Vec<u8>,
    lengths: Vec<usize>,
    bits: Vec<u8>,
    words: Vec<u16>,
    tables: EncodeTables,
    contexts: ContextMemory,
    model: Model,
}

/// Appends the elements at the `positions`, ascending, with their `values`.
///
/// Of a dead zone the positions are candidates; those inside it are dropped.
pub(crate) fn write(
    out: &mut Vec<u8>,
    shape: &[usize],
    quantize: Quantize,
    rms: f64,
    (positions, values): (&mut Vec<u32>, &mut Vec<f32>),
    noise: Option<Noise>,
    memory: &mut EncodeMemory,
) {
    let Some(mut scheme) = Scheme::choose(quantize, values, rms) else {
        // Any scheme of the same quantizer tells its kind.
        if let Some(scheme) = Scheme::choose(quantize, &[1.0], 1.0) {
            scheme.write_kind(out);
        }
        put_varint(out, 0);
        return;
    };
    scheme.write_kind(out);
    let geometry = Geometry::choose(shape);
    to_indices(&geometry, &scheme, positions, values, noise, memory);
    if let Scheme::DeadZone(dead_zone) = &mut scheme {
        drop_dead(positions, values, &mut memory.indices);
        dead_zone.offsets = offsets(dead_zone.step, values, &memory.indices);
    }
    put_varint(out, positions.len() as u64);
    if positions.is_empty() {
        return;
    }
    scheme.write_values(out);
    geometry.write(out);
    fill_plane(&geometry, positions, values, memory);
    let EncodeMemory {
        symbols,
        plane,
        starts,
        model,
        bits,
        ..
    } = memory;
    model.choose(&geometry, Kept { positions, symbols }, plane, starts);
    model.write(out, bits);
    write_chunks(out, &geometry, scheme.by_row().is_some(), positions, memory);
}

/// The index of every kept element and the ends of the ranges of every row of
/// every chunk.
fn to_indices(
    geometry: &Geometry,
    scheme: &Scheme,
    positions: &[u32],
    values: &[f32],
    noise: Option<Noise>,
    memory: &mut EncodeMemory,
) {
    let EncodeMemory {
        indices,
        ends,
        chunk_ends,
        ..
    } = memory;
    indices.clear();
    ends.clear();
    chunk_ends.clear();
    let mut quantize = |points: &Points, kept: std::ops::Range<usize>| {
        let kept = positions[kept.clone()].iter().zip(&values[kept]);
        indices.extend(kept.map(|(&position, x)| {
            let uniform = noise.map_or(0.5, |noise| noise.uniform(position));
            points.index(x.abs(), uniform).unwrap_or(DEAD)
        }));
    };
    let Some(span) = scheme.by_row() else {
        return quantize(&scheme.points(), 0..positions.len());
    };
    let grid = Grid::new(span, FINE_GRID_SHIFT);
    let mut next = 0;
    while let Some(&position) = positions.get(next) {
        let end = segment_end(geometry, position as usize);
        let len = positions[next..]
            .iter()
            .take_while(|&&p| (p as usize) < end)
            .count();
        let row = next..next + len;
        next += len;
        let largest = values[row.clone()]
            .iter()
            .fold(0.0_f32, |max, x| max.max(x.abs()));
        let index = grid.index(largest);
        let chunk = position as usize / geometry.chunk_len;
        chunk_ends.resize(chunk_ends.len().max(chunk + 1), ends.len());
        ends.push(index);
        quantize(&scheme.points_to(grid.end(index)), row);
    }
    chunk_ends.resize(geometry.chunks() + 1, ends.len());
}

/// The index of an element in the dead zone.
const DEAD: u32 = u32::MAX;

/// The end of the part of `position`'s row that lies in its chunk.
fn segment_end(geometry: &Geometry, position: usize) -> usize {
    let row = (position / geometry.row_len + 1) * geometry.row_len;
    row.min((position / geometry.chunk_len + 1) * geometry.chunk_len)
}

fn drop_dead(positions: &mut Vec<u32>, values: &mut Vec<f32>, indices: &mut Vec<u32>) {
    let mut live = 0;
    for k in 0..indices.len() {
        (positions[live], values[live], indices[live]) = (positions[k], values[k], indices[k]);
        live += usize::from(indices[k] != DEAD);
    }
    positions.truncate(live);
    values.truncate(live);
    indices.truncate(live);
}

/// Where in their intervals the magnitudes of each index are on average.
fn offsets(step: f32, values: &[f32], indices: &[u32]) -> [u8; DIRECT as usize] {
    let mut sums = [(0.0_f64, 0_u32); DIRECT as usize];
    let per_step = 1.0 / f64::from(step);
    for (x, &index) in values.iter().zip(indices) {
        let (sum, count) = &mut sums[index.min(DIRECT - 1) as usize];
        *sum += f64::from(x.abs()) * per_step - f64::from(index);
        *count += 1;
    }
    sums.map(|(sum, count)| (sum / f64::from(count.max(1)) * 128.0 + 0.5).clamp(0.0, 255.0) as u8)
}

/// The symbol of every kept element, and of every element.
fn fill_plane(geometry: &Geometry, positions: &[u32], values: &[f32], memory: &mut EncodeMemory) {
    let EncodeMemory {
        indices,
        symbols,
        plane,
        ..
    } = memory;
    symbols.clear();
    symbols.extend(indices.iter().zip(values).map(|(&index, x)| {
        let token = token::of(index).cast_signed();
        if x.is_sign_negative() { -token } else { token }
    }));
    plane.clear();
    plane.resize(geometry.elements, 0);
    for (&position, &symbol) in positions.iter().zip(&*symbols) {
        plane[position as usize] = symbol;
    }
}

/// Appends the length of every chunk and the chunks.
fn write_chunks(
    out: &mut Vec<u8>,
    geometry: &Geometry,
    by_row: bool,
    positions: &[u32],
    memory: &mut EncodeMemory,
) {
    memory.tables.fill(&memory.model);
    memory.chunks.clear();
    memory.lengths.clear();
    let mut next = 0;
    for index in 0..geometry.chunks() {
        let chunk = geometry.chunk(index);
        let kept = positions[next..].partition_point(|&p| (p as usize) < chunk.end);
        let start = memory.chunks.len();
        write_side(geometry, by_row.then_some(index), next..next + kept, memory);
        let (states, first) = rans::encode(
            &memory.plane[chunk.clone()],
            chunk.start / geometry.width,
            geometry,
            &memory.model,
            &memory.tables,
            (&mut memory.contexts, &mut memory.words),
        );
        for state in &states[..geometry.lanes] {
            memory.chunks.extend(state.to_le_bytes());
        }
        let words = memory.words[first..].iter();
        memory
            .chunks
            .extend(words.flat_map(|word| word.to_le_bytes()));
        memory.lengths.push(memory.chunks.len() - start);
        next += kept;
    }
    for &length in &memory.lengths {
        put_varint(out, length as u64);
    }
    out.extend_from_slice(&memory.chunks);
}

/// Appends what a chunk holds besides its symbols; `ends_of` is the chunk if
/// rows have ranges.
fn write_side(
    geometry: &Geometry,
    ends_of: Option<usize>,
    kept: std::ops::Range<usize>,
    memory: &mut EncodeMemory,
) {
    debug_assert!(kept.end <= geometry.elements);
    let mut writer = BitWriter::reusing(std::mem::take(&mut memory.bits));
    if let Some(chunk) = ends_of {
        let ends = memory.chunk_ends[chunk]..memory.chunk_ends[chunk + 1];
        side::write_ends(&mut writer, &memory.ends[ends]);
    }
    for &index in memory.indices[kept]
        .iter()
        .filter(|&&index| index >= DIRECT)
    {
        side::write_extra(&mut writer, index);
    }
    memory.bits = writer.finish();
    put_varint(&mut memory.chunks, memory.bits.len() as u64);
    memory.chunks.extend_from_slice(&memory.bits);
}

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
    scheme: Scheme,
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
        shared.model.read(body, &geometry)?;
        if shared.model.max_token > scheme.points().max_token() {
            return Err(Error::corrupt(format!(
                "a token {}",
                shared.model.max_token
            )));
        }
        if geometry.chunks() > body.remaining() {
            return Err(Error::corrupt(format!("{} chunks", geometry.chunks())));
        }
        shared.chunks.clear();
        let mut end = 0;
        for _ in 0..geometry.chunks() {
            let start = end;
            end += body.varint_up_to(body.remaining(), "the length of a chunk")?;
            shared.chunks.push(start..end);
        }
        if end != body.remaining() {
            return Err(Error::corrupt("the chunks do not end with the body"));
        }
        let bytes = body.take_rest();
        shared.tables.fill(&shared.model);
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
        let mut chunk = ByteReader::new(&self.bytes[shared.chunks[index].clone()]);
        let len = chunk.varint_up_to(chunk.remaining(), "the length of a chunk's bits")?;
        let bits = BitReader::new(chunk.take(len)?);
        let mut states = [0; MAX_LANES];
        for state in &mut states[..self.geometry.lanes] {
            *state = chunk.u32()?;
        }
        let elements = self.geometry.chunk(index);
        let first_row = elements.start / self.geometry.width;
        let coded = (states, chunk.take_rest());
        let tables = &shared.tables;
        rans::decode(
            plane,
            first_row,
            &self.geometry,
            &shared.model,
            tables,
            coded,
            contexts,
        )?;
        self.dequantize(elements.start, plane, bits, out)?;
        Ok(plane.iter().filter(|&&symbol| symbol != 0).count())
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
            let end = segment_end(&self.geometry, start + at).min(start + plane.len()) - start;
            let range = at..end;
            at = end;
            (!range.is_empty()).then(|| Row {
                live: plane[range.clone()]
                    .iter()
                    .fold(0, |any, &symbol| any | symbol)
                    != 0,
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

/// The values of symbols; `direct` has those of tokens without extra bits.
fn to_values(
    points: &Points,
    direct: &[f32; 2 * DIRECT as usize + 1],
    plane: &[i8],
    bits: &mut BitReader<'_>,
    out: &mut [f32],
) -> Result<()> {
    for (x, &symbol) in out.iter_mut().zip(plane) {
        let place = (i32::from(symbol) + DIRECT.cast_signed()) as usize;
        *x = if let Some(&value) = direct.get(place) {
            value
        } else {
            let index = side::read_index(bits, symbol.unsigned_abs())?;
            let magnitude = points
                .magnitude(index)
                .ok_or_else(|| Error::corrupt(format!("an index {index}")))?;
            if symbol < 0 { -magnitude } else { magnitude }
        };
    }
    Ok(())
}
