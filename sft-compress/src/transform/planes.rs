//! The indices of a sample, row by row: how many channels of a row are coded, and each index by
//! what its place, its neighbours and its reference let expect.

use super::basis::Basis;
use crate::coding::adaptive::{Bit, Coder};
use crate::error::{Error, Result};

/// Classes of places, by half an octave of the expected magnitude.
const CLASSES: u32 = 24;
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
    /// The coded channels of each row of the sample.
    ends: Vec<usize>,
}

impl Models {
    /// What is expected before anything is known.
    pub(crate) fn new() -> Self {
        let some = std::array::from_fn(|class| {
            // A geometric distribution of this mean; of references, that little moved.
            let mean = match class as u32 {
                class @ 0..CLASSES => half_octaves(class.cast_signed() - ONE),
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
            ends: Vec::new(),
        }
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
        let empty = plane.iter().all(|&index| index == 0);
        if coder.bit(&mut self.empty_sample[kind], empty) {
            return Ok(());
        }
        for &row in basis.order(self.ends.len()).iter() {
            let (row, parents) = (row as usize, basis.tokens().parents(row as usize));
            let last = plane[row * channels..][..channels]
                .iter()
                .rposition(|&index| index != 0);
            let known = parents.map(|parent| parent.map(|parent| self.ends[parent]));
            let expected = basis.group_scale(row);
            let end = last.map_or(0, |last| last + 1);
            let end = self.end(coder, kind, expected, known, end);
            if end > channels {
                return Err(Error::corrupt(format!("{end} of {channels} channels")));
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
        let (channels, start) = (basis.channels(), place.row * basis.channels());
        let group = basis.group_scale(place.row) + ONE;
        let parents = place
            .parents
            .map(|parent| parent.map(|parent| parent * channels));
        let (mut before, mut second) = (0, 0);
        for channel in 0..place.end {
            let around =
                |start: Option<usize>| start.map_or(0, |start| size(plane[start + channel]));
            let near = 2 * (before + around(parents[0]) + around(parents[1])) + second;
            let class = match reference {
                None => (group + basis.channel_scale(channel))
                    .max(0)
                    .unsigned_abs()
                    .min(CLASSES - 1),
                Some(reference) => CLASSES + size(reference[start + channel]),
            };
            let index = &mut plane[start + channel];
            let is_last = channel + 1 == place.end;
            *index = self.index(coder, class as usize, near_kind(near), is_last, *index)?;
            (before, second) = (size(*index), before);
        }
        Ok(())
    }

    /// One index; the last of a row is not zero.
    fn index<C: Coder>(
        &mut self,
        coder: &mut C,
        class: usize,
        near: usize,
        is_last: bool,
        index: i32,
    ) -> Result<i32> {
        if !is_last && !coder.bit(&mut self.some[class][near], index != 0) {
            return Ok(0);
        }
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

fn bit_length(x: usize) -> usize {
    (usize::BITS - x.leading_zeros()) as usize
}

/// A magnitude as its neighbours see it.
fn size(index: i32) -> u32 {
    index.unsigned_abs().min(3)
}

fn near_kind(near: u32) -> usize {
    match near {
        0 => 0,
        1..=2 => 1,
        3..=5 => 2,
        6..=9 => 3,
        _ => 4,
    }
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
