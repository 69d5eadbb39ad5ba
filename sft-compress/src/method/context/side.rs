//! What a chunk holds besides its symbols: the ends of its rows' ranges and
//! the extra bits of its tokens, in one string of bits.

use crate::coding::bits::{BitReader, BitWriter};
use crate::error::{Error, Result};
use crate::value::ranges::{FINE_GRID_SHIFT, Grid, Span, unzigzag, zigzag};

use crate::value::token;

/// Parameters of the Rice code that the ends may use: 0 to this.
const MAX_RICE: u32 = 7;

/// Writes grid indices, as differences to the one before, with the best Rice code.
pub(crate) fn write_ends(out: &mut BitWriter, ends: &[u32]) {
    let differences = || {
        let before = [0].into_iter().chain(ends.iter().copied());
        ends.iter()
            .zip(before)
            .map(|(&end, before)| zigzag(end.cast_signed() - before.cast_signed()))
    };
    let bits = |k: u32| {
        differences()
            .map(|z| u64::from(z >> k) + 1 + u64::from(k))
            .sum::<u64>()
    };
    let k = (0..=MAX_RICE).min_by_key(|&k| bits(k)).unwrap_or(0);
    out.write(k, 3);
    for z in differences() {
        out.write_unary(z >> k);
        out.write(z & ((1 << k) - 1), k);
    }
}

/// Reads the ends one by one.
pub(crate) struct Ends {
    grid: Grid,
    rice: u32,
    previous: i32,
}

impl Ends {
    pub(crate) fn read(bits: &mut BitReader<'_>, span: Span) -> Result<Self> {
        Ok(Self {
            grid: Grid::new(span, FINE_GRID_SHIFT),
            rice: bits.read(3)?,
            previous: 0,
        })
    }

    pub(crate) fn next(&mut self, bits: &mut BitReader<'_>) -> Result<f32> {
        let max = self.grid.max_index();
        let quotient = bits.read_unary()?.min(u64::from(2 * max + 1)) as u32;
        let z = (quotient << self.rice) + bits.read(self.rice)?;
        let index = i64::from(self.previous) + i64::from(unzigzag(z));
        if !(0..=i64::from(max)).contains(&index) {
            return Err(Error::corrupt("a row's range ends outside the tensor's"));
        }
        self.previous = index as i32;
        Ok(self.grid.end(index as u32))
    }
}

/// Writes what the token of an index leaves out of it.
pub(crate) fn write_extra(out: &mut BitWriter, index: u32) {
    let bits = token::extra_bits(token::of(index));
    out.write(index & ((1 << bits) - 1), bits);
}

/// Reads the index of a token.
pub(crate) fn read_index(bits: &mut BitReader<'_>, token: u8) -> Result<u32> {
    Ok(token::first_index(token) + bits.read(token::extra_bits(token))?)
}
