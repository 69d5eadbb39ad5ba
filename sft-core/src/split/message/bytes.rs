//! Numbers, texts and lengths as bytes: little-endian, and LEB128 where they are small.

use crate::{Error, Result};

pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_le_bytes());
}

/// Seven bits a byte, the lowest first; the highest bit says that another follows.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The length, then the bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Bytes that are still to be read.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let cut = || Error::protocol("sent a message that ends too early");
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(cut)?;
        self.0 = rest;
        Ok(taken)
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Checks that nothing is left.
    pub(super) fn end(&self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let left = self.0.len();
        Err(Error::protocol(format!(
            "sent {left} bytes too many in a message"
        )))
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// A byte that says yes or no.
    pub(super) fn flag(&mut self, of: &str) -> Result<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::protocol(format!(
                "sent {of} of the unknown form {other}"
            ))),
        }
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        let bytes = self.take(4)?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u32::from(byte)))
    }

    pub(super) fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit; a last byte of zero is a longer form of less.
            let fits = bits << shift >> shift == bits && (byte != 0 || shift == 0);
            value |= bits << shift;
            match (fits, byte & 0x80) {
                (true, 0) => return Ok(value),
                (true, _) => {}
                (false, _) => break,
            }
        }
        Err(Error::protocol(
            "sent a number of more than 64 bits, or in a longer form",
        ))
    }

    pub(super) fn varint_u32(&mut self) -> Result<u32> {
        let large = |_| Error::protocol("sent a number of more than 32 bits");
        u32::try_from(self.varint()?).map_err(large)
    }

    /// A number of things that each take at least `each` more bytes.
    pub(super) fn count(&mut self, each: usize) -> Result<usize> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        self.has(count, each)?;
        Ok(count)
    }

    /// Checks that there is room for so many things of at least `each` bytes.
    pub(super) fn has(&self, count: usize, each: usize) -> Result<()> {
        if count > self.0.len() / each {
            let reason = format!("sent a message that is too short for {count} entries");
            return Err(Error::protocol(reason));
        }
        Ok(())
    }

    /// A text of at most `limit` bytes.
    pub(super) fn text(&mut self, limit: usize) -> Result<String> {
        let length = self.count(1)?.min(limit.saturating_add(1));
        if length > limit {
            return Err(Error::protocol(format!(
                "sent a text of more than {limit} bytes"
            )));
        }
        let text = String::from_utf8(self.take(length)?.to_vec());
        text.map_err(|_| Error::protocol("sent a text that is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_form() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varint().unwrap(), value);
            reader.end().unwrap();
        }
        let longest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        for bad in [&[0x80, 0x00][..], &longest, &[0x80], &[0xff; 11]] {
            assert!(Reader::new(bad).varint().is_err(), "{bad:?}");
        }
    }
}
