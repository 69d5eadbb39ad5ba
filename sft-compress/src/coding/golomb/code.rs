use crate::coding::bits::{BitReader, BitWriter};
use crate::error::Result;

/// The Golomb code of divisor `m ≥ 1`: quotient in unary, remainder in
/// truncated binary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Golomb {
    pub(super) m: u32,
    /// Length of a short remainder; a long one has a bit more.
    pub(super) short_bits: u32,
    /// Number of short remainders.
    short_count: u32,
}

impl Golomb {
    pub(super) fn new(m: u32) -> Self {
        let short_bits = m.ilog2();
        let short_count = (1_u64 << (short_bits + 1)) - u64::from(m);
        Self {
            m,
            short_bits,
            short_count: short_count as u32,
        }
    }

    /// The length of the code of `value`.
    pub(super) fn bits(self, value: u32) -> u64 {
        let long = value % self.m >= self.short_count;
        u64::from(value / self.m) + 1 + u64::from(self.short_bits) + u64::from(long)
    }

    pub(super) fn write(self, out: &mut BitWriter, value: u32) {
        out.write_unary(value / self.m);
        let (remainder, bits) = self.remainder(value);
        out.write(remainder, bits);
    }

    /// The code of the remainder of `value` and its length.
    ///
    /// A long remainder's last bit comes behind the others, so that a reader
    /// sees first whether it is long.
    pub(super) fn remainder(self, value: u32) -> (u32, u32) {
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
    pub(super) fn read(self, bits: &mut BitReader<'_>) -> Result<u64> {
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
    pub(super) fn in_string(self, string: u32) -> Option<(u16, u8)> {
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
    pub(super) fn read_slowly(self, bits: &mut BitReader<'_>) -> Result<u64> {
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
