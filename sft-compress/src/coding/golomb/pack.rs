use crate::coding::bits::BitReader;

use super::code::Golomb;

/// Values that one look into a [`PackTable`] may read.
pub(super) const PACKED: usize = 3;

/// Some values whose codes lie one behind the other.
#[derive(Clone, Copy, Default)]
pub(super) struct Pack {
    /// How many, 0 if the first code is too long.
    pub(super) count: u8,
    /// The length of their codes.
    bits: u8,
    /// The values and one for each.
    pub(super) sum: u16,
    /// The same before each value, and the value.
    pub(super) before: [u16; PACKED],
}

/// The values at the front of all strings of a few bits.
pub(super) struct PackTable {
    packs: [Pack; Self::ENTRIES],
}

impl PackTable {
    const BITS: u32 = 10;
    pub(super) const ENTRIES: usize = 1 << Self::BITS;

    pub(super) fn new(code: Golomb) -> Self {
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
    pub(super) fn next(&self, bits: &mut BitReader<'_>) -> Option<Pack> {
        let (peeked, available) = bits.peek();
        if available < Self::BITS {
            return None;
        }
        let pack = self.packs[peeked as usize % Self::ENTRIES];
        bits.consume(pack.bits.into());
        Some(pack)
    }
}
