//! Golomb codes of non-negative integers, and sections of them.

/// One code.
mod code;
/// Which code is the shortest for given values.
mod histogram;
/// Reading several values at once.
mod pack;

use crate::coding::bits::{BitReader, BitWriter};
use crate::coding::bytes::{ByteReader, put_varint};
use crate::error::{Error, Result};

use code::Golomb;
use histogram::Histogram;
use pack::{PACKED, PackTable};

/// Values below this have their codes in a table.
const SMALL: usize = 256;

/// Codes of the small values, which are most, ready to be written.
struct CodeTable {
    code: Golomb,
    /// Code and length; a length of 0 where it is not of at most 32 bits.
    small: [(u32, u32); SMALL],
}

impl CodeTable {
    /// Codes of values up to `max`.
    fn new(code: Golomb, max: u32) -> Self {
        let mut small = [(0, 0); SMALL];
        for (value, entry) in (0..=max).zip(&mut small) {
            let quotient = value / code.m;
            if quotient + 2 + code.short_bits > 32 {
                break;
            }
            let (remainder, bits) = code.remainder(value);
            *entry = (
                1 << quotient | remainder << quotient << 1,
                quotient + 1 + bits,
            );
        }
        Self { code, small }
    }

    fn write(&self, out: &mut BitWriter, value: u32) {
        match self.small.get(value as usize) {
            Some(&(word, bits)) if bits > 0 => out.write(word, bits),
            _ => self.code.write(out, value),
        }
    }
}

/// Appends `values` with the divisor, of the form 2ᵏ or 3·2ᵏ, that makes them
/// shortest; nothing at all if there are none. `scratch` is memory to work in.
pub(crate) fn write_section(
    out: &mut Vec<u8>,
    values: impl Iterator<Item = u32> + Clone,
    scratch: &mut Vec<u32>,
) {
    let histogram = Histogram::new(values.clone(), scratch);
    if histogram.is_empty() {
        return;
    }
    let code = histogram.best_code();
    put_varint(out, code.m.into());
    put_varint(out, histogram.total_bits(code).div_ceil(8));
    let table = CodeTable::new(code, histogram.max);
    let mut bits = BitWriter::appending(std::mem::take(out));
    for value in values {
        table.write(&mut bits, value);
    }
    *out = bits.finish();
}

/// Reads the values of a section one by one.
pub(crate) struct SectionReader<'a> {
    code: Golomb,
    bits: BitReader<'a>,
}

impl<'a> SectionReader<'a> {
    /// Takes the section of `count` values off the front of `body`.
    pub(crate) fn new(body: &mut ByteReader<'a>, count: usize) -> Result<Self> {
        if count == 0 {
            return Ok(Self {
                code: Golomb::new(1),
                bits: BitReader::new(&[]),
            });
        }
        let m = body.varint_up_to(u32::MAX as usize, "a Golomb divisor")? as u32;
        if m == 0 {
            return Err(Error::corrupt("a Golomb divisor is 0"));
        }
        let len = body.varint_up_to(body.remaining(), "the length of a section")?;
        Ok(Self {
            code: Golomb::new(m),
            bits: BitReader::new(body.take(len)?),
        })
    }

    /// The next value, which must be at most `max`.
    pub(crate) fn next(&mut self, max: u32) -> Result<u32> {
        let value = self.code.read(&mut self.bits)?;
        u32::try_from(value)
            .ok()
            .filter(|&value| value <= max)
            .ok_or_else(|| {
                Error::corrupt(format!(
                    "a coded value is {value}, above the possible {max}"
                ))
            })
    }

    /// Appends to `sums`, for each of the `count` values that are all the
    /// section holds, how many numbers lie before it: the values so far and one
    /// for each of these but the last. All must be below `limit`, at most 2³².
    pub(crate) fn read_sums(mut self, count: usize, limit: u64, sums: &mut Vec<u32>) -> Result<()> {
        let (mut next, start) = (0_u64, sums.len());
        let end = start + count;
        sums.resize(end + PACKED, 0);
        let mut at = start;
        if count > PackTable::ENTRIES / 8 {
            let table = PackTable::new(self.code);
            while at + PACKED <= end && next < limit {
                let Some(pack) = table.next(&mut self.bits) else {
                    break;
                };
                if pack.count == 0 {
                    (sums[at], next) = self.sum(next, limit)?;
                    at += 1;
                    continue;
                }
                for (sum, before) in sums[at..at + PACKED].iter_mut().zip(pack.before) {
                    *sum = next as u32 + u32::from(before);
                }
                at += usize::from(pack.count);
                next += u64::from(pack.sum);
            }
        }
        while at < end {
            (sums[at], next) = self.sum(next, limit)?;
            at += 1;
        }
        sums.truncate(end);
        if next > limit {
            return Err(behind_the_last());
        }
        self.finish()
    }

    /// The number that lies the next value behind `next`, and the one behind it.
    fn sum(&mut self, next: u64, limit: u64) -> Result<(u32, u64)> {
        let sum = next.saturating_add(self.code.read(&mut self.bits)?);
        if sum >= limit {
            return Err(behind_the_last());
        }
        Ok((sum as u32, sum + 1))
    }

    /// Checks that the section holds nothing more.
    pub(crate) fn finish(self) -> Result<()> {
        self.bits.finish()
    }
}

fn behind_the_last() -> Error {
    Error::corrupt("a position lies behind the last element")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The code as a string, by the format's definition.
    fn oracle(m: u32, value: u32) -> String {
        let m = u64::from(m);
        let b = (0..32).take_while(|&b| 1 << b <= m).count() - 1;
        let c = (2 << b) - m;
        let lsb_first = |number: u64, bits: usize| -> String {
            let digit = |i| if number >> i & 1 == 1 { '1' } else { '0' };
            (0..bits).map(digit).collect()
        };
        let (quotient, r) = (u64::from(value) / m, u64::from(value) % m);
        let remainder = if r < c {
            lsb_first(r, b)
        } else {
            lsb_first((r + c) >> 1, b) + &lsb_first((r + c) & 1, 1)
        };
        "0".repeat(quotient as usize) + "1" + &remainder
    }

    #[test]
    fn examples_of_the_format() {
        let codes = [0, 1, 2, 7].map(|value| oracle(3, value));
        assert_eq!(codes, ["10", "110", "111", "00110"]);
        assert_eq!(oracle(4, 5), "0110");
        assert_eq!(oracle(1, 3), "0001");
    }

    fn to_bit_string(bytes: &[u8]) -> String {
        bytes
            .iter()
            .flat_map(|byte| (0..8).map(move |i| if byte >> i & 1 == 1 { '1' } else { '0' }))
            .collect()
    }

    fn write_all(code: Golomb, max: u32, values: &[u32]) -> Vec<u8> {
        let table = CodeTable::new(code, max);
        let mut out = BitWriter::appending(Vec::new());
        for &value in values {
            table.write(&mut out, value);
        }
        out.finish()
    }

    proptest! {
        #[test]
        fn codes_equal_the_bit_strings(m in 1_u32..200, values in prop::collection::vec(0_u32..3000, 1..50)) {
            let code = Golomb::new(m);
            let expected: String = values.iter().map(|&value| oracle(m, value)).collect();
            let bytes = write_all(code, 3000, &values);
            let written = to_bit_string(&bytes);
            prop_assert_eq!(&written[..expected.len()], expected.as_str());
            prop_assert_eq!(values.iter().map(|&value| code.bits(value)).sum::<u64>(), expected.len() as u64);
            let mut bits = BitReader::new(&bytes);
            for value in values {
                prop_assert_eq!(code.read(&mut bits), Ok(u64::from(value)));
            }
            bits.finish().unwrap();
        }

        #[test]
        fn the_slow_reader_agrees(m in 1_u32..10_000, values in prop::collection::vec(0_u32..100_000, 1..50)) {
            let code = Golomb::new(m);
            let bytes = write_all(code, 100_000, &values);
            let (mut fast, mut slow) = (BitReader::new(&bytes), BitReader::new(&bytes));
            for _ in values {
                prop_assert_eq!(code.read(&mut fast), code.read_slowly(&mut slow));
            }
        }

        #[test]
        fn sums_equal_the_values_one_by_one(seed in any::<u64>(), m in 1_u32..600, extra in 0_u64..3) {
            let noise = crate::value::Noise::new(seed);
            let values: Vec<u32> = (0..1000)
                .map(|i| (f64::from(m) * -crate::math::log2(1.0 - noise.uniform(i))) as u32)
                .collect();
            let mut slow: Vec<u32> = Vec::new();
            for &value in &values {
                slow.push(slow.last().map_or(0, |last| last + 1) + value);
            }
            let mut bytes = Vec::new();
            write_section(&mut bytes, values.iter().copied(), &mut Vec::new());
            let limit = u64::from(slow[999]) + extra;
            let section = SectionReader::new(&mut ByteReader::new(&bytes), 1000).unwrap();
            let mut sums = vec![9];
            let read = section.read_sums(1000, limit, &mut sums);
            prop_assert_eq!(read.is_ok(), extra > 0);
            if extra > 0 {
                prop_assert_eq!(&sums[1..], &slow);
            }
        }

        #[test]
        fn sections_round_trip(values in prop::collection::vec(0_u32..=u32::MAX >> 8, 0..100)) {
            let mut bytes = Vec::new();
            write_section(&mut bytes, values.iter().copied(), &mut Vec::new());
            let mut body = ByteReader::new(&bytes);
            let mut section = SectionReader::new(&mut body, values.len()).unwrap();
            for value in values {
                prop_assert_eq!(section.next(value), Ok(value));
            }
            section.finish().unwrap();
            body.finish().unwrap();
        }
    }

    #[test]
    fn the_divisor_is_the_best_candidate() {
        // 20 % kept at random: 3 beats the Rice codes 2 and 4.
        let gaps: Vec<u32> = (0_u32..40)
            .flat_map(|gap| vec![gap; (1000.0 * 0.8_f64.powi(gap.cast_signed())) as usize])
            .collect();
        let mut large = Vec::new();
        let histogram = Histogram::new(gaps.into_iter(), &mut large);
        assert_eq!(histogram.best_code(), Golomb::new(3));
        let best = histogram.total_bits(Golomb::new(3));
        for m in 1..100 {
            assert!(histogram.total_bits(Golomb::new(m)) >= best);
        }
        let best = |values: &[u32]| {
            let mut large = Vec::new();
            Histogram::new(values.iter().copied(), &mut large).best_code()
        };
        assert_eq!(best(&[0, 0]), Golomb::new(1));
        assert_eq!(best(&[u32::MAX >> 1]).m, 1 << 30);
    }

    #[test]
    fn values_above_the_limit_and_bad_divisors_are_rejected() {
        let mut bytes = Vec::new();
        write_section(&mut bytes, [5].into_iter(), &mut Vec::new());
        let mut section = SectionReader::new(&mut ByteReader::new(&bytes), 1).unwrap();
        assert!(section.next(4).is_err());
        assert!(SectionReader::new(&mut ByteReader::new(&[0, 1, 1]), 1).is_err());
        assert!(SectionReader::new(&mut ByteReader::new(&[1, 2, 1]), 1).is_err());
    }
}
