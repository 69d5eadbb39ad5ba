use crate::bits::{BitReader, BitWriter};
use crate::bytes::{ByteReader, put_varint};
use crate::error::{Error, Result};

/// The Golomb code of divisor `m ≥ 1`: quotient in unary, remainder in
/// truncated binary.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Golomb {
    m: u32,
    /// Length of a short remainder; a long one has a bit more.
    short_bits: u32,
    /// Number of short remainders.
    short_count: u32,
}

impl Golomb {
    fn new(m: u32) -> Self {
        let short_bits = m.ilog2();
        let short_count = (1_u64 << (short_bits + 1)) - u64::from(m);
        Self {
            m,
            short_bits,
            short_count: short_count as u32,
        }
    }

    /// The length of the code of `value`.
    fn bits(self, value: u32) -> u64 {
        let long = value % self.m >= self.short_count;
        u64::from(value / self.m) + 1 + u64::from(self.short_bits) + u64::from(long)
    }

    fn write(self, out: &mut BitWriter, value: u32) {
        out.write_unary(value / self.m);
        let (remainder, bits) = self.remainder(value);
        out.write(remainder, bits);
    }

    /// The code of the remainder of `value` and its length.
    ///
    /// A long remainder's last bit comes behind the others, so that a reader
    /// sees first whether it is long.
    fn remainder(self, value: u32) -> (u32, u32) {
        let remainder = value % self.m;
        if remainder < self.short_count {
            return (remainder, self.short_bits);
        }
        let long = remainder + self.short_count;
        (
            long >> 1 | (long & 1) << self.short_bits,
            self.short_bits + 1,
        )
    }

    /// The next value, which may be too large for any use.
    fn read(self, bits: &mut BitReader<'_>) -> Result<u64> {
        let (peeked, available) = bits.peek();
        let zeros = peeked.trailing_zeros();
        if zeros + 2 + self.short_bits > available {
            return self.read_slowly(bits);
        }
        let peeked = peeked >> zeros >> 1;
        let prefix = peeked & ((1 << self.short_bits) - 1);
        let last = peeked >> self.short_bits & 1;
        // Whether it is long is a coin toss, so this avoids a branch.
        let long = u64::from(prefix >= u64::from(self.short_count));
        let remainder =
            prefix.wrapping_add(long * (prefix + last).wrapping_sub(self.short_count.into()));
        bits.consume(zeros + 1 + self.short_bits + long as u32);
        Ok(u64::from(zeros) * u64::from(self.m) + remainder)
    }

    /// The value at the front of a string of bits, of which the highest one
    /// only marks the end, and the length of its code; none if it ends before.
    fn in_string(self, string: u32) -> Option<(u16, u8)> {
        let available = string.ilog2();
        let zeros = string.trailing_zeros();
        if zeros + 1 + self.short_bits > available {
            return None;
        }
        let string = string >> zeros >> 1;
        let prefix = string & ((1 << self.short_bits) - 1);
        let long = prefix >= self.short_count;
        let bits = zeros + 1 + self.short_bits + u32::from(long);
        if bits > available {
            return None;
        }
        let last = string >> self.short_bits & 1;
        let remainder = if long {
            2 * prefix + last - self.short_count
        } else {
            prefix
        };
        Some(((zeros * self.m + remainder) as u16, bits as u8))
    }

    /// [`read`](Self::read) of a long code or near the end of the section.
    #[cold]
    fn read_slowly(self, bits: &mut BitReader<'_>) -> Result<u64> {
        let quotient = bits.read_unary()?;
        let mut remainder = u64::from(bits.read(self.short_bits)?);
        if remainder >= u64::from(self.short_count) {
            remainder = 2 * remainder + u64::from(bits.read(1)?) - u64::from(self.short_count);
        }
        Ok(quotient
            .saturating_mul(u64::from(self.m))
            .saturating_add(remainder))
    }
}

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

/// The multiset of values, with the small and frequent ones counted.
struct Histogram<'a> {
    counts: [u32; SMALL],
    large: &'a [u32],
    max: u32,
}

impl<'a> Histogram<'a> {
    fn new(values: impl Iterator<Item = u32>, large: &'a mut Vec<u32>) -> Self {
        // In two parts, as counting the same value twice in a row is slow.
        let mut counts = [[0; SMALL]; 2];
        large.clear();
        for (i, value) in values.enumerate() {
            match counts[i % 2].get_mut(value as usize) {
                Some(count) => *count += 1,
                None => large.push(value),
            }
        }
        let [first, second] = counts;
        let counts: [u32; SMALL] = std::array::from_fn(|value| first[value] + second[value]);
        let small = counts.iter().rposition(|&count| count > 0).unwrap_or(0);
        let max = large.iter().copied().max().unwrap_or(small as u32);
        Self { counts, large, max }
    }

    fn is_empty(&self) -> bool {
        self.large.is_empty() && self.counts == [0; SMALL]
    }

    /// The code with the fewest bits in total; of equals that of the smallest divisor.
    fn best_code(&self) -> Golomb {
        (0..31)
            .flat_map(|k| [1 << k, (3 << k) / 2])
            .take_while(|&m| m / 2 <= self.max)
            .map(Golomb::new)
            .min_by_key(|&code| self.total_bits(code))
            .unwrap_or(Golomb::new(1))
    }

    fn total_bits(&self, code: Golomb) -> u64 {
        let small = (0..=self.max)
            .zip(&self.counts)
            .map(|(value, &count)| u64::from(count) * code.bits(value));
        let large = self.large.iter().map(|&value| code.bits(value));
        small.chain(large).sum()
    }
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

/// Values that one look into a [`PackTable`] may read.
const PACKED: usize = 3;

/// Some values whose codes lie one behind the other.
#[derive(Clone, Copy, Default)]
struct Pack {
    /// How many, 0 if the first code is too long.
    count: u8,
    /// The length of their codes.
    bits: u8,
    /// The values and one for each.
    sum: u16,
    /// The same before each value, and the value.
    before: [u16; PACKED],
}

/// The values at the front of all strings of a few bits.
struct PackTable {
    packs: [Pack; Self::ENTRIES],
}

impl PackTable {
    const BITS: u32 = 10;
    const ENTRIES: usize = 1 << Self::BITS;

    fn new(code: Golomb) -> Self {
        let mut packs = [Pack::default(); Self::ENTRIES];
        for (string, pack) in packs.iter_mut().enumerate() {
            let mut rest = string;
            while usize::from(pack.count) < PACKED {
                // A one above marks where the string ends.
                let ended = rest | 1 << (Self::BITS - u32::from(pack.bits));
                let Some((value, bits)) = code.in_string(ended as u32) else {
                    break;
                };
                pack.before[usize::from(pack.count)] = pack.sum + value;
                pack.sum += value + 1;
                (pack.count, pack.bits) = (pack.count + 1, pack.bits + bits);
                rest >>= bits;
            }
        }
        Self { packs }
    }

    /// The values that come next; none near the end of the bits.
    #[inline]
    fn next(&self, bits: &mut BitReader<'_>) -> Option<Pack> {
        let (peeked, available) = bits.peek();
        if available < Self::BITS {
            return None;
        }
        let pack = self.packs[peeked as usize % Self::ENTRIES];
        bits.consume(pack.bits.into());
        Some(pack)
    }
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
            let noise = crate::quantize::Noise::new(seed);
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
