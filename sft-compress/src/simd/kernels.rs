//! The kernels, written once for all vectors.

#![allow(clippy::inline_always, reason = "compiled for each vector")]

use std::ops::Range;

use super::scalar::{BLOCK, Contexts, DIRECT_TOKENS, LANES, Out, collect_scalar, keep_scalar};
use super::vector::{N, Vector};

/// All bits of a number but its sign.
const MAGNITUDE: u32 = 0x7fff_ffff;

/// 1 − 2⁻²². A quotient in single precision, of a state by its frequency, is
/// wrong by a part of at most 3·2⁻²⁴ and below 2²⁰. Times this it is never too
/// large, and too small by less than 1/2.
const BELOW_ONE: f32 = 1.0 - 1.0 / (1 << 22) as f32;

/// As [`collect_scalar`] of at most [`BLOCK`] elements.
#[inline(always)]
pub(super) fn collect<V: Vector>(
    v: V,
    block: &[f32],
    start: u32,
    bits: Range<u32>,
    (positions, values): Out<'_>,
) -> usize {
    let (lo, width) = (v.splat(bits.start), v.splat(bits.end - bits.start));
    let mut position = v.add(v.iota(), v.splat(start));
    let mut len = 0;
    let (parts, rest) = block[..block.len().min(BLOCK)].as_chunks::<N>();
    for part in parts {
        // SAFETY: 16 numbers are readable behind the reference.
        let x = unsafe { v.load(part.as_ptr().cast()) };
        let magnitude = v.and(x, v.splat(MAGNITUDE));
        let wanted = v.less(v.sub(magnitude, lo), width);
        // SAFETY: `len` is at most the number of elements seen, and the memory
        // is longer than a block by a vector.
        len += unsafe {
            let to = [
                positions.as_mut_ptr().add(len).cast(),
                values.as_mut_ptr().add(len).cast(),
            ];
            v.store_packed(wanted, [position, x], to)
        };
        position = v.add(position, v.splat(N as u32));
    }
    let start = start + (N * parts.len()) as u32;
    collect_scalar(rest, start, bits, len, (positions, values))
}

/// As [`keep_scalar`] from the front.
#[inline(always)]
pub(super) fn keep_at_least<V: Vector>(
    v: V,
    positions: &mut [u32],
    values: &mut [f32],
    least: u32,
    last_equal: u32,
) -> usize {
    let mut len = 0;
    let whole = positions.len().min(values.len()) / N * N;
    for next in (0..whole).step_by(N) {
        // SAFETY: both slices have `whole` elements.
        let (position, x) = unsafe {
            (
                v.load(positions.as_ptr().add(next)),
                v.load(values.as_ptr().add(next).cast()),
            )
        };
        let behind = v.less(v.splat(last_equal), position);
        // Magnitudes and bounds are below 2³¹.
        let bound = v.select(behind, v.splat(least + 1), v.splat(least));
        let wanted = v.at_least_signed(v.and(x, v.splat(MAGNITUDE)), bound);
        // SAFETY: `len` ≤ `next`, so what is overwritten was read.
        len += unsafe {
            let to = [
                positions.as_mut_ptr().add(len),
                values.as_mut_ptr().add(len).cast(),
            ];
            v.store_packed(wanted, [position, x], to)
        };
    }
    keep_scalar(positions, values, least, last_equal, (whole, len))
}

/// The table of each of 16 elements: of their row and channel classes and the
/// signs of the `above`.
#[inline(always)]
fn tables<V: Vector>(v: V, row: u32, channels: &[u8; N], above: Option<&[i8; N]>) -> V::Numbers {
    let tables = v.add(v.splat(row), v.load_u8(channels));
    let Some(above) = above else {
        return tables;
    };
    let (positive, negative) = v.signs(above);
    let tables = v.add(tables, v.select(positive, v.splat(1), v.splat(0)));
    v.add(tables, v.select(negative, v.splat(2), v.splat(0)))
}

/// As [`super::decode_symbols`]; there are slots.
#[inline(always)]
pub(super) fn decode_symbols<V: Vector>(
    v: V,
    (plane, mut done): (&mut [i8], usize),
    contexts: Contexts<'_>,
    slots: &[u32],
    states: &mut [u32; LANES],
    words: &[u8],
) -> (usize, usize) {
    let width = contexts.width;
    let mut used = 0;
    let mut lanes = load_lanes(v, states);
    let last = v.splat(slots.len() as u32 - 1);
    'rows: for (r, &row) in contexts.rows.iter().enumerate().skip(done / width) {
        if plane.len() < (r + 1) * width {
            break;
        }
        let (above, this) = plane.split_at_mut(r * width);
        let above = if r > 0 && contexts.neighbours {
            Some(&above[(r - 1) * width..])
        } else {
            None
        };
        for start in (done % width..width).step_by(LANES) {
            if words.len() - used < 2 * LANES {
                break 'rows;
            }
            for (half, state) in lanes.iter_mut().enumerate() {
                let c = start + half * N;
                let (Some(channels), Some(words)) = (
                    contexts.channels[c..].first_chunk(),
                    words[used..].first_chunk(),
                ) else {
                    break 'rows;
                };
                let above = match above {
                    Some(above) => above[c..].first_chunk(),
                    None => None,
                };
                let tables = tables(v, row, channels, above);
                let low = v.splat(0xfff);
                let index = v.or(v.shl::<12>(tables), v.and(*state, low));
                // SAFETY: the indices are below the number of slots, which is not zero.
                let slot = unsafe { v.gather(slots, v.min(index, last)) };
                let frequency = v.add(v.and(v.shr::<12>(slot), low), v.splat(1));
                let next = v.mul(frequency, v.shr::<12>(*state));
                let next = v.add(next, v.and(slot, low));
                let short = v.less(next, v.splat(1 << 16));
                let longer = v.or(v.shl::<16>(next), v.load_words(short, words));
                *state = v.select(short, longer, next);
                used += 2 * v.count(short);
                let symbols = v.upper_bytes(slot);
                this[c..][..N].copy_from_slice(&symbols);
            }
            done += LANES;
        }
    }
    store_lanes(v, lanes, states);
    (done, used)
}

/// As `super::symbols::encode_block`.
#[inline(always)]
pub(super) fn encode_block<V: Vector>(
    v: V,
    slots: &[u32],
    states: &mut [u32; LANES],
    words: &mut [u16],
    mut at: usize,
) -> usize {
    let mut lanes = load_lanes(v, states);
    for slots in slots.rchunks_exact(LANES) {
        for half in [1, 0] {
            let state = &mut lanes[half];
            // SAFETY: both halves of the slots are readable.
            let slot = unsafe { v.load(slots[half * N..][..N].as_ptr()) };
            let frequency = v.and(slot, v.splat(0xffff));
            let full = v.at_least_signed(v.shr::<20>(*state), frequency);
            at = v.store_words_before(full, *state, words, at);
            let x = v.select(full, v.shr::<16>(*state), *state);
            let q = v.scaled_quotient(x, frequency, BELOW_ONE);
            let rest = v.sub(x, v.mul(q, frequency));
            let next = v.add(v.add(v.shl::<12>(q), v.shr::<16>(slot)), rest);
            let one_more = v.at_least_signed(rest, frequency);
            let gap = v.sub(v.splat(1 << 12), frequency);
            *state = v.add(next, v.select(one_more, gap, v.splat(0)));
        }
    }
    store_lanes(v, lanes, states);
    at
}

#[inline(always)]
fn load_lanes<V: Vector>(v: V, states: &[u32; LANES]) -> [V::Numbers; 2] {
    // SAFETY: both halves of the states are readable.
    unsafe { [v.load(states.as_ptr()), v.load(states[N..].as_ptr())] }
}

#[inline(always)]
fn store_lanes<V: Vector>(v: V, [first, second]: [V::Numbers; 2], states: &mut [u32; LANES]) {
    // SAFETY: both halves of the states are writable.
    unsafe {
        v.store(first, states.as_mut_ptr());
        v.store(second, states[N..].as_mut_ptr());
    }
}

/// As [`super::expand`] of whole vectors; returns how many elements it did and
/// whether there is a token above [`DIRECT_TOKENS`].
#[inline(always)]
pub(super) fn expand<V: Vector>(
    v: V,
    symbols: &[i8],
    magnitudes: &[f32; DIRECT_TOKENS],
    out: &mut [f32],
) -> (usize, bool) {
    // SAFETY: 16 numbers are readable behind the reference.
    let magnitudes = unsafe { v.load(magnitudes.as_ptr().cast()) };
    let zero = v.splat(0);
    let mut largest = zero;
    let (symbols, out) = (symbols.as_chunks::<N>().0, out.as_chunks_mut::<N>().0);
    let done = N * symbols.len().min(out.len());
    for (symbols, out) in symbols.iter().zip(out) {
        let symbols = v.load_i8(symbols);
        let token = v.magnitude(symbols);
        largest = v.max(largest, token);
        let x = v.look_up(magnitudes, v.sub(token, v.splat(1)));
        let x = v.select(v.less(zero, token), x, zero);
        let x = v.or(x, v.and(symbols, v.splat(1 << 31)));
        // SAFETY: 16 numbers are writable behind the reference.
        unsafe { v.store(x, out.as_mut_ptr().cast()) };
    }
    let large = v.less(v.splat(DIRECT_TOKENS as u32), largest);
    (done, v.count(large) != 0)
}
