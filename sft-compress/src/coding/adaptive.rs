//! Binary decisions by probabilities that follow what was decided: a range coder with carry.

/// Bits of a probability.
const SCALE_BITS: u32 = 16;
/// The range is never smaller.
const LEAST_RANGE: u32 = 1 << 24;

/// The probability that a decision is `false`: the mean of one that follows fast and one that
/// follows slowly, both in units of 2⁻¹⁶.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bit {
    fast: u16,
    slow: u16,
}

impl Bit {
    /// What decides as often either way.
    pub(crate) const EVEN: Self = Self::new(1 << 15);

    /// Begins with a probability of `zero`, in units of 2⁻¹⁶.
    pub(crate) const fn new(zero: u16) -> Self {
        Self {
            fast: zero,
            slow: zero,
        }
    }

    #[inline]
    fn zero(self) -> u32 {
        (u32::from(self.fast) + u32::from(self.slow)) >> 1
    }

    /// Neither part reaches 0 or 1: what it moves by is rounded down.
    /// Without a branch: after `false`, the distance to 1 falls as the probability does else.
    #[inline]
    fn follow(&mut self, bit: bool) {
        let flip = u16::from(bit).wrapping_sub(1);
        let (fast, slow) = (self.fast ^ flip, self.slow ^ flip);
        self.fast = (fast - (fast >> 4)) ^ flip;
        self.slow = (slow - (slow >> 7)) ^ flip;
    }
}

/// Either end of a string of decisions, so that both sides are one code.
pub(crate) trait Coder {
    /// Whether it is the writing end.
    const WRITES: bool;

    /// A decision: what is written, or what was read, whatever `value` is.
    fn bit(&mut self, model: &mut Bit, value: bool) -> bool;

    /// The lowest `count` bits of `value`, up to 32, each as likely as not.
    fn raw(&mut self, value: u32, count: u32) -> u32;
}

/// Writes decisions.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    low: u64,
    range: u32,
    /// The last byte, which a carry may still change, and the bytes FF₁₆ behind it; none at first.
    last: Option<u8>,
    full: usize,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            low: 0,
            range: u32::MAX,
            last: None,
            full: 0,
        }
    }

    #[inline(never)]
    fn shift(&mut self) {
        let (carry, top) = ((self.low >> 32) as u8, (self.low >> 24) as u8);
        if carry > 0 || top < 0xff {
            // Before the first byte there is nothing that could carry.
            self.out
                .extend(self.last.map(|byte| byte.wrapping_add(carry)));
            let filler = 0xff_u8.wrapping_add(carry);
            self.out.extend(std::iter::repeat_n(filler, self.full));
            (self.last, self.full) = (Some(top), 0);
        } else {
            self.full += 1;
        }
        self.low = (self.low & 0x00ff_ffff) << 8;
    }

    #[inline]
    fn normalise(&mut self) {
        while self.range < LEAST_RANGE {
            self.range <<= 8;
            self.shift();
        }
    }

    /// Writes what is left; zeros at the end are not written, as a reader takes them for granted.
    pub(crate) fn finish(mut self) {
        let start = self.out.len();
        for _ in 0..5 {
            self.shift();
        }
        while self.out.len() > start && self.out.last() == Some(&0) {
            self.out.pop();
        }
    }
}

impl Coder for Writer<'_> {
    const WRITES: bool = true;

    #[inline]
    fn bit(&mut self, model: &mut Bit, value: bool) -> bool {
        let bound = (self.range >> SCALE_BITS) * model.zero();
        self.low += u64::from(if value { bound } else { 0 });
        self.range = if value { self.range - bound } else { bound };
        model.follow(value);
        self.normalise();
        value
    }

    fn raw(&mut self, value: u32, count: u32) -> u32 {
        for at in (0..count).rev() {
            self.range >>= 1;
            if value >> at & 1 == 1 {
                self.low += u64::from(self.range);
            }
            self.normalise();
        }
        value
    }
}

/// Reads decisions.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: std::slice::Iter<'a, u8>,
    code: u32,
    range: u32,
}

impl<'a> Reader<'a> {
    /// Reads from the front of `bytes`, and zeros behind their end.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let mut reader = Self {
            rest: bytes.iter(),
            code: 0,
            range: u32::MAX,
        };
        for _ in 0..4 {
            reader.shift();
        }
        reader
    }

    fn shift(&mut self) {
        let next = self.rest.next().copied().unwrap_or(0);
        self.code = self.code << 8 | u32::from(next);
    }

    #[inline]
    fn normalise(&mut self) {
        while self.range < LEAST_RANGE {
            self.range <<= 8;
            self.shift();
        }
    }

    /// Whether all bytes were read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.len() == 0
    }
}

impl Coder for Reader<'_> {
    const WRITES: bool = false;

    #[inline]
    fn bit(&mut self, model: &mut Bit, _: bool) -> bool {
        let bound = (self.range >> SCALE_BITS) * model.zero();
        let value = self.code >= bound;
        self.code -= if value { bound } else { 0 };
        self.range = if value { self.range - bound } else { bound };
        model.follow(value);
        self.normalise();
        value
    }

    fn raw(&mut self, _: u32, count: u32) -> u32 {
        let mut value = 0;
        for _ in 0..count {
            self.range >>= 1;
            let bit = self.code >= self.range;
            if bit {
                self.code -= self.range;
            }
            value = value << 1 | u32::from(bit);
            self.normalise();
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decisions of these odds, out of 256, and numbers between them.
    fn decisions(odds: u32) -> Vec<(bool, u32)> {
        let hash = |i: u32| (i.wrapping_mul(0x9e37_79b9) ^ i << 7).wrapping_mul(0x85eb_ca6b);
        let decision = |i| (hash(i) >> 24 < odds, hash(i) % 37 % 32);
        (0..20_000).map(decision).collect()
    }

    fn written(decisions: &[(bool, u32)], raw: bool) -> Vec<u8> {
        let (mut bytes, mut model) = (Vec::new(), Bit::EVEN);
        let mut writer = Writer::new(&mut bytes);
        for &(bit, number) in decisions {
            writer.bit(&mut model, bit);
            if raw {
                writer.raw(number, 5);
            }
        }
        writer.finish();
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        for odds in [0, 1, 20, 128, 255, 256] {
            let decisions = decisions(odds);
            let bytes = written(&decisions, true);
            let (mut reader, mut model) = (Reader::new(&bytes), Bit::EVEN);
            for &(bit, number) in &decisions {
                assert_eq!(reader.bit(&mut model, !bit), bit);
                assert_eq!(reader.raw(0, 5), number);
            }
            assert!(reader.is_at_end());
        }
    }

    #[test]
    fn decisions_take_about_their_entropy() {
        for odds in [1, 20, 128] {
            let bits = 8.0 * written(&decisions(odds), false).len() as f64;
            let p = f64::from(odds) / 256.0;
            let entropy = -20_000.0 * (p * p.log2() + (1.0 - p) * (1.0 - p).log2());
            assert!(bits < 1.07 * entropy + 80.0, "{odds}: {bits} for {entropy}");
        }
        assert!(written(&decisions(0), false).len() < 20);
    }
}
