//! Vector instructions, found at run time: the only unsafe code of the crate.
//!
//! Each kernel does the same as its scalar counterpart, bit for bit.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx512;

use std::sync::OnceLock;

/// The instructions that kernels may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Scalar,
    Avx512,
}

/// The best instructions of this processor, or less if the environment
/// variable `SFT_SIMD` is `scalar` or `avx2`.
pub(crate) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| match std::env::var("SFT_SIMD").as_deref() {
        Ok("scalar" | "avx2") => Level::Scalar,
        _ => detect(),
    })
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    if avx512::available() {
        Level::Avx512
    } else {
        Level::Scalar
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Scalar
}

/// Collects in `out` the positions of the elements whose magnitude has at least
/// the bits `least`; false if this processor cannot.
pub(crate) fn positions_at_least(
    level: Level,
    data: &[f32],
    least: u32,
    out: &mut Vec<u32>,
) -> bool {
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512 && avx512::available() {
        // SAFETY: the processor has the instructions.
        unsafe { avx512::positions_at_least(data, least, out) };
        return true;
    }
    let _ = (level, data, least, out);
    false
}

/// Lanes the kernels work with.
pub(crate) const LANES: usize = 32;

/// What the kernels of the entropy coder need of the model: rows of `width`
/// channels, a multiple of [`LANES`].
#[derive(Clone, Copy)]
pub(crate) struct Contexts<'a> {
    pub(crate) width: usize,
    /// For each row of the chunk the table of channel class 0 and a zero neighbour.
    pub(crate) rows: &'a [u32],
    /// For each channel the distance of its table from that of class 0.
    pub(crate) channels: &'a [u8],
    pub(crate) neighbours: bool,
}

/// Decodes the symbols of whole rows of a chunk from the front while `words`
/// certainly suffice. Returns how many elements it did and how many bytes it used.
///
/// `slots` is as in `DecodeTables`; `level` as from [`level`].
pub(crate) fn decode_symbols(
    level: Level,
    plane: &mut [i8],
    contexts: Contexts<'_>,
    slots: &[u32],
    states: &mut [u32; LANES],
    words: &[u8],
) -> (usize, usize) {
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512 && avx512::available() && !slots.is_empty() {
        // SAFETY: the processor has the instructions.
        return unsafe { avx512::decode_symbols(plane, contexts, slots, states, words) };
    }
    let _ = (level, plane, contexts, slots, states, words);
    (0, 0)
}

/// Encodes the symbols of the rows of a chunk, the last first, into the end of
/// `words`, which has one for each. Returns where the words start; none if this
/// processor cannot.
///
/// `slots` has frequency (lower half) and start of each table and rank, of
/// which a table has `alphabet`.
pub(crate) fn encode_symbols(
    level: Level,
    plane: &[i8],
    contexts: Contexts<'_>,
    (slots, alphabet): (&[u32], usize),
    states: &mut [u32; LANES],
    words: &mut [u16],
) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512 && avx512::available() && !slots.is_empty() {
        // SAFETY: the processor has the instructions.
        return Some(unsafe {
            avx512::encode_symbols(plane, contexts, (slots, alphabet), states, words)
        });
    }
    let _ = (level, plane, contexts, slots, alphabet, states, words);
    None
}
