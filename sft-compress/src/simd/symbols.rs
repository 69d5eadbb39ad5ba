use super::Level;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512, level::Kind};

/// Lanes the kernels work with.
pub(crate) const LANES: usize = 32;
/// Tokens that stand for one magnitude each.
pub(crate) const DIRECT_TOKENS: usize = 16;
/// More than the encoder's codes.
pub(crate) const CODES: usize = 1 << 14;
/// 1 − 2⁻²². A quotient in single precision, of a state by its frequency, is
/// wrong by a part of at most 3·2⁻²⁴ and below 2²⁰. Times this it is never too
/// large, and too small by less than 1/2.
pub(super) const BELOW_ONE: f32 = 1.0 - 1.0 / (1 << 22) as f32;

/// What decoding needs of the model: rows of `width` channels, a multiple of
/// [`LANES`].
#[derive(Clone, Copy)]
pub(crate) struct Contexts<'a> {
    pub(crate) width: usize,
    /// For each row of the chunk the table of channel class 0 and a zero neighbour.
    pub(crate) rows: &'a [u32],
    /// For each channel the distance of its table from that of class 0.
    pub(crate) channels: &'a [u8],
    pub(crate) neighbours: bool,
}

/// Decodes the symbols of a chunk from element `done` on, a multiple of
/// [`LANES`], while at least 64 bytes of `words` are left. Returns how many
/// elements are done then, and how many bytes it used.
///
/// `slots`, not empty, are as in `DecodeTables`.
pub(crate) fn decode_symbols(
    level: Level,
    (plane, done): (&mut [i8], usize),
    contexts: Contexts<'_>,
    slots: &[u32],
    states: &mut [u32; LANES],
    words: &[u8],
) -> (usize, usize) {
    let plane = (plane, done);
    match level.kind() {
        // SAFETY: the processor has the instructions of the level.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => unsafe { avx512::decode_symbols(plane, contexts, slots, states, words) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => unsafe { avx2::decode_symbols(plane, contexts, slots, states, words) },
        _ => decode_scalar(plane, contexts, slots, states, words),
    }
}

fn decode_scalar(
    (plane, mut done): (&mut [i8], usize),
    contexts: Contexts<'_>,
    slots: &[u32],
    states: &mut [u32; LANES],
    mut words: &[u8],
) -> (usize, usize) {
    let (width, all, last) = (contexts.width, words.len(), slots.len() - 1);
    while done + LANES <= plane.len() && words.len() >= 2 * LANES {
        let (r, c) = (done / width, done % width);
        let (before, this) = plane.split_at_mut(done);
        let above = (r > 0 && contexts.neighbours).then(|| &before[done - width..][..LANES]);
        let channels = &contexts.channels[c..][..LANES];
        for lane in 0..LANES {
            let above = above.map_or(0, |above| above[lane]);
            let kind = u32::from(above > 0) + 2 * u32::from(above < 0);
            let table = contexts.rows[r] + u32::from(channels[lane]) + kind;
            let state = states[lane];
            let slot = slots[((table << 12 | state & 0xfff) as usize).min(last)];
            this[lane] = ((slot >> 24) as u8).cast_signed();
            let next = ((slot >> 12 & 0xfff) + 1)
                .wrapping_mul(state >> 12)
                .wrapping_add(slot & 0xfff);
            // Free of branches, as whether a word is due comes at random.
            let short = next < 1 << 16;
            let word = u32::from(u16::from_le_bytes([words[0], words[1]]));
            states[lane] = if short { next << 16 | word } else { next };
            words = &words[2 * usize::from(short)..];
        }
        done += LANES;
    }
    (done, all - words.len())
}

/// Encodes symbols, the last first, into `words` before `at`, of which each
/// symbol takes one at most. Returns where the words start; none if there is
/// no kernel.
///
/// `codes`, a multiple of [`LANES`], tell the slots of each symbol: frequency,
/// not zero, in the lower half, and start.
pub(crate) fn encode_symbols(
    level: Level,
    codes: &[u16],
    slots: &[u32; CODES],
    states: &mut [u32; LANES],
    (words, mut at): (&mut [u16], usize),
) -> Option<usize> {
    if level == Level::SCALAR {
        return None;
    }
    let mut block = [0; 16 * LANES];
    for codes in codes.rchunks(block.len()) {
        // Scalar loads are faster than a gather here, and backwards like the
        // blocks, which helps the prefetcher.
        let (fours, _) = codes.as_chunks::<4>();
        for (slot, four) in block.as_chunks_mut::<4>().0.iter_mut().zip(fours).rev() {
            *slot = four.map(|code| slots[usize::from(code) % CODES]);
        }
        at = encode_block(level, &block[..codes.len()], states, words, at)?;
    }
    Some(at)
}

/// [`encode_symbols`] of the slots of a few symbols.
fn encode_block(
    level: Level,
    slots: &[u32],
    states: &mut [u32; LANES],
    words: &mut [u16],
    at: usize,
) -> Option<usize> {
    match level.kind() {
        // SAFETY: the processor has the instructions of the level.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => Some(unsafe { avx512::encode_block(slots, states, words, at) }),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => Some(unsafe { avx2::encode_block(slots, states, words, at) }),
        _ => None,
    }
}

/// Puts the magnitude of each token with the sign of its symbol, and zero where
/// there is none, and tells whether there is a token above [`DIRECT_TOKENS`],
/// in whose place it puts anything.
pub(crate) fn expand(
    level: Level,
    symbols: &[i8],
    magnitudes: &[f32; DIRECT_TOKENS],
    out: &mut [f32],
) -> bool {
    let (done, mut large) = match level.kind() {
        // SAFETY: the processor has the instructions of the level.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => unsafe { avx512::expand(symbols, magnitudes, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => unsafe { avx2::expand(symbols, magnitudes, out) },
        _ => (0, false),
    };
    let mut values = [0.0; 2 * DIRECT_TOKENS + 1];
    for (token, &magnitude) in (1..).zip(magnitudes) {
        values[DIRECT_TOKENS + token] = magnitude;
        values[DIRECT_TOKENS - token] = -magnitude;
    }
    for (x, &symbol) in out[done..].iter_mut().zip(&symbols[done..]) {
        let place = usize::from(symbol.cast_unsigned().wrapping_add(DIRECT_TOKENS as u8));
        let value = values.get(place);
        *x = value.copied().unwrap_or(0.0);
        large |= value.is_none();
    }
    large
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "values come from a table")]
mod tests {
    use super::*;

    #[test]
    fn all_levels_expand_the_same() {
        let magnitudes: [f32; DIRECT_TOKENS] = std::array::from_fn(|i| 0.5 + i as f32);
        let symbols: Vec<i8> = (0..301).map(|i| (i * 7 % 33) as i8 - 16).collect();
        let slow = |symbol: i8| match symbol {
            0 => 0.0,
            s => f32::from(s.signum()) * magnitudes[usize::from(s.unsigned_abs()) - 1],
        };
        for len in [0, 1, 7, 8, 15, 16, 17, 301] {
            for level in Level::all() {
                let mut out = vec![9.0; len];
                assert!(!expand(level, &symbols[..len], &magnitudes, &mut out));
                assert!(out.iter().zip(&symbols).all(|(x, s)| *x == slow(*s)));
                if len > 0 {
                    for (at, large) in [(0, 17), (len - 1, -17), (len / 2, -70)] {
                        let mut symbols = symbols[..len].to_vec();
                        symbols[at] = large;
                        assert!(expand(level, &symbols, &magnitudes, &mut out));
                    }
                }
            }
        }
    }
}
