//! Numbers and bits from the front of bytes.

/// Takes fields off the front of a body.
pub(crate) struct Fields(pub(crate) Vec<u8>);

impl Fields {
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        self.0.drain(..len).collect()
    }

    pub(crate) fn number(&mut self, len: usize) -> u64 {
        self.bytes(len)
            .iter()
            .rev()
            .fold(0, |n, &byte| n << 8 | u64::from(byte))
    }

    pub(crate) fn f32(&mut self) -> f32 {
        f32::from_bits(self.number(4) as u32)
    }

    pub(crate) fn varint(&mut self) -> u64 {
        let (mut value, mut scale) = (0, 1);
        loop {
            let byte = self.number(1);
            value += (byte % 128) * scale;
            if byte < 128 {
                return value;
            }
            scale *= 128;
        }
    }

    pub(crate) fn golomb_section(&mut self, count: u64) -> Vec<u64> {
        if count == 0 {
            return Vec::new();
        }
        let (m, len) = (self.varint(), self.varint());
        let bytes = self.bytes(len as usize);
        let mut bits = bytes
            .iter()
            .flat_map(|byte| (0..8).map(move |i| u64::from(byte >> i & 1)));
        let b = u64::from(m.ilog2());
        let c = 2_u64.pow(b as u32 + 1) - m;
        let values = (0..count).map(|_| {
            let quotient = bits.by_ref().take_while(|&bit| bit == 0).count() as u64;
            let p = (0..b).map(|i| bits.next().unwrap() << i).sum::<u64>();
            let r = if p < c {
                p
            } else {
                2 * p + bits.next().unwrap() - c
            };
            quotient * m + r
        });
        let values = values.collect();
        assert!(bits.all(|bit| bit == 0));
        values
    }
}

/// The value of half-precision bits by the standard's definition.
pub(crate) fn half(bits: u64) -> f32 {
    let (exponent, fraction) = (bits >> 10 & 31, bits & 0x3ff);
    let magnitude = match exponent {
        0 => f32::from(fraction as u16) * 2.0_f32.powi(-24),
        31 => f32::from_bits(0x7f80_0000 | (fraction as u32) << 13),
        _ => f32::from(1024 + fraction as u16) * 2.0_f32.powi(exponent as i32 - 25),
    };
    f32::from_bits(magnitude.to_bits() | (bits as u32 >> 15) << 31)
}

/// A string of bits.
pub(crate) struct Bits(std::collections::VecDeque<u64>);

impl Bits {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(
            bytes
                .iter()
                .flat_map(|byte| (0..8).map(move |i| u64::from(byte >> i & 1)))
                .collect(),
        )
    }

    pub(crate) fn number(&mut self, bits: u64) -> u64 {
        (0..bits).map(|i| self.0.pop_front().unwrap() << i).sum()
    }

    pub(crate) fn finish(self) {
        assert!(self.0.len() < 8 && self.0.iter().all(|&bit| bit == 0));
    }
}
