use crate::error::{Error, Result};

/// Appends bits, least significant first, to a byte vector.
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    pending_bits: u32,
}

impl BitWriter {
    /// Writes into the memory of `bytes`, whose content is dropped.
    pub(crate) fn reusing(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self::appending(bytes)
    }

    /// Writes behind `bytes`.
    pub(crate) fn appending(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            pending: 0,
            pending_bits: 0,
        }
    }

    /// Appends the low `bits` bits of `value`, whose other bits must be zero; at most 32.
    pub(crate) fn write(&mut self, value: u32, bits: u32) {
        debug_assert!(bits <= 32 && u64::from(value) >> bits == 0);
        self.pending |= u64::from(value) << self.pending_bits;
        self.pending_bits += bits;
        if self.pending_bits >= 32 {
            self.bytes
                .extend_from_slice(&(self.pending as u32).to_le_bytes());
            self.pending >>= 32;
            self.pending_bits -= 32;
        }
    }

    /// Appends `count` zeros and a one.
    pub(crate) fn write_unary(&mut self, mut count: u32) {
        while count >= 32 {
            self.write(0, 32);
            count -= 32;
        }
        self.write(1 << count, count + 1);
    }

    /// The bytes, the last one padded with zeros.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let rest = self.pending_bits.div_ceil(8) as usize;
        self.bytes
            .extend_from_slice(&self.pending.to_le_bytes()[..rest]);
        self.bytes
    }
}

/// Reads bits, least significant first.
#[derive(Clone)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// The next bits; those above `pending_bits` are either zero or equal to
    /// what the next refill puts there.
    pending: u64,
    pending_bits: u32,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            pending: 0,
            pending_bits: 0,
        }
    }

    /// Tops up to at least 56 bits, or to all that are left.
    fn refill(&mut self) {
        if let Some(word) = self.bytes.first_chunk::<8>() {
            self.pending |= u64::from_le_bytes(*word) << self.pending_bits;
            let taken = (63 - self.pending_bits) / 8;
            self.bytes = &self.bytes[taken as usize..];
            self.pending_bits += 8 * taken;
        } else {
            while self.pending_bits < 56
                && let Some((&byte, rest)) = self.bytes.split_first()
            {
                self.pending |= u64::from(byte) << self.pending_bits;
                self.pending_bits += 8;
                self.bytes = rest;
            }
        }
    }

    /// The next bits, at least 56 unless the section ends before, and their number.
    pub(crate) fn peek(&mut self) -> (u64, u32) {
        if self.pending_bits < 56 {
            self.refill();
        }
        (self.pending, self.pending_bits)
    }

    /// Skips bits that were peeked at.
    pub(crate) fn consume(&mut self, bits: u32) {
        self.pending >>= bits;
        self.pending_bits -= bits;
    }

    /// The next `bits` bits as a number; at most 32.
    pub(crate) fn read(&mut self, bits: u32) -> Result<u32> {
        debug_assert!(bits <= 32);
        if self.pending_bits < bits {
            self.refill();
            if self.pending_bits < bits {
                return Err(end_of_bits());
            }
        }
        let value = self.pending & ((1 << bits) - 1);
        self.consume(bits);
        Ok(value as u32)
    }

    /// Checks that `count` numbers of `bits` bits are left.
    pub(crate) fn expect(&self, count: usize, bits: u32) -> Result<()> {
        let left = 8 * self.bytes.len() as u64 + u64::from(self.pending_bits);
        if (count as u64).saturating_mul(bits.into()) > left {
            return Err(end_of_bits());
        }
        Ok(())
    }

    /// The number of zeros before the next one, which is consumed too.
    pub(crate) fn read_unary(&mut self) -> Result<u64> {
        let mut count = 0;
        loop {
            let zeros = self.pending.trailing_zeros();
            if zeros < self.pending_bits {
                self.consume(zeros + 1);
                return Ok(count + u64::from(zeros));
            }
            count += u64::from(self.pending_bits);
            self.consume(self.pending_bits);
            self.refill();
            if self.pending_bits == 0 {
                return Err(end_of_bits());
            }
        }
    }

    /// Checks that only the zero padding of the last byte is left.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.refill();
        let padding = self.pending & ((1 << self.pending_bits) - 1);
        if !self.bytes.is_empty() || self.pending_bits >= 8 || padding != 0 {
            return Err(Error::corrupt("bits are left over at the end of a section"));
        }
        Ok(())
    }
}

fn end_of_bits() -> Error {
    Error::corrupt("a section ends before its last value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back_least_significant_first() {
        let mut writer = BitWriter::appending(Vec::new());
        writer.write(0b1, 1);
        writer.write(0b1010, 4);
        writer.write_unary(2);
        assert_eq!(writer.finish(), [0b1001_0101]);
    }

    #[test]
    fn numbers_and_unary_round_trip_across_refills() {
        let numbers: Vec<(u32, u32)> = (0..200)
            .map(|i: u32| (i.wrapping_mul(0x9e37_79b9) >> (i % 32), 32 - i % 32))
            .collect();
        let mut writer = BitWriter::appending(Vec::new());
        for &(value, bits) in &numbers {
            writer.write(value, bits);
            writer.write_unary(value % 150);
        }
        let bytes = writer.finish();
        let mut reader = BitReader::new(&bytes);
        for &(value, bits) in &numbers {
            assert_eq!(reader.read(bits), Ok(value));
            assert_eq!(reader.read_unary(), Ok(u64::from(value % 150)));
        }
        reader.finish().unwrap();
    }

    #[test]
    fn the_end_is_an_error() {
        let mut reader = BitReader::new(&[0, 0]);
        assert!(reader.read_unary().is_err());
        let mut reader = BitReader::new(&[0xff]);
        assert_eq!(reader.read(8), Ok(0xff));
        assert!(reader.read(1).is_err());
    }

    #[test]
    fn only_zero_padding_may_be_left() {
        for (bytes, accepted) in [
            (&[0b0000_0001][..], true),
            (&[0b1000_0001], false),
            (&[0b0000_0001, 0], false),
            (&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], false),
        ] {
            let mut reader = BitReader::new(bytes);
            reader.read(1).unwrap();
            assert_eq!(reader.finish().is_ok(), accepted, "{bytes:?}");
        }
    }
}
