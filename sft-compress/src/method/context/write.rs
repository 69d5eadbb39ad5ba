//! Elements to the body of a context-coded frame.

use crate::coding::bytes::put_varint;
use crate::config::Quantize;
use crate::parallel;
use crate::select::Selection;
use crate::value::Noise;
use crate::value::ranges::Span;

use super::chunk::Chunk;
use super::geometry::Geometry;
use super::model::Model;
use super::rans::EncodeTables;
use crate::value::points::{DeadZone, ValueCoding};
use crate::value::token::DIRECT;

/// One kept element in so many, or fewer, may take fewer bytes in lists.
const LISTED: usize = 64;
/// Elements fewer than this do not pay for an offset of each index.
const FEW: usize = 64;

/// What [`write`] works in, kept from one message to the next.
#[derive(Debug, Default)]
pub(crate) struct EncodeMemory {
    chunks: Vec<Chunk>,
    model: Model,
    bits: Vec<u8>,
    tables: EncodeTables,
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
        ValueCoding::choose(quantize, Span::ALL, 1.0).write_kind(out);
        put_varint(out, 0);
        return;
    };
    let mut scheme = ValueCoding::choose(quantize, span, found.step);
    let geometry = Geometry::choose(shape);
    memory.fill(&geometry, &scheme, data, found, noise);
    let mut kept = memory.kept();
    if let (0, ValueCoding::DeadZone(dead_zone), Some(_)) = (kept, &mut scheme, noise) {
        dead_zone.step = found.largest;
        memory.fill(&geometry, &scheme, data, found, noise);
        kept = memory.kept();
    }
    let is_listed = kept <= geometry.elements / LISTED;
    if let (ValueCoding::DeadZone(dead_zone), None) = (&mut scheme, noise) {
        dead_zone.offsets = if is_listed && kept < FEW {
            [even_offset(*dead_zone, &geometry, data, &memory.chunks); _]
        } else {
            offsets(*dead_zone, &geometry, data, &memory.chunks)
        };
    }
    scheme.write_kind(out);
    put_varint(out, kept as u64);
    if kept == 0 {
        return;
    }
    scheme.write_values(out);
    let (start, by_row) = (out.len(), scheme.by_row().is_some());
    if !is_listed {
        memory.write_coded(out, &geometry, by_row);
        return;
    }
    memory.write_lists(out, &geometry, by_row);
    let lists = out.len() - start;
    // Less than the states of the lanes nothing takes that is coded by context.
    if lists > 4 * geometry.lanes * geometry.chunks() {
        memory.write_coded(out, &geometry, by_row);
        if out.len() - start < 2 * lists {
            out.drain(start..start + lists);
        } else {
            out.truncate(start + lists);
        }
    }
}

impl EncodeMemory {
    /// Finds the symbol of every element.
    fn fill(
        &mut self,
        geometry: &Geometry,
        scheme: &ValueCoding,
        data: &[f32],
        found: &Selection,
        noise: Option<Noise>,
    ) {
        self.chunks.resize_with(geometry.chunks(), Chunk::default);
        parallel::for_each(&mut self.chunks, |index, chunk| {
            let elements = geometry.chunk(index);
            match scheme {
                ValueCoding::DeadZone(dead_zone) if found.all => {
                    let start = elements.start;
                    chunk.fill(geometry, *dead_zone, noise, (&data[elements], start));
                }
                _ => chunk.fill_kept(geometry, scheme, &found.kept, noise, elements),
            }
        });
    }

    /// How many elements are kept.
    fn kept(&self) -> usize {
        let per_row = self.chunks.iter().flat_map(|chunk| &chunk.kept);
        per_row.map(|&n| n as usize).sum()
    }

    /// Appends the geometry and chunks as lists.
    fn write_lists(&mut self, out: &mut Vec<u8>, geometry: &Geometry, by_row: bool) {
        geometry.of_lists().write(out);
        parallel::for_each(&mut self.chunks, |_, chunk| chunk.list(by_row));
        self.write_chunks(out);
    }

    /// Appends the geometry, the model and chunks that are coded by it.
    fn write_coded(&mut self, out: &mut Vec<u8>, geometry: &Geometry, by_row: bool) {
        geometry.write(out);
        self.fit(geometry);
        self.model.write(out, &mut self.bits);
        self.tables.fill(&self.model, geometry.lanes);
        let (tables, chunks) = (&self.tables, &mut self.chunks);
        parallel::for_each(chunks, |_, chunk| {
            chunk.encode(geometry.lanes, tables, by_row);
        });
        self.write_chunks(out);
    }

    /// Fits the model.
    fn fit(&mut self, geometry: &Geometry) {
        let Self { chunks, model, .. } = self;
        let per_row = chunks.iter().flat_map(|chunk| &chunk.kept);
        let max_token = chunks.iter().map(|chunk| chunk.max_token).max();
        let planes = chunks.iter().map(|chunk| &chunk.plane[..]);
        model.choose_classes(geometry, planes, per_row, max_token.unwrap_or(1));
        parallel::for_each(chunks, |index, chunk| {
            chunk.count(model, geometry.chunk(index).start / geometry.width);
        });
        model.choose_frequencies(chunks.iter().map(|chunk| &chunk.counts));
    }

    /// Appends the length of every chunk and the chunks.
    fn write_chunks(&self, out: &mut Vec<u8>) {
        for chunk in &self.chunks {
            put_varint(out, chunk.bytes.len() as u64);
        }
        for chunk in &self.chunks {
            out.extend_from_slice(&chunk.bytes);
        }
    }
}

/// Where in their intervals the magnitudes of all indices are on average.
fn even_offset(dead_zone: DeadZone, geometry: &Geometry, data: &[f32], chunks: &[Chunk]) -> u8 {
    const BLOCK: usize = 64;
    let (mut sum, mut count) = (0.0, 0_u32);
    let per_step = 1.0 / f64::from(dead_zone.step);
    let chunks = data.chunks(geometry.chunk_len).zip(chunks);
    let blocks = chunks.flat_map(|(data, chunk)| data.chunks(BLOCK).zip(chunk.plane.chunks(BLOCK)));
    let is_some = |plane: &[i8]| plane.iter().fold(0, |any, symbol| any | symbol) != 0;
    let some = blocks.filter(|(_, plane)| is_some(plane));
    for (x, _) in some.flat_map(|(data, plane)| data.iter().zip(plane).filter(|(_, s)| **s != 0)) {
        let index = dead_zone.index(x.abs(), None).unwrap_or(0);
        sum += f64::from(x.abs()) * per_step - f64::from(index);
        count += 1;
    }
    offset(sum / f64::from(count.max(1)))
}

/// So many steps in units of 1/128.
fn offset(steps: f64) -> u8 {
    (steps * 128.0 + 0.5).clamp(0.0, 255.0) as u8
}

/// Where in their intervals the magnitudes of each index are on average, by a
/// sample of the tensor if it is large.
fn offsets(
    dead_zone: DeadZone,
    geometry: &Geometry,
    data: &[f32],
    chunks: &[Chunk],
) -> [u8; DIRECT as usize] {
    const BLOCK: usize = 64;
    const SAMPLE: usize = 1 << 16;
    // Of no divisor of a row's blocks, so that all channels are met.
    let blocks = geometry.width.div_ceil(BLOCK);
    let shares_divisor =
        |stride: usize| (2..=blocks).any(|d| stride.is_multiple_of(d) && blocks.is_multiple_of(d));
    let mut stride = (data.len() / SAMPLE).max(1);
    while shares_divisor(stride) {
        stride += 1;
    }
    let mut sums = [(0.0_f64, 0_u32); DIRECT as usize + 1];
    let per_step = 1.0 / f64::from(dead_zone.step);
    let chunks = data.chunks(geometry.chunk_len).zip(chunks);
    let blocks = chunks.flat_map(|(data, chunk)| data.chunks(BLOCK).zip(chunk.plane.chunks(BLOCK)));
    let blocks = blocks.step_by(stride);
    // By token, zero included, which saves a branch at random.
    for (x, symbol) in blocks.flat_map(|(data, plane)| data.iter().zip(plane)) {
        let steps = f64::from(x.abs()) * per_step;
        let mut token = i32::from(symbol.unsigned_abs());
        if token > DIRECT.cast_signed() {
            token = dead_zone
                .index(x.abs(), None)
                .map_or(0, |index| index.cast_signed() + 1);
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
        offset(mean)
    })
}
