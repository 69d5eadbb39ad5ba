//! The entropy coder of the symbols of a chunk: lanes of a range asymmetric
//! numeral system (Duda, 2013), of which element i of the chunk uses lane
//! i mod lanes, all with one stream of 16-bit words.

use crate::error::{Error, Result};

use super::geometry::Geometry;
use super::model::{Model, kind, symbol};
use super::tables::{SCALE, SCALE_BITS};
use crate::simd::{self, CODES, Contexts, LANES, Level};

/// Between symbols a lane's state is at least this; below it takes a word.
pub(crate) const STATE_MIN: u32 = 1 << 16;
pub(crate) const MAX_LANES: usize = LANES;

/// What the encoder needs of the symbols, by their codes.
#[derive(Debug, Default)]
pub(crate) struct EncodeTables {
    /// Frequency (lower half) and first slot; [`CODES`] for the kernels.
    slots: Vec<u32>,
    /// 2⁴⁴ / frequency, rounded up.
    inverses: Vec<u64>,
}

impl EncodeTables {
    pub(crate) fn fill(&mut self, model: &Model, lanes: usize) {
        let alphabet = model.alphabet();
        let all = if lanes == LANES { CODES } else { 0 };
        self.slots.resize(all.max(model.frequencies.len()), 0);
        let tables = model.frequencies.chunks_exact(alphabet);
        for (table, slots) in tables.zip(self.slots.chunks_exact_mut(alphabet)) {
            let mut start = 0;
            for (&frequency, slot) in table.iter().zip(slots) {
                *slot = start << 16 | u32::from(frequency);
                start += u32::from(frequency);
            }
        }
        let inverse = |&frequency: &u16| (1_u64 << 44).div_ceil(frequency.max(1).into());
        self.inverses.clear();
        self.inverses.extend(model.frequencies.iter().map(inverse));
    }

    /// `state` / frequency for a `state` below frequency·2²⁰.
    ///
    /// Exact: the inverse is too large by less than 1, so the product by less
    /// than 2³², and the shift by 44 keeps that below 2⁻¹² ≤ 1/frequency.
    /// The product is below 2⁶⁴ as the frequency's square is at most 2²⁴.
    #[inline]
    fn quotient(&self, code: usize, state: u32) -> u32 {
        ((u64::from(state) * self.inverses[code]) >> 44) as u32
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

/// Encodes the symbols of a chunk by their `codes` into the end of `words`;
/// returns the states and where the words start. Writing goes backwards: the
/// last symbol written is the first that is read.
pub(crate) fn encode(
    codes: &[u16],
    lanes: usize,
    tables: &EncodeTables,
    words: &mut Vec<u16>,
) -> ([u32; MAX_LANES], usize) {
    encode_with(Level::best(), codes, lanes, tables, words)
}

fn encode_with(
    level: Level,
    codes: &[u16],
    lanes: usize,
    tables: &EncodeTables,
    words: &mut Vec<u16>,
) -> ([u32; MAX_LANES], usize) {
    let mut states = [STATE_MIN; MAX_LANES];
    // A symbol takes a word at most; the kernels need room for a vector.
    let len = codes.len() + LANES;
    words.resize(words.len().max(len), 0);
    let end = words.len();
    let whole = if lanes == LANES {
        codes.len() / LANES * LANES
    } else {
        0
    };
    let at = encode_slowly(&codes[whole..], lanes, tables, &mut states, (words, end));
    let codes = &codes[..whole];
    let slots = tables.slots.first_chunk();
    let fast =
        slots.and_then(|slots| simd::encode_symbols(level, codes, slots, &mut states, (words, at)));
    let at = fast.unwrap_or_else(|| encode_slowly(codes, lanes, tables, &mut states, (words, at)));
    (states, at)
}

/// Encodes symbols, of which the first is one of the first lane.
fn encode_slowly(
    codes: &[u16],
    lanes: usize,
    tables: &EncodeTables,
    states: &mut [u32; MAX_LANES],
    (words, mut at): (&mut [u16], usize),
) -> usize {
    for (i, &code) in codes.iter().enumerate().rev() {
        let slot = tables.slots[usize::from(code)];
        let (frequency, first) = (slot & 0xffff, slot >> 16);
        let state = &mut states[i % lanes];
        if *state >> (32 - SCALE_BITS) >= frequency {
            at -= 1;
            words[at] = *state as u16;
            *state >>= 16;
        }
        *state += tables.quotient(code.into(), *state) * (SCALE - frequency) + first;
    }
    at
}

/// The symbol, frequency and offset of every slot of every table.
#[derive(Debug, Default)]
pub(crate) struct DecodeTables {
    /// Symbol (upper 8 bits), frequency − 1 and slot − start (12 bits each).
    pub(crate) slots: Vec<u32>,
}

impl DecodeTables {
    pub(crate) fn fill(&mut self, model: &Model) {
        let tables = model.frequencies.chunks_exact(model.alphabet());
        self.slots.clear();
        self.slots.reserve_exact(tables.len() << SCALE_BITS);
        for table in tables {
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
        Level::best(),
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
    if let Some(contexts) = contexts.fill(first_row, plane.len() / width, geometry, model)
        && plane.len().is_multiple_of(width)
    {
        let slots = &tables.slots;
        let (done, used) = simd::decode_symbols(level, (plane, 0), contexts, slots, states, words);
        words = &words[used..];
        // The rest with words of zero behind, which a whole chunk does not reach.
        let mut padded = [0; 6 * LANES];
        let rest = words.len().min(2 * LANES);
        padded[..rest].copy_from_slice(&words[..rest]);
        let (done, used) =
            simd::decode_symbols(level, (plane, done), contexts, slots, states, &padded);
        if done < plane.len() || used > rest {
            return Err(end_of_words());
        }
        words = &words[used..];
    } else {
        decode_slowly(
            plane, first_row, geometry, model, tables, states, &mut words,
        )?;
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

/// [`decode`] of any geometry.
fn decode_slowly(
    plane: &mut [i8],
    first_row: usize,
    geometry: &Geometry,
    model: &Model,
    tables: &DecodeTables,
    states: &mut [u32; MAX_LANES],
    words: &mut &[u8],
) -> Result<()> {
    let width = geometry.width;
    for i in 0..plane.len() {
        let (r, c) = (i / width, i % width);
        let has_above = r > 0 && model.uses_neighbours();
        let neighbour = if has_above { kind(plane[i - width]) } else { 0 };
        let table = model.table(model.rows[first_row + r], model.channels[c]) + neighbour;
        let state = &mut states[i % geometry.lanes];
        let slot = tables.slots[(table << SCALE_BITS) + (*state % SCALE) as usize];
        plane[i] = ((slot >> 24) as u8).cast_signed();
        *state = ((slot >> 12 & 0xfff) + 1) * (*state >> SCALE_BITS) + (slot & 0xfff);
        if *state < STATE_MIN {
            let (word, rest) = words.split_first_chunk::<2>().ok_or_else(end_of_words)?;
            *state = *state << 16 | u32::from(u16::from_le_bytes(*word));
            *words = rest;
        }
    }
    Ok(())
}

fn end_of_words() -> Error {
    Error::corrupt("the symbols end early")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Noise;

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
            let model = Model::of(&geometry, &plane);
            let (mut encode, mut decode) = (EncodeTables::default(), DecodeTables::default());
            encode.fill(&model, geometry.lanes);
            decode.fill(&model);
            let mut contexts = ContextMemory::default();
            for chunk in (0..geometry.chunks()).map(|index| geometry.chunk(index)) {
                let first_row = chunk.start / geometry.width;
                let plane = &plane[chunk];
                let mut codes = vec![0; plane.len()];
                model.codes(first_row, plane, &mut codes);
                let with = |level| {
                    let mut words = vec![0; 7];
                    let (states, start) =
                        encode_with(level, &codes, geometry.lanes, &encode, &mut words);
                    (states, words[start..].to_vec())
                };
                let scalar = with(Level::SCALAR);
                assert!(Level::all().all(|level| with(level) == scalar));
                let (states, words) = scalar;
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                for level in Level::all() {
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
