use super::Level;
use super::level::with_vector;
use super::scalar::{CODES, Contexts, DIRECT_TOKENS, LANES, decode_scalar};

/// Decodes the symbols of a chunk from element `done` on, a multiple of
/// [`LANES`], while at least 64 bytes of `words` are left. Returns how many
/// elements are done then, and how many bytes it used.
///
/// `slots` are as in `DecodeTables`.
pub(crate) fn decode_symbols(
    level: Level,
    (plane, done): (&mut [i8], usize),
    contexts: Contexts<'_>,
    slots: &[u32],
    states: &mut [u32; LANES],
    words: &[u8],
) -> (usize, usize) {
    if slots.is_empty() {
        return (done, 0);
    }
    let plane = (plane, done);
    with_vector!(
        level,
        super::kernels::decode_symbols(
            plane: (&mut [i8], usize), contexts: Contexts<'_>, slots: &[u32],
            states: &mut [u32; LANES], words: &[u8]
        ) -> (usize, usize),
        else decode_scalar(plane, contexts, slots, states, words)
    )
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
        at = encode_block(level, &block[..codes.len()], states, words, at);
    }
    Some(at)
}

/// [`encode_symbols`] of the slots of a few symbols, by a level with vectors.
fn encode_block(
    level: Level,
    slots: &[u32],
    states: &mut [u32; LANES],
    words: &mut [u16],
    at: usize,
) -> usize {
    with_vector!(
        level,
        super::kernels::encode_block(
            slots: &[u32], states: &mut [u32; LANES], words: &mut [u16], at: usize
        ) -> usize,
        else unreachable!("encode_symbols leaves scalar code to its caller")
    )
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
    let (done, mut large) = with_vector!(
        level,
        super::kernels::expand(
            symbols: &[i8], magnitudes: &[f32; DIRECT_TOKENS], out: &mut [f32]
        ) -> (usize, bool),
        else (0, false)
    );
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
