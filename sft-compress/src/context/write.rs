//! Elements to the body of a context-coded frame.

use crate::bits::BitWriter;
use crate::bytes::put_varint;
use crate::config::Quantize;
use crate::quantize::Noise;
use crate::ranges::{FINE_GRID_SHIFT, Grid};

use super::geometry::Geometry;
use super::model::{Kept, Model};
use super::points::{Points, Scheme};
use super::rans::{self, ContextMemory, EncodeTables};
use super::side;
use super::token::{self, DIRECT};

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
        let end = geometry.segment_end(position as usize);
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
