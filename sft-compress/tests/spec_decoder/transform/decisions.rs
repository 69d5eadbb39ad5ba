//! The range decoder and its places.

use std::collections::HashMap;

/// A kind of decision, and what it is told apart by.
pub(super) type Place = (&'static str, [usize; 3]);

pub(super) const EVEN: u16 = 1 << 15;

pub(super) struct Decisions {
    bytes: Vec<u8>,
    read: usize,
    /// What was read, less *low*.
    code: u64,
    range: u64,
    places: HashMap<Place, [u16; 2]>,
}

impl Decisions {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        let mut decisions = Self {
            bytes,
            read: 0,
            code: 0,
            range: (1 << 32) - 1,
            places: HashMap::new(),
        };
        for _ in 0..4 {
            decisions.code = decisions.code << 8 | decisions.byte();
        }
        decisions
    }

    fn byte(&mut self) -> u64 {
        self.read += 1;
        self.bytes.get(self.read - 1).map_or(0, |&b| u64::from(b))
    }

    /// Takes the lower part of the range, up to `bound`, or the upper one.
    fn divide(&mut self, bound: u64) -> bool {
        let yes = self.code >= bound;
        if yes {
            self.code -= bound;
            self.range -= bound;
        } else {
            self.range = bound;
        }
        self.fill();
        yes
    }

    fn fill(&mut self) {
        while self.range < 1 << 24 {
            self.range <<= 8;
            self.code = self.code << 8 | self.byte();
        }
    }

    /// A decision at a place whose *p* begins with `start`.
    pub(super) fn from(&mut self, start: u16, place: Place) -> bool {
        let [f, s] = *self.places.entry(place).or_insert([start; 2]);
        let p = u64::midpoint(f.into(), s.into());
        let yes = self.divide((self.range >> 16) * p);
        let next = if yes {
            [f - f / 16, s - s / 128]
        } else {
            [f + (65535 - f) / 16, s + (65535 - s) / 128]
        };
        self.places.insert(place, next);
        yes
    }

    pub(super) fn at(&mut self, place: Place) -> bool {
        self.from(EVEN, place)
    }

    /// Even bits, the highest first.
    pub(super) fn even(&mut self, count: u32) -> usize {
        let mut number = 0;
        for _ in 0..count {
            self.range >>= 1;
            let bit = self.code >= self.range;
            if bit {
                self.code -= self.range;
            }
            number = 2 * number + usize::from(bit);
            self.fill();
        }
        number
    }

    /// A number of so many bits, the highest first, each at a place by those before.
    pub(super) fn tree(&mut self, bits: u32, name: &'static str, kind: usize) -> i32 {
        let mut before = 1;
        for _ in 0..bits {
            before = 2 * before + usize::from(self.at((name, [kind, before, 0])));
        }
        i32::try_from(before).unwrap() - (1 << bits)
    }

    /// The kinds of decisions that were made; all bytes must be read.
    pub(super) fn finish(self) -> impl Iterator<Item = &'static str> {
        assert!(self.read >= self.bytes.len());
        self.places.into_keys().map(|(name, _)| name)
    }
}
