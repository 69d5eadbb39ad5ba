#![allow(
    clippy::wildcard_imports,
    reason = "the instructions are the vocabulary here"
)]
#![allow(clippy::cast_possible_wrap, reason = "vectors have no unsigned types")]

use std::arch::x86_64::*;
use std::ops::Range;

use super::scalar::{BELOW_ONE, BLOCK, Contexts, DIRECT_TOKENS, LANES, Out, keep_scalar};

/// Elements of a vector.
const N: usize = 16;

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn iota() -> __m512i {
    _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn splat(x: u32) -> __m512i {
    _mm512_set1_epi32(x.cast_signed())
}

/// As [`super::scalar::collect_scalar`] of at most [`BLOCK`] elements.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
pub(super) fn collect(
    block: &[f32],
    start: u32,
    bits: Range<u32>,
    (positions, values): Out<'_>,
) -> usize {
    let (lo, width) = (splat(bits.start), splat(bits.end - bits.start));
    let mut position = _mm512_add_epi32(iota(), splat(start));
    let mut len = 0;
    for part in block[..block.len().min(BLOCK)].chunks(N) {
        let present = u16::MAX >> (N - part.len());
        // SAFETY: the mask selects the elements of the slice.
        let x = unsafe { _mm512_maskz_loadu_ps(present, part.as_ptr()) };
        let magnitude = _mm512_and_si512(_mm512_castps_si512(x), splat(0x7fff_ffff));
        let above = _mm512_sub_epi32(magnitude, lo);
        let wanted = _mm512_mask_cmplt_epu32_mask(present, above, width);
        let found = _mm512_maskz_compress_epi32(wanted, position);
        let x = _mm512_maskz_compress_ps(wanted, x);
        // SAFETY: `len` is at most the number of elements seen, and the memory
        // is longer than a block by a vector.
        unsafe {
            _mm512_storeu_si512(positions.as_mut_ptr().add(len).cast(), found);
            _mm512_storeu_ps(values.as_mut_ptr().add(len).cast(), x);
        }
        position = _mm512_add_epi32(position, splat(N as u32));
        len += wanted.count_ones() as usize;
    }
    len
}

/// As [`keep_scalar`] from the front.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
pub(super) fn keep_at_least(
    positions: &mut [u32],
    values: &mut [f32],
    least: u32,
    last_equal: u32,
) -> usize {
    let (least, last_equal) = (splat(least), splat(last_equal));
    let mut len = 0;
    let whole = positions.len().min(values.len()) / N * N;
    for next in (0..whole).step_by(N) {
        // SAFETY: both slices have `whole` elements.
        let (position, x) = unsafe {
            (
                _mm512_loadu_si512(positions.as_ptr().add(next).cast()),
                _mm512_loadu_ps(values.as_ptr().add(next)),
            )
        };
        let magnitude = _mm512_and_si512(_mm512_castps_si512(x), splat(0x7fff_ffff));
        let behind = _mm512_cmpgt_epu32_mask(position, last_equal);
        let least = _mm512_mask_add_epi32(least, behind, least, splat(1));
        let wanted = _mm512_cmpge_epu32_mask(magnitude, least);
        let position = _mm512_maskz_compress_epi32(wanted, position);
        let x = _mm512_maskz_compress_ps(wanted, x);
        // SAFETY: `len` ≤ `next`, so what is overwritten was read.
        unsafe {
            _mm512_storeu_si512(positions.as_mut_ptr().add(len).cast(), position);
            _mm512_storeu_ps(values.as_mut_ptr().add(len).cast(), x);
        }
        len += wanted.count_ones() as usize;
    }
    let least = _mm512_cvtsi512_si32(least).cast_unsigned();
    let last_equal = _mm512_cvtsi512_si32(last_equal).cast_unsigned();
    keep_scalar(positions, values, least, last_equal, (whole, len))
}

/// The table of each of 16 elements: of their row and channel classes and the
/// signs of the `above`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn tables(row: u32, channels: &[u8; N], above: Option<&[i8; N]>) -> __m512i {
    // SAFETY: 16 bytes are readable behind the reference.
    let channels = unsafe { _mm_loadu_si128(channels.as_ptr().cast()) };
    let tables = _mm512_add_epi32(splat(row), _mm512_cvtepu8_epi32(channels));
    let Some(above) = above else {
        return tables;
    };
    // SAFETY: 16 bytes are readable behind the reference.
    let above = unsafe { _mm_loadu_si128(above.as_ptr().cast()) };
    let zero = _mm_setzero_si128();
    let (positive, negative) = (_mm_cmpgt_epi8_mask(above, zero), _mm_movepi8_mask(above));
    let tables = _mm512_mask_add_epi32(tables, positive, tables, splat(1));
    _mm512_mask_add_epi32(tables, negative, tables, splat(2))
}

/// As [`super::decode_symbols`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
pub(super) fn decode_symbols(
    (plane, mut done): (&mut [i8], usize),
    contexts: Contexts<'_>,
    slots: &[u32],
    states: &mut [u32; LANES],
    words: &[u8],
) -> (usize, usize) {
    let width = contexts.width;
    let mut used = 0;
    // SAFETY: both halves of the states are readable.
    let mut lanes =
        [0, N].map(|half| unsafe { _mm512_loadu_si512(states[half..].as_ptr().cast()) });
    let last = splat(slots.len() as u32 - 1);
    'rows: for (r, &row) in contexts.rows.iter().enumerate().skip(done / width) {
        if plane.len() < (r + 1) * width {
            break;
        }
        let (above, this) = plane.split_at_mut(r * width);
        let above = (r > 0 && contexts.neighbours).then(|| &above[(r - 1) * width..]);
        for start in (done % width..width).step_by(LANES) {
            if words.len() - used < 2 * LANES {
                break 'rows;
            }
            for (half, state) in lanes.iter_mut().enumerate() {
                let c = start + half * N;
                let Some(channels) = contexts.channels[c..].first_chunk() else {
                    break 'rows;
                };
                let above = above.and_then(|above| above[c..].first_chunk());
                let tables = tables(row, channels, above);
                let slot = _mm512_and_si512(*state, splat(0xfff));
                let index = _mm512_or_si512(_mm512_slli_epi32::<12>(tables), slot);
                let index = _mm512_min_epu32(index, last);
                // SAFETY: the indices are below the number of slots, which is not zero.
                let slot = unsafe { _mm512_i32gather_epi32::<4>(index, slots.as_ptr().cast()) };
                let frequency = _mm512_and_si512(_mm512_srli_epi32::<12>(slot), splat(0xfff));
                let frequency = _mm512_add_epi32(frequency, splat(1));
                let upper = _mm512_srli_epi32::<12>(*state);
                let next = _mm512_mullo_epi32(frequency, upper);
                let next = _mm512_add_epi32(next, _mm512_and_si512(slot, splat(0xfff)));
                let short = _mm512_cmplt_epu32_mask(next, splat(1 << 16));
                // SAFETY: 32 bytes are readable, as at least 64 were before this
                // pair of halves and the first takes at most 32 of them.
                let fresh = unsafe { _mm256_loadu_si256(words[used..].as_ptr().cast()) };
                let fresh = _mm512_maskz_expand_epi32(short, _mm512_cvtepu16_epi32(fresh));
                let shifted = _mm512_slli_epi32::<16>(next);
                *state = _mm512_mask_or_epi32(next, short, shifted, fresh);
                used += 2 * short.count_ones() as usize;
                let symbols = _mm512_cvtepi32_epi8(_mm512_srai_epi32::<24>(slot));
                // SAFETY: the row has `width` elements, a multiple of 32.
                unsafe { _mm_storeu_si128(this[c..][..N].as_mut_ptr().cast(), symbols) };
            }
            done += LANES;
        }
    }
    for (half, lanes) in lanes.into_iter().enumerate() {
        // SAFETY: both halves of the states are writable.
        unsafe { _mm512_storeu_si512(states[half * N..].as_mut_ptr().cast(), lanes) };
    }
    (done, used)
}

/// As `super::symbols::encode_block`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
pub(super) fn encode_block(
    slots: &[u32],
    states: &mut [u32; LANES],
    words: &mut [u16],
    mut at: usize,
) -> usize {
    // SAFETY: both halves of the states are readable.
    let mut lanes =
        [0, N].map(|half| unsafe { _mm512_loadu_si512(states[half..].as_ptr().cast()) });
    let below_one = _mm512_set1_ps(BELOW_ONE);
    for slots in slots.rchunks_exact(LANES) {
        for half in [1, 0] {
            let state = &mut lanes[half];
            // SAFETY: both halves of the slots are readable.
            let slot = unsafe { _mm512_loadu_si512(slots[half * N..][..N].as_ptr().cast()) };
            let frequency = _mm512_and_si512(slot, splat(0xffff));
            let full = _mm512_cmpge_epu32_mask(_mm512_srli_epi32::<20>(*state), frequency);
            let spilt = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(full, *state));
            let count = full.count_ones() as usize;
            at -= count;
            let target = words[at..at + count].as_mut_ptr();
            let stored = ((1_u32 << count) - 1) as u16;
            // SAFETY: the mask selects the `count` words of the slice.
            unsafe { _mm256_mask_storeu_epi16(target.cast(), stored, spilt) };
            let x = _mm512_mask_srli_epi32::<16>(*state, full, *state);
            let q = _mm512_div_ps(_mm512_cvtepu32_ps(x), _mm512_cvtepi32_ps(frequency));
            let q = _mm512_cvttps_epi32(_mm512_mul_ps(q, below_one));
            let rest = _mm512_sub_epi32(x, _mm512_mullo_epi32(q, frequency));
            let next = _mm512_add_epi32(_mm512_slli_epi32::<12>(q), _mm512_srli_epi32::<16>(slot));
            let next = _mm512_add_epi32(next, rest);
            let one_more = _mm512_cmpge_epu32_mask(rest, frequency);
            let gap = _mm512_sub_epi32(splat(1 << 12), frequency);
            *state = _mm512_mask_add_epi32(next, one_more, next, gap);
        }
    }
    for (half, lanes) in lanes.into_iter().enumerate() {
        // SAFETY: both halves of the states are writable.
        unsafe { _mm512_storeu_si512(states[half * N..].as_mut_ptr().cast(), lanes) };
    }
    at
}

/// As [`super::expand`] of whole vectors; returns how many elements it did and
/// whether there is a token above [`DIRECT_TOKENS`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn expand(
    symbols: &[i8],
    magnitudes: &[f32; DIRECT_TOKENS],
    out: &mut [f32],
) -> (usize, bool) {
    // SAFETY: 16 numbers are readable behind the reference.
    let magnitudes = unsafe { _mm512_loadu_ps(magnitudes.as_ptr()) };
    let mut largest = _mm512_setzero_si512();
    let (symbols, out) = (symbols.as_chunks::<N>().0, out.as_chunks_mut::<N>().0);
    let done = N * symbols.len().min(out.len());
    for (symbols, out) in symbols.iter().zip(out) {
        // SAFETY: 16 bytes are readable behind the reference.
        let symbols = unsafe { _mm_loadu_si128(symbols.as_ptr().cast()) };
        let symbols = _mm512_cvtepi8_epi32(symbols);
        let token = _mm512_abs_epi32(symbols);
        largest = _mm512_max_epu32(largest, token);
        let index = _mm512_sub_epi32(token, splat(1));
        let kept = _mm512_test_epi32_mask(token, token);
        let x = _mm512_maskz_permutexvar_ps(kept, index, magnitudes);
        let sign = _mm512_and_si512(symbols, splat(1 << 31));
        let x = _mm512_or_si512(_mm512_castps_si512(x), sign);
        // SAFETY: 16 numbers are writable behind the reference.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), x) };
    }
    let large = _mm512_cmpgt_epu32_mask(largest, splat(DIRECT_TOKENS as u32));
    (done, large != 0)
}
