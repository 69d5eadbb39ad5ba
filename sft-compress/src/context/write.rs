//! Elements to the body of a context-coded frame.

use crate::bits::BitWriter;
use crate::bytes::put_varint;
use crate::config::Quantize;
use crate::quantize::Noise;
use crate::ranges::{FINE_GRID_SHIFT, Grid, Span};
use crate::select::Selection;
use crate::simd::{self, Candidates, Level};

use super::geometry::Geometry;
use super::model::Model;
use super::points::{DEAD, DeadZone, Scheme};
use super::rans::{self, EncodeTables};
use super::side;
use super::token::{self, DIRECT};

/// What [`write`] works in, kept from one message to the next.
#[derive(Debug, Default)]
pub(crate) struct EncodeMemory {
    indices: Vec<u32>,
    symbols: Vec<i8>,
    /// The symbol of every element.
    plane: Vec<i8>,
    codes: Vec<u16>,
    side: Side,
    bits: Vec<u8>,
    tables: EncodeTables,
    model: Model,
    chunks: Vec<Chunk>,
}

/// What the chunks hold besides their symbols.
#[derive(Debug, Default)]
struct Side {
    /// The ends of the ranges of the rows of every chunk.
    ends: ByChunk,
    /// The indices whose tokens have extra bits.
    large: ByChunk,
}

/// A chunk's bytes and what they are made in.
#[derive(Debug, Default)]
struct Chunk {
    bits: Vec<u8>,
    words: Vec<u16>,
    bytes: Vec<u8>,
}

/// Numbers in the order of their elements.
#[derive(Debug, Default)]
struct ByChunk {
    numbers: Vec<u32>,
    /// Where those of each chunk start.
    starts: Vec<usize>,
}

impl ByChunk {
    fn clear(&mut self) {
        self.numbers.clear();
        self.starts.clear();
    }

    /// Adds a number to a chunk, which is not before that of the last.
    fn push(&mut self, chunk: usize, number: u32) {
        self.end_before(chunk + 1);
        self.numbers.push(number);
    }

    /// Ends all chunks before this one.
    fn end_before(&mut self, chunk: usize) {
        let chunks = self.starts.len().max(chunk);
        self.starts.resize(chunks, self.numbers.len());
    }

    fn chunk(&self, index: usize) -> &[u32] {
        &self.numbers[self.starts[index]..self.starts[index + 1]]
    }
}

/// Appends the selected elements of `data`, which has a `shape`.
pub(crate) fn write(
    out: &mut Vec<u8>,
    (data, shape): (&[f32], &[usize]),
    quantize: Quantize,
    found: &Selection,
    noise: Option<Noise>,
    memory: &mut EncodeMemory,
) {
    let Some(span) = found.span else {
        // Any scheme of the same quantizer tells its kind.
        Scheme::choose(quantize, Span { lo: 1.0, hi: 1.0 }, 1.0).write_kind(out);
        put_varint(out, 0);
        return;
    };
    let mut scheme = Scheme::choose(quantize, span, found.rms);
    scheme.write_kind(out);
    let geometry = Geometry::choose(shape);
    memory.clear(geometry.elements);
    match &mut scheme {
        Scheme::DeadZone(dead_zone) if found.all => memory.fill(&geometry, *dead_zone, data),
        _ => memory.fill_kept(&geometry, &scheme, &found.kept, noise),
    }
    memory.side.ends.end_before(geometry.chunks() + 1);
    memory.side.large.end_before(geometry.chunks() + 1);
    let EncodeMemory {
        plane,
        codes,
        model,
        ..
    } = memory;
    if let Scheme::DeadZone(dead_zone) = &mut scheme {
        dead_zone.offsets = offsets(dead_zone.step, data, plane);
    }
    let kept = model.choose(&geometry, plane, codes);
    put_varint(out, kept as u64);
    if kept == 0 {
        return;
    }
    scheme.write_values(out);
    geometry.write(out);
    model.write(out, &mut memory.bits);
    memory.write_chunks(out, &geometry, scheme.by_row().is_some());
}

impl EncodeMemory {
    fn clear(&mut self, elements: usize) {
        self.indices.clear();
        self.symbols.clear();
        self.plane.clear();
        self.plane.resize(elements, 0);
        self.side.ends.clear();
        self.side.large.clear();
    }

    /// Fills the plane with all of `data`.
    fn fill(&mut self, geometry: &Geometry, dead_zone: DeadZone, data: &[f32]) {
        /// Elements that are looked through if one has a large token.
        const BLOCK: usize = 256;
        let (level, per_step) = (Level::best(), 1.0 / dead_zone.step);
        let blocks = data.chunks(BLOCK).zip(self.plane.chunks_mut(BLOCK));
        for (number, (data, plane)) in blocks.enumerate() {
            if !simd::dead_zone(level, data, per_step, plane) {
                continue;
            }
            for (i, (x, symbol)) in data.iter().zip(plane).enumerate() {
                if symbol.unsigned_abs() > DIRECT as u8 {
                    let index = dead_zone
                        .index(x.abs())
                        .map_or(DIRECT, |index| index.max(DIRECT));
                    *symbol = symbol.signum() * token::of(index).cast_signed();
                    let chunk = (number * BLOCK + i) / geometry.chunk_len;
                    self.side.large.push(chunk, index);
                }
            }
        }
    }

    /// Fills the plane with the `kept` elements.
    fn fill_kept(
        &mut self,
        geometry: &Geometry,
        scheme: &Scheme,
        kept: &Candidates,
        noise: Option<Noise>,
    ) {
        let Candidates { positions, values } = kept;
        let indices = &mut self.indices;
        match scheme.by_row() {
            None => scheme.points().indices(positions, values, noise, indices),
            Some(span) => self.quantize_rows(geometry, scheme, span, kept, noise),
        }
        if scheme.points().max_token() <= DIRECT as u8 {
            simd::to_symbols(Level::best(), &self.indices, values, &mut self.symbols);
        } else {
            self.tokens(geometry, kept);
        }
        for (&position, &symbol) in positions.iter().zip(&self.symbols) {
            self.plane[position as usize] = symbol;
        }
    }

    /// Quantizes each row, or part of it in a chunk, in a range of its own.
    fn quantize_rows(
        &mut self,
        geometry: &Geometry,
        scheme: &Scheme,
        span: Span,
        Candidates { positions, values }: &Candidates,
        noise: Option<Noise>,
    ) {
        let grid = Grid::new(span, FINE_GRID_SHIFT);
        let mut next = 0;
        while let Some(&position) = positions.get(next) {
            let end = geometry.segment_end(position as usize);
            let in_row = |&&p: &&u32| (p as usize) < end;
            let len = positions[next..].iter().take_while(in_row).count();
            let row = next..next + len;
            next += len;
            let (_, largest) = simd::span(Level::best(), &values[row.clone()]);
            let index = grid.index(f32::from_bits(largest));
            let chunk = position as usize / geometry.chunk_len;
            self.side.ends.push(chunk, index);
            let points = scheme.points_to(grid.end(index));
            let (positions, values) = (&positions[row.clone()], &values[row]);
            points.indices(positions, values, noise, &mut self.indices);
        }
    }

    /// The symbols of indices of any size, none of those in a dead zone.
    fn tokens(&mut self, geometry: &Geometry, kept: &Candidates) {
        let elements = kept.positions.iter().zip(&kept.values).zip(&self.indices);
        for ((&position, x), &index) in elements {
            if index == DEAD {
                self.symbols.push(0);
                continue;
            }
            let token = token::of(index).cast_signed();
            self.symbols
                .push(if x.is_sign_negative() { -token } else { token });
            if index >= DIRECT {
                self.side
                    .large
                    .push(position as usize / geometry.chunk_len, index);
            }
        }
    }

    /// Appends the length of every chunk and the chunks.
    fn write_chunks(&mut self, out: &mut Vec<u8>, geometry: &Geometry, by_row: bool) {
        self.tables.fill(&self.model, geometry.lanes);
        let count = geometry.chunks();
        self.chunks
            .resize_with(self.chunks.len().max(count), Chunk::default);
        let Self {
            chunks,
            codes,
            tables,
            side,
            ..
        } = self;
        let encode = |(index, chunk): (usize, &mut Chunk)| {
            let ends = by_row.then(|| side.ends.chunk(index));
            let codes = &codes[geometry.chunk(index)];
            chunk.encode(codes, geometry.lanes, tables, ends, side.large.chunk(index));
        };
        #[cfg(not(feature = "rayon"))]
        chunks[..count].iter_mut().enumerate().for_each(encode);
        #[cfg(feature = "rayon")]
        {
            use rayon::prelude::*;
            chunks[..count].par_iter_mut().enumerate().for_each(encode);
        }
        for chunk in &chunks[..count] {
            put_varint(out, chunk.bytes.len() as u64);
        }
        for chunk in &chunks[..count] {
            out.extend_from_slice(&chunk.bytes);
        }
    }
}

impl Chunk {
    /// Makes the bytes of a chunk: the ends of its rows' ranges, if they have
    /// some, the extra bits of its large indices, and the symbols of its codes.
    fn encode(
        &mut self,
        codes: &[u16],
        lanes: usize,
        tables: &EncodeTables,
        ends: Option<&[u32]>,
        large: &[u32],
    ) {
        let mut writer = BitWriter::reusing(std::mem::take(&mut self.bits));
        if let Some(ends) = ends {
            side::write_ends(&mut writer, ends);
        }
        for &index in large {
            side::write_extra(&mut writer, index);
        }
        self.bits = writer.finish();
        self.bytes.clear();
        put_varint(&mut self.bytes, self.bits.len() as u64);
        self.bytes.extend_from_slice(&self.bits);
        let (states, first) = rans::encode(codes, lanes, tables, &mut self.words);
        for state in &states[..lanes] {
            self.bytes.extend(state.to_le_bytes());
        }
        let (words, start) = (&self.words[first..], self.bytes.len());
        self.bytes.resize(start + 2 * words.len(), 0);
        let bytes = self.bytes[start..].as_chunks_mut().0;
        for (bytes, word) in bytes.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
    }
}

/// Where in their intervals the magnitudes of each index are on average, by a
/// sample of the tensor if it is large.
fn offsets(step: f32, data: &[f32], plane: &[i8]) -> [u8; DIRECT as usize] {
    const BLOCK: usize = 64;
    const SAMPLE: usize = 1 << 16;
    let stride = (data.len() / SAMPLE).max(1);
    let mut sums = [(0.0_f64, 0_u32); DIRECT as usize + 1];
    let per_step = 1.0 / f64::from(step);
    let blocks = data.chunks(BLOCK).zip(plane.chunks(BLOCK)).step_by(stride);
    // By token, zero included, which saves a branch at random.
    for (x, symbol) in blocks.flat_map(|(data, plane)| data.iter().zip(plane)) {
        let steps = f64::from(x.abs()) * per_step;
        let mut token = i32::from(symbol.unsigned_abs());
        if token > DIRECT.cast_signed() {
            token = (steps + 0.375) as i32;
        }
        let (sum, count) = &mut sums[token.min(DIRECT.cast_signed()) as usize];
        *sum += steps - f64::from(token - 1);
        *count += 1;
    }
    // An index that the sample misses may be there: the middle of its interval.
    let missed = if stride > 1 { 1.125 } else { 0.0 };
    std::array::from_fn(|index| {
        let (sum, count) = sums[index + 1];
        let mean = if count > 0 {
            sum / f64::from(count)
        } else {
            missed
        };
        (mean * 128.0 + 0.5).clamp(0.0, 255.0) as u8
    })
}
