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

/// Codes of the small values, which are most, ready to be written.
struct CodeTable {
    code: Golomb,
    small: Vec<(u32, u32)>,
}

impl CodeTable {
    /// Codes of at most 32 bits of values below 256 and at most `max`.
    fn new(code: Golomb, max: u32) -> Self {
        let small = (0..=max.min(255))
            .take_while(|&value| value / code.m + 2 + code.short_bits <= 32)
            .map(|value| {
                let quotient = value / code.m;
                let (remainder, bits) = code.remainder(value);
                (
                    1 << quotient | remainder << quotient << 1,
                    quotient + 1 + bits,
                )
            })
            .collect();
        Self { code, small }
    }

    fn write(&self, out: &mut BitWriter, value: u32) {
        match self.small.get(value as usize) {
            Some(&(word, bits)) => out.write(word, bits),
            None => self.code.write(out, value),
        }
    }
}

/// Appends `values` with the divisor, of the form 2ᵏ or 3·2ᵏ, that makes them
/// shortest; nothing at all if there are none.
pub(crate) fn write_section(out: &mut Vec<u8>, values: &[u32]) {
    if values.is_empty() {
        return;
    }
    let histogram = Histogram::new(values);
    let code = histogram.best_code();
    let table = CodeTable::new(code, histogram.max);
    let mut bits = BitWriter::with_capacity(values.len());
    for &value in values {
        table.write(&mut bits, value);
    }
    let bytes = bits.finish();
    put_varint(out, code.m.into());
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(&bytes);
}

/// The multiset of values, with the small and frequent ones counted.
struct Histogram {
    counts: [u32; 256],
    large: Vec<u32>,
    max: u32,
}

impl Histogram {
    fn new(values: &[u32]) -> Self {
        let mut histogram = Self {
            counts: [0; 256],
            large: Vec::new(),
            max: 0,
        };
        for &value in values {
            match histogram.counts.get_mut(value as usize) {
                Some(count) => *count += 1,
                None => histogram.large.push(value),
            }
            histogram.max = histogram.max.max(value);
        }
        histogram
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

    /// Checks that the section holds nothing more.
    pub(crate) fn finish(self) -> Result<()> {
        self.bits.finish()
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
        let mut out = BitWriter::with_capacity(0);
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
        fn sections_round_trip(values in prop::collection::vec(0_u32..=u32::MAX >> 8, 0..100)) {
            let mut bytes = Vec::new();
            write_section(&mut bytes, &values);
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
        let histogram = Histogram::new(&gaps);
        assert_eq!(histogram.best_code(), Golomb::new(3));
        let best = histogram.total_bits(Golomb::new(3));
        for m in 1..100 {
            assert!(histogram.total_bits(Golomb::new(m)) >= best);
        }
        assert_eq!(Histogram::new(&[0, 0]).best_code(), Golomb::new(1));
        assert_eq!(Histogram::new(&[u32::MAX >> 1]).best_code().m, 1 << 30);
    }

    #[test]
    fn values_above_the_limit_and_bad_divisors_are_rejected() {
        let mut bytes = Vec::new();
        write_section(&mut bytes, &[5]);
        let mut section = SectionReader::new(&mut ByteReader::new(&bytes), 1).unwrap();
        assert!(section.next(4).is_err());
        assert!(SectionReader::new(&mut ByteReader::new(&[0, 1, 1]), 1).is_err());
        assert!(SectionReader::new(&mut ByteReader::new(&[1, 2, 1]), 1).is_err());
    }
}
