#![allow(
    clippy::wildcard_imports,
    reason = "the instructions are the vocabulary here"
)]
#![allow(clippy::cast_possible_wrap, reason = "vectors have no unsigned types")]

use std::arch::x86_64::*;

use super::{Contexts, LANES};

/// Elements of a vector.
const N: usize = 16;

pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
}

/// As [`super::positions_at_least`].
///
/// # Safety
/// The processor must have the instructions of [`available`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn positions_at_least(data: &[f32], least: u32, out: &mut Vec<u32>) {
    /// Elements between two looks at the capacity.
    const BLOCK: usize = 1024;
    out.clear();
    let (magnitude, least) = (
        _mm512_set1_epi32(i32::MAX),
        _mm512_set1_epi32(least.cast_signed()),
    );
    let mut positions = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let step = _mm512_set1_epi32(N as i32);
    let mut buffer = [0_u32; BLOCK];
    for block in data.chunks(BLOCK) {
        let mut len = 0;
        for part in block.chunks(N) {
            let present = (u32::from(u16::MAX) >> (N - part.len())) as u16;
            // SAFETY: the mask selects the elements of the slice.
            let bits = unsafe { _mm512_maskz_loadu_epi32(present, part.as_ptr().cast()) };
            let bits = _mm512_and_si512(bits, magnitude);
            let wanted = _mm512_mask_cmpge_epu32_mask(present, bits, least);
            let count = wanted.count_ones() as usize;
            let found = _mm512_maskz_compress_epi32(wanted, positions);
            let target = buffer[len..len + count].as_mut_ptr();
            let stored = ((1_u32 << count) - 1) as u16;
            // SAFETY: the mask selects the `count` numbers of the slice.
            unsafe { _mm512_mask_storeu_epi32(target.cast(), stored, found) };
            positions = _mm512_add_epi32(positions, step);
            len += count;
        }
        out.extend_from_slice(&buffer[..len]);
    }
}

/// The table of each of 16 elements: of their row and channel classes and the
/// signs of the `above`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn tables(row: u32, channels: &[u8; N], above: Option<&[i8; N]>) -> __m512i {
    // SAFETY: 16 bytes are readable behind the reference.
    let channels = unsafe { _mm_loadu_si128(channels.as_ptr().cast()) };
    let row = _mm512_set1_epi32(row.cast_signed());
    let tables = _mm512_add_epi32(row, _mm512_cvtepu8_epi32(channels));
    let Some(above) = above else {
        return tables;
    };
    // SAFETY: 16 bytes are readable behind the reference.
    let above = unsafe { _mm_loadu_si128(above.as_ptr().cast()) };
    let zero = _mm_setzero_si128();
    let (positive, negative) = (_mm_cmpgt_epi8_mask(above, zero), _mm_movepi8_mask(above));
    let tables = _mm512_mask_add_epi32(tables, positive, tables, _mm512_set1_epi32(1));
    _mm512_mask_add_epi32(tables, negative, tables, _mm512_set1_epi32(2))
}

/// As [`super::decode_symbols`].
///
/// # Safety
/// The processor must have the instructions of [`available`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn decode_symbols(
    plane: &mut [i8],
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
    let limit = _mm512_set1_epi32(slots.len() as i32);
    let mut done = 0;
    'rows: for (r, &row) in contexts.rows.iter().enumerate() {
        if plane.len() < (r + 1) * width {
            break;
        }
        let (above, this) = plane.split_at_mut(r * width);
        let above = (r > 0 && contexts.neighbours).then(|| &above[(r - 1) * width..]);
        for start in (0..width).step_by(LANES) {
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
                let slot = _mm512_and_si512(*state, _mm512_set1_epi32(0xfff));
                let index = _mm512_or_si512(_mm512_slli_epi32::<12>(tables), slot);
                let index = _mm512_min_epu32(index, _mm512_sub_epi32(limit, _mm512_set1_epi32(1)));
                // SAFETY: the indices are below the number of slots, which is not zero.
                let slot = unsafe { _mm512_i32gather_epi32::<4>(index, slots.as_ptr().cast()) };
                let low = _mm512_set1_epi32(0xfff);
                let frequency = _mm512_and_si512(_mm512_srli_epi32::<12>(slot), low);
                let frequency = _mm512_add_epi32(frequency, _mm512_set1_epi32(1));
                let upper = _mm512_srli_epi32::<12>(*state);
                let next = _mm512_mullo_epi32(frequency, upper);
                let next = _mm512_add_epi32(next, _mm512_and_si512(slot, low));
                let short = _mm512_cmplt_epu32_mask(next, _mm512_set1_epi32(1 << 16));
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

/// `state` / `frequency`, exactly: the quotient of numbers of 32 and 13 bits is
/// at least 2⁻¹³ away from the next integer above it, a double's rounding 2⁻²².
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn quotient(state: __m512i, frequency: __m512i) -> __m512i {
    let half = |n: __m512i, upper: bool| {
        let n = if upper {
            _mm512_extracti64x4_epi64::<1>(n)
        } else {
            _mm512_castsi512_si256(n)
        };
        _mm512_cvtepu32_pd(n)
    };
    let [low, high] = [false, true].map(|upper| {
        _mm512_cvttpd_epu32(_mm512_div_pd(half(state, upper), half(frequency, upper)))
    });
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// As [`super::encode_symbols`].
///
/// # Safety
/// The processor must have the instructions of [`available`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn encode_symbols(
    plane: &[i8],
    contexts: Contexts<'_>,
    (slots, alphabet): (&[u32], usize),
    states: &mut [u32; LANES],
    words: &mut [u16],
) -> usize {
    let (width, mut at) = (contexts.width, words.len());
    // SAFETY: both halves of the states are readable.
    let mut lanes =
        [0, N].map(|half| unsafe { _mm512_loadu_si512(states[half..].as_ptr().cast()) });
    let last_slot = _mm512_set1_epi32(slots.len() as i32 - 1);
    for (r, &row) in contexts.rows.iter().enumerate().rev() {
        let (before, this) = plane.split_at(r * width);
        let above = (r > 0 && contexts.neighbours).then(|| &before[(r - 1) * width..]);
        for c in (0..width).step_by(N).rev() {
            let (Some(channels), Some(symbols)) = (
                contexts.channels[c..].first_chunk(),
                this[c..].first_chunk::<N>(),
            ) else {
                continue;
            };
            let above = above.and_then(|above| above[c..].first_chunk());
            let tables = tables(row, channels, above);
            // SAFETY: 16 bytes are readable behind the reference.
            let symbols = unsafe { _mm_loadu_si128(symbols.as_ptr().cast()) };
            let symbols = _mm512_cvtepi8_epi32(symbols);
            let doubled = _mm512_slli_epi32::<1>(_mm512_abs_epi32(symbols));
            let positive = _mm512_cmpgt_epi32_mask(symbols, _mm512_setzero_si512());
            let one = _mm512_set1_epi32(1);
            let rank = _mm512_mask_sub_epi32(doubled, positive, doubled, one);
            let first = _mm512_mullo_epi32(tables, _mm512_set1_epi32(alphabet as i32));
            let index = _mm512_min_epu32(_mm512_add_epi32(first, rank), last_slot);
            // SAFETY: the indices are below the number of slots, which is not zero.
            let slot = unsafe { _mm512_i32gather_epi32::<4>(index, slots.as_ptr().cast()) };
            let frequency = _mm512_and_si512(slot, _mm512_set1_epi32(0xffff));
            let state = &mut lanes[c / N % 2];
            let full = _mm512_cmpge_epu32_mask(_mm512_srli_epi32::<20>(*state), frequency);
            let spilt = _mm512_maskz_compress_epi32(full, *state);
            let count = full.count_ones() as usize;
            at -= count;
            let target = words[at..at + count].as_mut_ptr();
            let stored = ((1_u32 << count) - 1) as u16;
            // SAFETY: the mask selects the `count` words of the slice.
            unsafe { _mm512_mask_cvtepi32_storeu_epi16(target.cast(), stored, spilt) };
            let kept = _mm512_mask_srli_epi32::<16>(*state, full, *state);
            let gap = _mm512_sub_epi32(_mm512_set1_epi32(1 << 12), frequency);
            let next = _mm512_mullo_epi32(quotient(kept, frequency), gap);
            let next = _mm512_add_epi32(next, _mm512_srli_epi32::<16>(slot));
            *state = _mm512_add_epi32(kept, next);
        }
    }
    for (half, lanes) in lanes.into_iter().enumerate() {
        // SAFETY: both halves of the states are writable.
        unsafe { _mm512_storeu_si512(states[half * N..].as_mut_ptr().cast(), lanes) };
    }
    at
}
