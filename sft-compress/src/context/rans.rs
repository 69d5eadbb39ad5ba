//! The entropy coder of the symbols of a chunk: lanes of a range asymmetric
//! numeral system (Duda, 2013), of which element i of the chunk uses lane
//! i mod lanes, all with one stream of 16-bit words.

use crate::error::{Error, Result};

use super::geometry::Geometry;
use super::model::{Model, SCALE, SCALE_BITS, kind, rank, symbol};

/// Between symbols a lane's state is at least this; below it takes a word.
pub(crate) const STATE_MIN: u32 = 1 << 16;
pub(crate) const MAX_LANES: usize = 32;

/// What the encoder needs of a symbol in a table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slots {
    /// 2⁴⁴ / `frequency`, rounded up.
    inverse: u64,
    pub(crate) frequency: u32,
    pub(crate) start: u32,
}

impl Slots {
    /// `state` / `frequency` for a `state` below `frequency`·2²⁰.
    ///
    /// Exact: the inverse is too large by less than 1, so the product by less
    /// than 2³², and the shift by 44 keeps that below 2⁻¹² ≤ 1/`frequency`.
    /// The product is below 2⁶⁴ as `frequency`² ≤ 2²⁴.
    #[inline]
    fn quotient(&self, state: u32) -> u32 {
        ((u64::from(state) * self.inverse) >> 44) as u32
    }
}

/// The slots of every symbol of every table, by table and rank.
pub(crate) fn encode_slots(model: &Model, slots: &mut Vec<Slots>) {
    slots.clear();
    for table in model.frequencies.chunks_exact(model.alphabet()) {
        let mut start = 0;
        slots.extend(table.iter().map(|&frequency| {
            let frequency = u32::from(frequency);
            let slots = Slots {
                inverse: (1_u64 << 44).div_ceil(u64::from(frequency.max(1))),
                frequency,
                start,
            };
            start += frequency;
            slots
        }));
    }
}

/// Codes the symbols of a chunk whose first row is `first_row`. The words come
/// out in reverse, as writing goes backwards: the last symbol written is the
/// first that is read.
pub(crate) fn encode(
    plane: &[i8],
    first_row: usize,
    geometry: &Geometry,
    model: &Model,
    slots: &[Slots],
    words: &mut Vec<u16>,
) -> [u32; MAX_LANES] {
    let (width, alphabet) = (geometry.width, model.alphabet());
    let mut states = [STATE_MIN; MAX_LANES];
    words.clear();
    for (r, row) in plane.chunks(width).enumerate().rev() {
        let start = r * width;
        let above = (r > 0 && model.uses_neighbours()).then(|| &plane[start - width..start]);
        for (c, &symbol) in row.iter().enumerate().rev() {
            let neighbour = above.map_or(0, |above| kind(above[c]));
            let table = model.table(model.rows[first_row + r], model.channels[c]) + neighbour;
            let slots = &slots[table * alphabet + rank(symbol)];
            let state = &mut states[(start + c) % geometry.lanes];
            if *state >> (32 - SCALE_BITS) >= slots.frequency {
                words.push(*state as u16);
                *state >>= 16;
            }
            *state += slots.quotient(*state) * (SCALE - slots.frequency) + slots.start;
        }
    }
    states
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
    mut states: [u32; MAX_LANES],
    mut words: &[u8],
) -> Result<()> {
    let width = geometry.width;
    let rows = plane.len().div_ceil(width);
    for r in 0..rows {
        let (above, row) = plane.split_at_mut(r * width);
        let above = (r > 0 && model.uses_neighbours()).then(|| &above[(r - 1) * width..]);
        let present = row.len().min(width);
        for (c, symbol) in row[..present].iter_mut().enumerate() {
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
