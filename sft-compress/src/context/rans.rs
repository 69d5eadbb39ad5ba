//! The entropy coder of the symbols of a chunk: lanes of a range asymmetric
//! numeral system (Duda, 2013), of which element i of the chunk uses lane
//! i mod lanes, all with one stream of 16-bit words.

use crate::error::{Error, Result};

use super::geometry::Geometry;
use super::model::{Model, SCALE, SCALE_BITS, kind, rank, symbol};
use crate::simd::{self, Contexts, LANES, Level};

/// Between symbols a lane's state is at least this; below it takes a word.
pub(crate) const STATE_MIN: u32 = 1 << 16;
pub(crate) const MAX_LANES: usize = LANES;

/// What the encoder needs of the symbols.
#[derive(Debug, Default)]
pub(crate) struct EncodeTables {
    /// Frequency (lower half) and first slot of each table and rank.
    slots: Vec<u32>,
    /// 2⁴⁴ / frequency, rounded up.
    inverses: Vec<u64>,
}

impl EncodeTables {
    pub(crate) fn fill(&mut self, model: &Model) {
        self.slots.clear();
        self.inverses.clear();
        for table in model.frequencies.chunks_exact(model.alphabet()) {
            let mut start = 0;
            for &frequency in table {
                let frequency = u32::from(frequency);
                self.slots.push(start << 16 | frequency);
                let inverse = (1_u64 << 44).div_ceil(u64::from(frequency.max(1)));
                self.inverses.push(inverse);
                start += frequency;
            }
        }
    }

    /// `state` / frequency for a `state` below frequency·2²⁰.
    ///
    /// Exact: the inverse is too large by less than 1, so the product by less
    /// than 2³², and the shift by 44 keeps that below 2⁻¹² ≤ 1/frequency.
    /// The product is below 2⁶⁴ as the frequency's square is at most 2²⁴.
    #[inline]
    fn quotient(&self, index: usize, state: u32) -> u32 {
        ((u64::from(state) * self.inverses[index]) >> 44) as u32
    }
}

/// The tables of each row of a chunk and each channel, for the vector kernels.
#[derive(Debug, Default)]
pub(crate) struct ContextMemory {
    rows: Vec<u32>,
    channels: Vec<u8>,
}

impl ContextMemory {
    /// None if the kernels do not fit the geometry.
    fn fill(
        &mut self,
        first_row: usize,
        rows: usize,
        geometry: &Geometry,
        model: &Model,
    ) -> Option<Contexts<'_>> {
        if geometry.lanes != LANES || !geometry.width.is_multiple_of(LANES) {
            return None;
        }
        let classes = model.rows[first_row..first_row + rows].iter();
        self.rows.clear();
        self.rows
            .extend(classes.map(|&class| model.table(class, 0) as u32));
        self.channels.clear();
        let classes = model.channels.iter();
        self.channels
            .extend(classes.map(|&class| model.table(0, class) as u8));
        Some(Contexts {
            width: geometry.width,
            rows: &self.rows,
            channels: &self.channels,
            neighbours: model.uses_neighbours(),
        })
    }
}

/// Codes the symbols of a chunk whose first row is `first_row` into the end of
/// `words` and returns where they start. Writing goes backwards: the last
/// symbol written is the first that is read.
pub(crate) fn encode(
    plane: &[i8],
    first_row: usize,
    geometry: &Geometry,
    model: &Model,
    tables: &EncodeTables,
    (contexts, words): (&mut ContextMemory, &mut Vec<u16>),
) -> ([u32; MAX_LANES], usize) {
    encode_with(
        simd::level(),
        plane,
        first_row,
        geometry,
        model,
        tables,
        (contexts, words),
    )
}

fn encode_with(
    level: Level,
    plane: &[i8],
    first_row: usize,
    geometry: &Geometry,
    model: &Model,
    tables: &EncodeTables,
    (contexts, words): (&mut ContextMemory, &mut Vec<u16>),
) -> ([u32; MAX_LANES], usize) {
    let (width, alphabet) = (geometry.width, model.alphabet());
    let mut states = [STATE_MIN; MAX_LANES];
    // A symbol takes a word at most.
    words.resize(words.len().max(plane.len()), 0);
    let mut at = words.len();
    if plane.len().is_multiple_of(width)
        && let Some(contexts) = contexts.fill(first_row, plane.len() / width, geometry, model)
    {
        let slots = (&tables.slots[..], alphabet);
        let start = simd::encode_symbols(level, plane, contexts, slots, &mut states, words);
        if let Some(start) = start {
            return (states, start);
        }
    }
    for (r, row) in plane.chunks(width).enumerate().rev() {
        let start = r * width;
        let above = (r > 0 && model.uses_neighbours()).then(|| &plane[start - width..start]);
        for (c, &symbol) in row.iter().enumerate().rev() {
            let neighbour = above.map_or(0, |above| kind(above[c]));
            let table = model.table(model.rows[first_row + r], model.channels[c]) + neighbour;
            let index = table * alphabet + rank(symbol);
            let (frequency, first) = (tables.slots[index] & 0xffff, tables.slots[index] >> 16);
            let state = &mut states[(start + c) % geometry.lanes];
            if *state >> (32 - SCALE_BITS) >= frequency {
                at -= 1;
                words[at] = *state as u16;
                *state >>= 16;
            }
            *state += tables.quotient(index, *state) * (SCALE - frequency) + first;
        }
    }
    (states, at)
}

/// The symbol, frequency and offset of every slot of every table.
#[derive(Debug, Default)]
pub(crate) struct DecodeTables {
    /// Symbol (upper 8 bits), frequency − 1 and slot − start (12 bits each).
    pub(crate) slots: Vec<u32>,
}

impl DecodeTables {
    pub(crate) fn fill(&mut self, model: &Model) {
        self.slots.clear();
        for table in model.frequencies.chunks_exact(model.alphabet()) {
            for (rank, &frequency) in table.iter().enumerate() {
                let frequency = u32::from(frequency);
                let upper = u32::from(symbol(rank).cast_unsigned()) << 24
                    | frequency.wrapping_sub(1) << 12 & 0x00ff_f000;
                self.slots
                    .extend((0..frequency).map(|offset| upper | offset));
            }
        }
    }
}

/// Reads the symbols of a chunk into `plane`.
pub(crate) fn decode(
    plane: &mut [i8],
    first_row: usize,
    geometry: &Geometry,
    model: &Model,
    tables: &DecodeTables,
    (mut states, words): ([u32; MAX_LANES], &[u8]),
    contexts: &mut ContextMemory,
) -> Result<()> {
    decode_with(
        simd::level(),
        plane,
        first_row,
        geometry,
        model,
        tables,
        (&mut states, words),
        contexts,
    )
}

#[allow(clippy::too_many_arguments, reason = "those of `decode` and the level")]
fn decode_with(
    level: Level,
    plane: &mut [i8],
    first_row: usize,
    geometry: &Geometry,
    model: &Model,
    tables: &DecodeTables,
    (states, mut words): (&mut [u32; MAX_LANES], &[u8]),
    contexts: &mut ContextMemory,
) -> Result<()> {
    let width = geometry.width;
    let mut done = 0;
    if let Some(contexts) = contexts.fill(first_row, plane.len() / width, geometry, model) {
        let used;
        (done, used) = simd::decode_symbols(level, plane, contexts, &tables.slots, states, words);
        words = &words[used..];
    }
    for r in done / width..plane.len().div_ceil(width) {
        let (above, row) = plane.split_at_mut(r * width);
        let above = (r > 0 && model.uses_neighbours()).then(|| &above[(r - 1) * width..]);
        let present = row.len().min(width);
        let skipped = done.saturating_sub(r * width);
        for (c, symbol) in row[..present].iter_mut().enumerate().skip(skipped) {
            let neighbour = above.map_or(0, |above| kind(above[c]));
            let table = model.table(model.rows[first_row + r], model.channels[c]) + neighbour;
            let state = &mut states[(r * width + c) % geometry.lanes];
            let slot = tables.slots[(table << SCALE_BITS) + (*state % SCALE) as usize];
            *symbol = ((slot >> 24) as u8).cast_signed();
            *state = ((slot >> 12 & 0xfff) + 1) * (*state >> SCALE_BITS) + (slot & 0xfff);
            if *state < STATE_MIN {
                let (word, rest) = words
                    .split_first_chunk::<2>()
                    .ok_or_else(|| Error::corrupt("the symbols end early"))?;
                *state = *state << 16 | u32::from(u16::from_le_bytes(*word));
                words = rest;
            }
        }
    }
    if states[..geometry.lanes]
        .iter()
        .any(|&state| state != STATE_MIN)
        || !words.is_empty()
    {
        return Err(Error::corrupt("the symbols do not end with their chunk"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::model::Kept;
    use crate::quantize::Noise;

    /// A plane whose statistics differ by row and channel.
    fn plane(geometry: &Geometry, seed: u64) -> Vec<i8> {
        let noise = Noise::new(seed);
        (0..geometry.elements)
            .map(|i| {
                let (r, c) = (i / geometry.width, i % geometry.width);
                let share = (r % 7) as f64 * (c % 5) as f64 / 40.0;
                let u = noise.uniform(i as u32);
                if u >= share {
                    0
                } else {
                    (u / share * 9.0) as i8 - 4
                }
            })
            .collect()
    }

    #[test]
    fn vector_and_scalar_code_agree() {
        for (shape, seed) in [([700, 256], 1), ([4096, 64], 2), ([300, 1024], 3)] {
            let geometry = Geometry::choose(&shape);
            let plane = plane(&geometry, seed);
            let (positions, symbols): (Vec<u32>, Vec<i8>) =
                (0..).zip(&plane).filter(|(_, s)| **s != 0).unzip();
            let mut model = Model::default();
            let kept = Kept {
                positions: &positions,
                symbols: &symbols,
            };
            model.choose(&geometry, kept, &plane, &mut Vec::new());
            let (mut encode, mut decode) = (EncodeTables::default(), DecodeTables::default());
            encode.fill(&model);
            decode.fill(&model);
            let mut contexts = ContextMemory::default();
            for chunk in (0..geometry.chunks()).map(|index| geometry.chunk(index)) {
                let first_row = chunk.start / geometry.width;
                let plane = &plane[chunk];
                let [scalar, vector] = [Level::Scalar, simd::level()].map(|level| {
                    let mut words = vec![0; 7];
                    let memory = (&mut ContextMemory::default(), &mut words);
                    let (states, start) =
                        encode_with(level, plane, first_row, &geometry, &model, &encode, memory);
                    (states, words[start..].to_vec())
                });
                assert!(scalar == vector);
                let (states, words) = scalar;
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                for level in [Level::Scalar, simd::level()] {
                    let mut decode = |bytes: &[u8]| {
                        let mut read = vec![9; plane.len()];
                        let coded = (&mut states.clone(), bytes);
                        decode_with(
                            level,
                            &mut read,
                            first_row,
                            &geometry,
                            &model,
                            &decode,
                            coded,
                            &mut contexts,
                        )
                        .map(|()| read)
                    };
                    assert!(decode(&bytes).as_deref() == Ok(plane));
                    assert!(decode(&bytes[..bytes.len() - 2]).is_err());
                    assert!(decode(&[&bytes[..], &[0, 0]].concat()).is_err());
                }
            }
        }
    }
}
