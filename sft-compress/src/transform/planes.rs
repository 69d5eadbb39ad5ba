//! The indices of a sample, row by row: how many channels of a row are coded, and each index by
//! what its place, its neighbours and its reference let expect.

use super::basis::Basis;
use crate::coding::adaptive::{Bit, Coder};
use crate::error::{Error, Result};

/// Classes of places, by half an octave of the expected magnitude.
const CLASSES: i32 = 24;
/// The class of places where a magnitude of one step is expected.
const ONE: i32 = 16;
/// Kinds of references: 0, ±1, ±2, more.
const REFERENCES: usize = 4;
/// Classes of places and kinds of references.
const TABLES: usize = CLASSES as usize + REFERENCES;
/// Kinds of neighbourhoods.
const NEAR: usize = 5;
/// Magnitudes up to this are counted up to.
const COUNTED: usize = 14;
/// The most bits of what is above.
const MAX_EXPONENT: usize = 26;
/// Bits of a row's length.
const LENGTHS: usize = 17;

/// The probabilities of a frame.
pub(crate) struct Models {
    empty_sample: [Bit; 2],
    /// By kind (with a reference or not), expected size of the row, and how many parents are empty.
    empty_row: [[[Bit; 3]; 8]; 2],
    /// By kind, bits of the parents' length, and bits so far.
    longer: [[[Bit; LENGTHS]; LENGTHS]; 2],
    /// The bit below the highest, by the number of bits.
    half: [[Bit; LENGTHS]; 2],
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
                _ => 0.03,
            };
            [0.4, 0.8, 1.3, 2.0, 3.0].map(|near| {
                let zero = 1.0 / (1.0 + mean * near);
                Bit::new((zero * 65536.0).clamp(128.0, 65408.0) as u16)
            })
        });
        Self {
            empty_sample: [Bit::EVEN; 2],
            empty_row: [[[Bit::EVEN; 3]; 8]; 2],
            longer: [[[Bit::EVEN; LENGTHS]; LENGTHS]; 2],
            half: [[Bit::EVEN; LENGTHS]; 2],
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

    /// Codes the indices `[S, K]` of a sample: writes them, or makes them of zeros. With a
    /// `reference`, they are differences to it.
    ///
    /// # Errors
    /// `Corrupt` if what is read is no such indices.
    pub(crate) fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        basis: &Basis,
        plane: &mut [i32],
        reference: Option<&[i32]>,
    ) -> Result<()> {
        let (channels, kind) = (basis.channels(), usize::from(reference.is_some()));
        self.ends.clear();
        self.ends.resize(plane.len() / channels, 0);
        let empty = C::WRITES && plane.iter().all(|&index| index == 0);
        if coder.bit(&mut self.empty_sample[kind], empty) {
            return Ok(());
        }
        for &row in basis.order(self.ends.len()).iter() {
            let (row, parents) = (row as usize, basis.tokens().parents(row as usize));
            let limit = basis.row_channels(row);
            let end = if C::WRITES {
                end(&plane[row * channels..][..limit])
            } else {
                0
            };
            let known = parents.map(|parent| parent.map(|parent| self.ends[parent]));
            let expected = basis.group_scale(row);
            let end = self.end(coder, kind, expected, known, end);
            if end > limit {
                return Err(Error::corrupt(format!("{end} of {limit} channels")));
            }
            self.ends[row] = end;
            let place = Place { row, parents, end };
            self.row(coder, basis, place, plane, reference)?;
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
        place: Place,
        plane: &mut [i32],
        reference: Option<&[i32]>,
    ) -> Result<()> {
        let channels = basis.channels();
        let (above, row) = plane.split_at_mut(place.row * channels);
        let row = &mut row[..place.end];
        let mut around = std::mem::take(&mut self.around);
        around.clear();
        around.resize(row.len(), 0);
        for parent in place.parents.into_iter().flatten() {
            let end = self.ends[parent].min(row.len());
            let parent = &above[parent * channels..][..end];
            for (around, index) in around.iter_mut().zip(parent) {
                *around += 2 * size(*index) as u8;
            }
        }
        let group = basis.group_scale(place.row) + ONE;
        let scales = basis.channel_scales().iter();
        let coded = match reference {
            None => {
                let class = |scale: &i8| (group + i32::from(*scale)).clamp(0, CLASSES - 1) as usize;
                self.indices(coder, row, &around, scales.map(class))
            }
            Some(reference) => {
                let reference = &reference[place.row * channels..][..channels];
                let class = |index: &i32| CLASSES as usize + size(*index);
                self.indices(coder, row, &around, reference.iter().map(class))
            }
        };
        self.around = around;
        coded
    }

    /// The indices of a row, by what is around each in other rows, and by its class.
    fn indices<C: Coder>(
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
struct Place {
    row: usize,
    parents: [Option<usize>; 2],
    end: usize,
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

/// 2 to the power of so many halves.
fn half_octaves(halves: i32) -> f64 {
    let whole = 2.0_f64.powi(halves.div_euclid(2));
    if halves.rem_euclid(2) == 1 {
        whole * std::f64::consts::SQRT_2
    } else {
        whole
    }
}
