//! The indices of a sample, row by row: how many channels of a row are coded, and each index by
//! what its place, its neighbours and its reference let expect.

use super::basis::Basis;
use super::rows::{KINDS, Known, NAMES, Row, RowModels};
use crate::coding::adaptive::{Bit, Coder};
use crate::error::{Error, Result};
use crate::simd::MAX_INDEX;

/// Classes of places, by half an octave of the expected magnitude.
const CLASSES: i32 = 24;
/// The class of places where a magnitude of one step is expected.
const ONE: i32 = 16;
/// Kinds of references: 0, ±1, ±2, more.
const REFERENCES: i32 = 4;
/// Where the classes of rows that name another begin.
const NAMED: i32 = CLASSES + REFERENCES;
/// Classes of places, kinds of references, and classes of rows that name another.
const TABLES: usize = (NAMED + CLASSES) as usize;
/// Kinds of neighbourhoods: on a grid, and those of a sequence behind them.
const GRID_NEAR: usize = 5;
const NEAR: usize = GRID_NEAR + 8;
/// What a row begins with as the magnitudes before, in units of 1/256.
const LATELY: usize = 100;
/// What each says of the expected magnitude.
const NEAR_MEANS: [f64; NEAR] = [
    0.4, 0.8, 1.3, 2.0, 3.0, 0.15, 0.25, 0.4, 0.6, 0.9, 1.4, 2.0, 3.0,
];
/// Magnitudes up to this are counted up to.
const COUNTED: usize = 14;
/// The most bits of what is above.
const MAX_EXPONENT: usize = 26;
/// Bits of a row's length.
const LENGTHS: usize = 17;

/// The probabilities of a frame.
pub(crate) struct Models {
    empty_sample: [Bit; KINDS],
    rows: RowModels,
    /// By kind, expected size of the row, and how many parents are empty.
    empty_row: [[[Bit; 3]; 8]; KINDS],
    /// By kind, bits of the parents' length, and bits so far.
    longer: [[[Bit; LENGTHS]; LENGTHS]; KINDS],
    /// The bit below the highest, by the number of bits.
    half: [[Bit; LENGTHS]; KINDS],
    /// Whether an index is not zero.
    some: [[Bit; NEAR]; TABLES],
    /// Whether its magnitude is larger, by quarters of the classes.
    larger: [[Bit; COUNTED]; (TABLES) / 4],
    exponent: [[Bit; MAX_EXPONENT + 1]; (TABLES) / 4],
    /// Indices that are not zero.
    kept: usize,
    /// The coded channels of each row of the sample.
    ends: Vec<usize>,
    /// Of each index of a row, how large those of its parents are, counted twice.
    around: Vec<u8>,
}

impl Models {
    /// What is expected before anything is known.
    pub(crate) fn new() -> Self {
        let some = std::array::from_fn(|class| {
            // A geometric distribution of this mean; of references, that little moved.
            let mean = match (class as u32).cast_signed() {
                class @ 0..CLASSES => half_octaves(class - ONE),
                class @ NAMED.. => half_octaves(class - NAMED - ONE),
                _ => 0.03,
            };
            NEAR_MEANS.map(|near| {
                let zero = 1.0 / (1.0 + mean * near);
                Bit::new((zero * 65536.0).clamp(128.0, 65408.0) as u16)
            })
        });
        Self {
            empty_sample: [Bit::EVEN; _],
            rows: RowModels::EVEN,
            empty_row: [[[Bit::EVEN; _]; _]; _],
            longer: [[[Bit::EVEN; _]; _]; _],
            half: [[Bit::EVEN; _]; _],
            some,
            larger: [[Bit::EVEN; COUNTED]; _],
            exponent: [[Bit::EVEN; MAX_EXPONENT + 1]; _],
            kept: 0,
            ends: Vec::new(),
            around: Vec::new(),
        }
    }

    /// How many of the indices that were coded are not zero.
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    /// Codes the indices `[S, K]` of a sample and what is known of its rows: writes them, or makes
    /// them of zeros. Where there is a reference, indices are differences to it.
    ///
    /// # Errors
    /// `Corrupt` if what is read is no such indices.
    pub(crate) fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        basis: &Basis,
        plane: &mut [i32],
        rows: &mut [Row],
        known: Known<'_>,
    ) -> Result<()> {
        let (channels, of_sample) = (basis.channels(), known.kind());
        let is_sequence = basis.tokens().sides().is_none();
        self.ends.clear();
        self.ends.resize(plane.len() / channels, 0);
        let plain = |row: &Row| !(row.sink || row.reference.is_some());
        let empty = C::WRITES
            && plane.iter().all(|&index| index == 0)
            && (of_sample == 1 || rows.iter().all(plain));
        if coder.bit(&mut self.empty_sample[of_sample], empty) {
            return Ok(());
        }
        for &row in basis.order(self.ends.len()).iter() {
            let (row, parents) = (row as usize, basis.tokens().parents(row as usize));
            self.rows.about(coder, basis.tokens(), row, rows, known)?;
            let info = rows[row];
            let kind = if info.reference.is_some() {
                NAMES
            } else {
                of_sample % NAMES
            };
            let limit = basis.row_channels(row);
            // A reader has nothing to look at yet.
            let values = &plane[row * channels..][..if C::WRITES { limit } else { 0 }];
            let (end, expected) = if is_sequence {
                let weight = self.rows.weight(coder, kind, values);
                if weight > 0 && basis.scales_rows() {
                    self.rows.scale(coder, &mut rows[row]);
                }
                let expected =
                    (weight as u32).cast_signed() - 1 - 2 * channels.ilog2().cast_signed();
                (if weight == 0 { 0 } else { limit }, expected)
            } else {
                let expected = basis.group_scale(row, info);
                let ends = parents.map(|parent| parent.map(|parent| self.ends[parent]));
                (self.end(coder, kind, expected, ends, end(values)), expected)
            };
            if end > limit {
                return Err(Error::corrupt(format!("{end} of {limit} channels")));
            }
            self.ends[row] = end;
            let class = match known {
                Known::Sample(reference) => Class::Reference(&reference[row * channels..]),
                _ if kind == NAMES => Class::Expected(NAMED, expected),
                _ => Class::Expected(0, expected),
            };
            let place = Place {
                row,
                parents,
                end,
                class,
                is_sequence,
            };
            self.row(coder, basis, place, plane)?;
        }
        Ok(())
    }

    /// How many channels of a row are coded.
    fn end<C: Coder>(
        &mut self,
        coder: &mut C,
        kind: usize,
        expected: i32,
        parents: [Option<usize>; 2],
        end: usize,
    ) -> usize {
        let empty = parents.iter().filter(|parent| **parent == Some(0)).count();
        let expected = (expected + 8).clamp(0, 15) as usize / 2;
        if coder.bit(&mut self.empty_row[kind][expected][empty], end == 0) {
            return 0;
        }
        let longest = parents.into_iter().flatten().max().unwrap_or(0);
        let models = &mut self.longer[kind][bit_length(longest)];
        let (wanted, mut bits) = (bit_length(end), 1);
        while bits < LENGTHS - 1 && coder.bit(&mut models[bits], bits < wanted) {
            bits += 1;
        }
        if bits == 1 {
            return 1;
        }
        let below = bits as u32 - 2;
        let half = coder.bit(&mut self.half[kind][bits], end >> below & 1 == 1);
        let rest = coder.raw(end as u32 & ((1 << below) - 1), below) as usize;
        1 << (bits - 1) | usize::from(half) << below | rest
    }

    fn row<C: Coder>(
        &mut self,
        coder: &mut C,
        basis: &Basis,
        place: Place<'_>,
        plane: &mut [i32],
    ) -> Result<()> {
        let channels = basis.channels();
        let (above, row) = plane.split_at_mut(place.row * channels);
        let row = &mut row[..place.end];
        let mut around = std::mem::take(&mut self.around);
        around.clear();
        if !place.is_sequence {
            around.resize(row.len(), 0);
            for parent in place.parents.into_iter().flatten() {
                let end = self.ends[parent].min(row.len());
                let parent = &above[parent * channels..][..end];
                for (around, index) in around.iter_mut().zip(parent) {
                    *around += 2 * size(*index) as u8;
                }
            }
        }
        let around_row = (!place.is_sequence).then_some(&around[..]);
        let coded = match place.class {
            Class::Expected(first, expected) => {
                let class = |scale: &i8| {
                    let class = expected + ONE + i32::from(*scale);
                    (first + class.clamp(0, CLASSES - 1)) as usize
                };
                let classes = basis.channel_scales().iter().map(class);
                self.indices(coder, row, around_row, classes)
            }
            Class::Reference(reference) => {
                let class = |index: &i32| CLASSES as usize + size(*index);
                self.indices(coder, row, around_row, reference.iter().map(class))
            }
        };
        self.around = around;
        coded
    }

    /// The indices of a row, by its class and by what is around each in other rows of a grid, or was
    /// before in a sequence.
    fn indices<C: Coder>(
        &mut self,
        coder: &mut C,
        row: &mut [i32],
        around: Option<&[u8]>,
        classes: impl Iterator<Item = usize>,
    ) -> Result<()> {
        match around {
            Some(around) => self.of_grid(coder, row, around, classes),
            None => self.of_sequence(coder, row, classes),
        }
    }

    fn of_grid<C: Coder>(
        &mut self,
        coder: &mut C,
        row: &mut [i32],
        around: &[u8],
        classes: impl Iterator<Item = usize>,
    ) -> Result<()> {
        let (end, mut before, mut second) = (row.len(), 0, 0);
        for (at, ((index, around), class)) in row.iter_mut().zip(around).zip(classes).enumerate() {
            let near = usize::from(*around) + 2 * before + second;
            let some = &mut self.some[class][NEAR_KINDS[near]];
            // The last of a row is not zero.
            if at + 1 < end && !coder.bit(some, *index != 0) {
                (before, second) = (0, before);
                continue;
            }
            *index = self.some_index(coder, class, *index)?;
            (before, second) = (size(*index), before);
        }
        Ok(())
    }

    fn of_sequence<C: Coder>(
        &mut self,
        coder: &mut C,
        row: &mut [i32],
        classes: impl Iterator<Item = usize>,
    ) -> Result<()> {
        let mut lately = LATELY;
        for (index, class) in row.iter_mut().zip(classes) {
            let some = &mut self.some[class][lately_kind(lately)];
            lately -= lately / 16;
            if coder.bit(some, *index != 0) {
                *index = self.some_index(coder, class, *index)?;
                lately += 16 * size(*index);
            }
        }
        Ok(())
    }

    /// An index that is not zero.
    fn some_index<C: Coder>(&mut self, coder: &mut C, class: usize, index: i32) -> Result<i32> {
        self.kept += 1;
        let (wanted, mut magnitude) = (index.unsigned_abs() as usize, 1);
        let larger = &mut self.larger[class / 4];
        while magnitude < COUNTED && coder.bit(&mut larger[magnitude], magnitude < wanted) {
            magnitude += 1;
        }
        if magnitude == COUNTED {
            magnitude += self.above(coder, class, wanted.saturating_sub(COUNTED))?;
        }
        let magnitude = (magnitude as u32).cast_signed();
        // A difference may be twice as large.
        if class < CLASSES as usize && magnitude >= MAX_INDEX {
            return Err(Error::corrupt("an index out of range"));
        }
        Ok(if coder.raw(u32::from(index < 0), 1) == 1 {
            -magnitude
        } else {
            magnitude
        })
    }

    /// What a magnitude has above those that are counted up to.
    fn above<C: Coder>(&mut self, coder: &mut C, class: usize, above: usize) -> Result<usize> {
        let models = &mut self.exponent[class / 4];
        let (wanted, mut bits) = (bit_length(above + 1) - 1, 0);
        while coder.bit(&mut models[bits], bits < wanted) {
            bits += 1;
            if bits > MAX_EXPONENT {
                return Err(Error::corrupt(format!("an index above 2^{MAX_EXPONENT}")));
            }
        }
        let low = coder.raw((above + 1) as u32 & ((1 << bits) - 1), bits as u32);
        Ok((1 << bits | low as usize) - 1)
    }
}

/// A row that is coded.
#[derive(Clone, Copy)]
struct Place<'a> {
    row: usize,
    parents: [Option<usize>; 2],
    end: usize,
    class: Class<'a>,
    is_sequence: bool,
}

/// What tells the classes of a row.
#[derive(Clone, Copy)]
enum Class<'a> {
    /// The first of these classes, and the expected size of the row.
    Expected(i32, i32),
    /// What the row was.
    Reference(&'a [i32]),
}

/// One more than the place of the last index that is not zero, 0 without any.
fn end(indices: &[i32]) -> usize {
    let is_some = |part: &[i32]| part.iter().fold(0, |bits, index| bits | index) != 0;
    let part = indices.chunks(16).rposition(is_some).unwrap_or(0);
    let mut some = indices.iter().take(16 * part + 16);
    some.rposition(|&index| index != 0)
        .map_or(0, |last| last + 1)
}

fn bit_length(x: usize) -> usize {
    (usize::BITS - x.leading_zeros()) as usize
}

/// A magnitude as its neighbours see it.
fn size(index: i32) -> usize {
    index.unsigned_abs().min(3) as usize
}

/// The kind of a neighbourhood by what it adds up to.
const NEAR_KINDS: [usize; 22] = [
    0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
];

fn lately_kind(lately: usize) -> usize {
    let above = |bound: &&usize| lately >= **bound;
    GRID_NEAR + [8, 16, 32, 64, 128, 224, 400].iter().filter(above).count()
}

/// 2 to the power of so many halves.
fn half_octaves(halves: i32) -> f64 {
    let whole = 2.0_f64.powi(halves.div_euclid(2));
    if halves.rem_euclid(2) == 1 {
        whole * std::f64::consts::SQRT_2
    } else {
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coding::adaptive::{Reader, Writer};

    /// Places without a reference take no index that a difference may have.
    #[test]
    fn an_index_out_of_range_is_refused_where_nothing_was_expected() {
        let difference = CLASSES as usize;
        for (index, is_taken) in [(1 - MAX_INDEX, true), (MAX_INDEX, false)] {
            let mut bytes = Vec::new();
            let mut writer = Writer::new(&mut bytes);
            let coded = Models::new().some_index(&mut writer, difference, index);
            assert_eq!(coded.unwrap(), index);
            writer.finish();
            let read = |class| Models::new().some_index(&mut Reader::new(&bytes), class, 0);
            assert_eq!(read(difference).unwrap(), index);
            assert_eq!(read(0).is_ok(), is_taken);
        }
    }
}
