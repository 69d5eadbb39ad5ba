//! What is told of the rows of a sequence before their indices.

use super::tokens::Tokens;
use crate::coding::adaptive::{Bit, Coder};
use crate::error::{Error, Result};

/// Bits of the step of a row.
const SCALE_BITS: usize = 6;
/// The largest step of a row, and the least less 1.
pub(crate) const MOST_SCALE: i8 = 1 << (SCALE_BITS - 1);
/// Bits of a row's weight.
const WEIGHT_BITS: usize = 7;
/// What is known of a row beside its indices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    /// Whether it has mean and step of the first token.
    pub(crate) sink: bool,
    /// What its indices are differences to.
    pub(crate) reference: Option<Reference>,
    /// Of a basis with steps by row, that of its step over the group's, in half octaves.
    pub(crate) scale: i8,
}

/// An earlier row, and how much of it is expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Rows between it and the sample.
    pub(crate) back: usize,
    /// In quarters: 2, 3 or 4.
    pub(crate) quarters: u32,
}

/// What the indices of a sample may be differences to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Known<'a> {
    Nothing,
    /// What the sample was.
    Sample(&'a [i32]),
    /// So many rows, of which each row may name one.
    Rows(usize),
}

impl Known<'_> {
    pub(super) fn kind(&self) -> usize {
        match self {
            Self::Nothing | Self::Rows(0) => 0,
            Self::Sample(_) => 1,
            Self::Rows(_) => NAMES,
        }
    }
}

/// The kind of rows that name another.
pub(super) const NAMES: usize = 2;
/// Kinds of rows.
pub(super) const KINDS: usize = 3;

/// The probabilities of what is told of rows.
pub(super) struct RowModels {
    /// By whether the row before is one.
    sink: [Bit; 2],
    /// By whether the row before names one.
    named: [Bit; 2],
    /// Whether it names the row behind the one that the row before names.
    next: Bit,
    whole: Bit,
    more: Bit,
    scales: [Bit; 1 << SCALE_BITS],
    /// By kind.
    weights: [[Bit; 1 << WEIGHT_BITS]; KINDS],
}

impl RowModels {
    pub(super) const EVEN: Self = Self {
        sink: [Bit::EVEN; _],
        named: [Bit::EVEN; _],
        next: Bit::EVEN,
        whole: Bit::EVEN,
        more: Bit::EVEN,
        scales: [Bit::EVEN; _],
        weights: [[Bit::EVEN; _]; _],
    };

    /// The step of a row.
    pub(super) fn scale<C: Coder>(&mut self, coder: &mut C, row: &mut Row) {
        let scale = (row.scale + MOST_SCALE).cast_unsigned();
        let scale = tree(coder, &mut self.scales, SCALE_BITS, scale.into());
        row.scale = (scale as u8).cast_signed() - MOST_SCALE;
    }

    /// The weight of a row of these values, or the one that is read.
    pub(super) fn weight<C: Coder>(&mut self, coder: &mut C, kind: usize, row: &[i32]) -> usize {
        tree(coder, &mut self.weights[kind], WEIGHT_BITS, weight(row))
    }

    /// Whether a row is like the first token, and which it names.
    pub(super) fn about<C: Coder>(
        &mut self,
        coder: &mut C,
        tokens: Tokens,
        number: usize,
        rows: &mut [Row],
        known: Known<'_>,
    ) -> Result<()> {
        let before = number
            .checked_sub(1)
            .map_or(Row::default(), |before| rows[before]);
        let row = &mut rows[number];
        if tokens.has_sinks() && number >= tokens.prefix() && !matches!(known, Known::Sample(_)) {
            row.sink = coder.bit(&mut self.sink[usize::from(before.sink)], row.sink);
        }
        let Known::Rows(count @ 1..) = known else {
            return Ok(());
        };
        let named = &mut self.named[usize::from(before.reference.is_some())];
        let Reference { back, quarters } = row.reference.unwrap_or_default();
        row.reference = None;
        if !coder.bit(named, quarters > 0) {
            return Ok(());
        }
        let next = before
            .reference
            .and_then(|reference| reference.back.checked_sub(1));
        let back = match next {
            Some(next) if coder.bit(&mut self.next, back == next) => next,
            _ => coder.raw(back as u32, bit_length(count - 1)) as usize,
        };
        if back >= count {
            return Err(Error::corrupt(format!("row {back} of {count}")));
        }
        let quarters = if coder.bit(&mut self.whole, quarters == 4) {
            4
        } else {
            2 + u32::from(coder.bit(&mut self.more, quarters == 3))
        };
        row.reference = Some(Reference { back, quarters });
        Ok(())
    }
}

/// A number of so many bits, as the decisions of a tree from the highest down.
fn tree<C: Coder>(coder: &mut C, models: &mut [Bit], bits: usize, number: usize) -> usize {
    let mut node = 1;
    for at in (0..bits).rev() {
        let bit = coder.bit(&mut models[node], number >> at & 1 == 1);
        node = 2 * node + usize::from(bit);
    }
    node - (1 << bits)
}

/// The sum of a row's magnitudes in half octaves, 1 for a sum of 1, 0 for none.
fn weight(row: &[i32]) -> usize {
    let sum: u64 = row.iter().map(|x| u64::from(x.unsigned_abs())).sum();
    let Some(whole) = sum.checked_ilog2() else {
        return 0;
    };
    let square = u128::from(sum) * u128::from(sum);
    1 + 2 * whole as usize + usize::from(square >> (2 * whole + 1) > 0)
}

fn bit_length(x: usize) -> u32 {
    usize::BITS - x.leading_zeros()
}
