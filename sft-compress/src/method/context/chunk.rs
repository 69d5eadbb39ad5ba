use std::ops::Range;

use crate::coding::bits::BitWriter;
use crate::coding::bytes::put_varint;
use crate::simd::{self, Candidates, Level};
use crate::value::Noise;
use crate::value::ranges::{FINE_GRID_SHIFT, Grid, Span};

use super::geometry::Geometry;
use super::list;
use super::model::{Counts, Model};
use super::rans::{self, EncodeTables};
use super::side;
use crate::value::points::{DEAD, DeadZone, ValueCoding};
use crate::value::token::{self, DIRECT};

/// What is known of a chunk, and its bytes, kept from one message to the next.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    indices: Vec<u32>,
    symbols: Vec<i8>,
    /// The symbol of every element, and its code.
    pub(super) plane: Vec<i8>,
    codes: Vec<u16>,
    /// The ends of the ranges of its rows, if they have some.
    ends: Vec<u32>,
    /// The indices whose tokens have extra bits.
    large: Vec<u32>,
    /// How many elements each row of the model keeps.
    pub(super) kept: Vec<u32>,
    pub(super) max_token: u8,
    pub(super) counts: Counts,
    bits: Vec<u8>,
    words: Vec<u16>,
    pub(super) bytes: Vec<u8>,
    list: Vec<(u32, i8)>,
}

impl Chunk {
    /// Finds the symbols of all `elements` of a chunk in a dead zone, or rounded at random.
    pub(super) fn fill(
        &mut self,
        geometry: &Geometry,
        dead_zone: DeadZone,
        noise: Option<Noise>,
        (data, start): (&[f32], usize),
    ) {
        /// Elements that are looked through if one has a large token.
        const BLOCK: usize = 256;
        let (level, per_step) = (Level::best(), 1.0 / dead_zone.step);
        self.large.clear();
        self.plane.resize(data.len(), 0);
        let blocks = data.chunks(BLOCK).zip(self.plane.chunks_mut(BLOCK));
        for ((data, plane), start) in blocks.zip((start as u32..).step_by(BLOCK)) {
            let any_large = match noise {
                Some(noise) => simd::unbiased(level, data, per_step, noise, start, plane),
                None => simd::dead_zone(level, data, per_step, plane),
            };
            if !any_large {
                continue;
            }
            for ((x, symbol), position) in data.iter().zip(plane).zip(start..) {
                if symbol.unsigned_abs() > DIRECT as u8 {
                    let uniform = noise.map(|noise| noise.coarse(position));
                    let index = dead_zone
                        .index(x.abs(), uniform)
                        .unwrap_or(DIRECT)
                        .max(DIRECT);
                    *symbol = symbol.signum() * token::of(index).cast_signed();
                    self.large.push(index);
                }
            }
        }
        self.survey(geometry);
    }

    /// Finds the symbols of those `kept` elements that lie in the chunk's.
    pub(super) fn fill_kept(
        &mut self,
        geometry: &Geometry,
        scheme: &ValueCoding,
        kept: &Candidates,
        noise: Option<Noise>,
        elements: Range<usize>,
    ) {
        let start = elements.start;
        let [first, last] = [start, elements.end]
            .map(|end| kept.positions.partition_point(|&p| (p as usize) < end));
        let (positions, values) = (&kept.positions[first..last], &kept.values[first..last]);
        self.indices.clear();
        self.large.clear();
        match scheme.by_row() {
            None => scheme
                .points()
                .indices(positions, values, noise, &mut self.indices),
            Some(span) => self.quantize_rows(geometry, (scheme, span), positions, values, noise),
        }
        self.symbols.clear();
        if scheme.points().max_token() <= DIRECT as u8 {
            simd::to_symbols(Level::best(), &self.indices, values, &mut self.symbols);
        } else {
            self.tokens(values);
        }
        self.plane.clear();
        self.plane.resize(elements.len(), 0);
        for (&position, &symbol) in positions.iter().zip(&self.symbols) {
            self.plane[position as usize - start] = symbol;
        }
        self.survey(geometry);
    }

    /// Quantizes each row, or the part of it in the chunk, in a range of its own.
    fn quantize_rows(
        &mut self,
        geometry: &Geometry,
        (scheme, span): (&ValueCoding, Span),
        positions: &[u32],
        values: &[f32],
        noise: Option<Noise>,
    ) {
        let grid = Grid::new(span, FINE_GRID_SHIFT);
        self.ends.clear();
        for row in rows(geometry, positions) {
            let (positions, values) = (&positions[row.clone()], &values[row]);
            let (_, largest) = simd::span(Level::best(), values);
            let end = grid.index(f32::from_bits(largest));
            self.ends.push(end);
            let points = scheme.points_to(grid.end(end));
            points.indices(positions, values, noise, &mut self.indices);
        }
    }

    /// The symbols of indices of any size, none of those in a dead zone.
    fn tokens(&mut self, values: &[f32]) {
        for (x, &index) in values.iter().zip(&self.indices) {
            if index == DEAD {
                self.symbols.push(0);
                continue;
            }
            let token = token::of(index).cast_signed();
            self.symbols
                .push(if x.is_sign_negative() { -token } else { token });
            if index >= DIRECT {
                self.large.push(index);
            }
        }
    }

    fn survey(&mut self, geometry: &Geometry) {
        let (level, plane) = (Level::best(), &self.plane);
        self.kept.clear();
        let rows = plane.chunks(geometry.width);
        self.kept
            .extend(rows.map(|row| simd::count_nonzero(level, row)));
        self.max_token = simd::max_magnitude(level, plane);
    }

    /// Writes the ends of the rows' ranges, if they have some, and the extra bits of large indices.
    fn write_side(&self, writer: &mut BitWriter, by_row: bool) {
        if by_row {
            side::write_ends(writer, &self.ends);
        }
        for &index in &self.large {
            side::write_extra(writer, index);
        }
    }

    /// Makes the bytes of the chunk with its symbols as a list, and with what else it has.
    pub(super) fn list(&mut self, by_row: bool) {
        let mut writer = BitWriter::reusing(std::mem::take(&mut self.bits));
        self.bytes.clear();
        list::write((&mut self.bytes, &mut writer), &self.plane, &mut self.list);
        self.write_side(&mut writer, by_row);
        self.bits = writer.finish();
        self.bytes.extend_from_slice(&self.bits);
    }

    /// Makes the bytes of the chunk with its symbols by their codes.
    pub(super) fn encode(&mut self, lanes: usize, tables: &EncodeTables, by_row: bool) {
        let mut writer = BitWriter::reusing(std::mem::take(&mut self.bits));
        self.write_side(&mut writer, by_row);
        self.bits = writer.finish();
        self.bytes.clear();
        put_varint(&mut self.bytes, self.bits.len() as u64);
        self.bytes.extend_from_slice(&self.bits);
        let (states, first) = rans::encode(&self.codes, lanes, tables, &mut self.words);
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

    /// Finds and counts the codes of the chunk's elements.
    pub(super) fn count(&mut self, model: &Model, first_row: usize) {
        self.codes.resize(self.plane.len(), 0);
        model.codes(first_row, &self.plane, &mut self.codes);
        self.counts.fill(model, &self.codes);
    }
}

/// The parts of ascending positions in a chunk that are of one row of the
/// tensor each.
fn rows<'a>(
    geometry: &'a Geometry,
    positions: &'a [u32],
) -> impl Iterator<Item = Range<usize>> + 'a {
    let mut next = 0;
    std::iter::from_fn(move || {
        let start = next;
        let end = geometry.segment_end(*positions.get(start)? as usize);
        let in_row = |&&p: &&u32| (p as usize) < end;
        next += positions[start..].iter().take_while(in_row).count();
        Some(start..next)
    })
}
