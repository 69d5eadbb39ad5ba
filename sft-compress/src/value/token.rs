//! A kept element's index as a token, which is entropy-coded, and extra bits,
//! which are not.

/// Indices below this are tokens of their own.
pub(crate) const DIRECT: u32 = 16;
/// The largest token: that of index 2³¹ − 1.
pub(crate) const MAX: u8 = 70;

/// The token of an index below 2³¹: 1 to 16 for the first sixteen, then two to
/// the octave.
#[inline]
pub(crate) fn of(index: u32) -> u8 {
    if index < DIRECT {
        return index as u8 + 1;
    }
    let octave = index.ilog2();
    (17 + 2 * (octave - 4) + (index >> (octave - 1) & 1)) as u8
}

/// The number of extra bits of a token, which are the lowest of its indices.
#[inline]
pub(crate) fn extra_bits(token: u8) -> u32 {
    match u32::from(token).checked_sub(17) {
        None => 0,
        Some(bucket) => bucket / 2 + 3,
    }
}

/// The least index of a token, 1 to [`MAX`].
pub(crate) fn first_index(token: u8) -> u32 {
    match u32::from(token).checked_sub(17) {
        None => u32::from(token) - 1,
        Some(bucket) => (2 + bucket % 2) << extra_bits(token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_extra_bits_give_every_index_once() {
        let mut next = 0_u64;
        for token in 1..=MAX {
            assert_eq!(u64::from(first_index(token)), next);
            next += 1 << extra_bits(token);
            assert_eq!(of(first_index(token)), token);
            assert_eq!(of((next - 1) as u32), token);
        }
        assert_eq!(next, 1 << 31);
    }
}
