#![allow(
    clippy::wildcard_imports,
    reason = "the instructions are the vocabulary here"
)]
#![allow(clippy::cast_possible_wrap, reason = "vectors have no unsigned types")]

use std::arch::x86_64::*;
use std::ops::Range;

use super::scalar::{
    BELOW_ONE, BLOCK, Contexts, DIRECT_TOKENS, LANES, Out, collect_scalar, keep_scalar,
};

/// Elements of a vector.
const N: usize = 8;

/// For each mask of lanes: those that are set, in order, at the front.
static PACK_FRONT: [[u32; N]; 256] = pack(0);
/// The same at the back.
static PACK_BACK: [[u32; N]; 256] = pack(1);
/// For each mask of lanes: which of the numbers at the front goes to a lane.
static SPREAD: [[u32; N]; 256] = spread();

const fn pack(to_back: usize) -> [[u32; N]; 256] {
    let mut lanes = [[0; N]; 256];
    let mut mask = 0;
    while mask < 256 {
        let mut at = to_back * (N - (mask as u8).count_ones() as usize);
        let mut lane = 0;
        while lane < N {
            if mask >> lane & 1 == 1 {
                lanes[mask][at] = lane as u32;
                at += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    lanes
}

const fn spread() -> [[u32; N]; 256] {
    let mut lanes = [[0; N]; 256];
    let mut mask = 0;
    while mask < 256 {
        let mut from = 0;
        let mut lane = 0;
        while lane < N {
            lanes[mask][lane] = from;
            from += (mask >> lane & 1) as u32;
            lane += 1;
        }
        mask += 1;
    }
    lanes
}

#[inline]
#[target_feature(enable = "avx2")]
fn splat(x: u32) -> __m256i {
    _mm256_set1_epi32(x.cast_signed())
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(numbers: &[u32; N]) -> __m256i {
    // SAFETY: 32 bytes are readable behind the reference.
    unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) }
}

/// The lanes whose upper bit is set.
#[inline]
#[target_feature(enable = "avx2")]
fn mask(lanes: __m256i) -> usize {
    _mm256_movemask_ps(_mm256_castsi256_ps(lanes)) as usize
}

/// The lanes where `a` < `b`, as unsigned numbers.
#[inline]
#[target_feature(enable = "avx2")]
fn less(a: __m256i, b: __m256i) -> usize {
    let upper = splat(1 << 31);
    mask(_mm256_cmpgt_epi32(
        _mm256_xor_si256(b, upper),
        _mm256_xor_si256(a, upper),
    ))
}

/// As [`collect_scalar`] of at most [`BLOCK`] elements.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn collect(
    block: &[f32],
    start: u32,
    bits: Range<u32>,
    (positions, values): Out<'_>,
) -> usize {
    let (lo, width) = (splat(bits.start), splat(bits.end - bits.start));
    let iota = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let mut position = _mm256_add_epi32(iota, splat(start));
    let mut len = 0;
    let (parts, rest) = block[..block.len().min(BLOCK)].as_chunks::<N>();
    for part in parts {
        // SAFETY: 32 bytes are readable behind the reference.
        let x = unsafe { _mm256_loadu_si256(part.as_ptr().cast()) };
        let magnitude = _mm256_and_si256(x, splat(0x7fff_ffff));
        let wanted = less(_mm256_sub_epi32(magnitude, lo), width);
        let order = load(&PACK_FRONT[wanted]);
        let found = _mm256_permutevar8x32_epi32(position, order);
        let x = _mm256_permutevar8x32_epi32(x, order);
        // SAFETY: `len` is at most the number of elements seen, and the memory
        // is longer than a block by two vectors.
        unsafe {
            _mm256_storeu_si256(positions.as_mut_ptr().add(len).cast(), found);
            _mm256_storeu_si256(values.as_mut_ptr().add(len).cast(), x);
        }
        position = _mm256_add_epi32(position, splat(N as u32));
        len += wanted.count_ones() as usize;
    }
    let start = start + (N * parts.len()) as u32;
    collect_scalar(rest, start, bits, len, (positions, values))
}

/// As [`keep_scalar`] from the front.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn keep_at_least(
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
                _mm256_loadu_si256(positions.as_ptr().add(next).cast()),
                _mm256_loadu_si256(values.as_ptr().add(next).cast()),
            )
        };
        let magnitude = _mm256_and_si256(x, splat(0x7fff_ffff));
        let equal = mask(_mm256_cmpeq_epi32(magnitude, splat(least)));
        let behind = less(splat(last_equal), position);
        let wanted = less(magnitude, splat(least)) ^ 0xff;
        let wanted = wanted & !(equal & behind);
        let order = load(&PACK_FRONT[wanted]);
        let position = _mm256_permutevar8x32_epi32(position, order);
        let x = _mm256_permutevar8x32_epi32(x, order);
        // SAFETY: `len` ≤ `next`, so what is overwritten was read.
        unsafe {
            _mm256_storeu_si256(positions.as_mut_ptr().add(len).cast(), position);
            _mm256_storeu_si256(values.as_mut_ptr().add(len).cast(), x);
        }
        len += wanted.count_ones() as usize;
    }
    keep_scalar(positions, values, least, last_equal, (whole, len))
}

/// The table of each of 8 elements: of their row and channel classes and the
/// signs of the `above`.
#[inline]
#[target_feature(enable = "avx2")]
fn tables(row: u32, channels: &[u8; N], above: Option<&[i8; N]>) -> __m256i {
    // SAFETY: 8 bytes are readable behind the reference.
    let channels = unsafe { _mm_loadl_epi64(channels.as_ptr().cast()) };
    let tables = _mm256_add_epi32(splat(row), _mm256_cvtepu8_epi32(channels));
    let Some(above) = above else {
        return tables;
    };
    // SAFETY: 8 bytes are readable behind the reference.
    let above = _mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(above.as_ptr().cast()) });
    let positive = _mm256_cmpgt_epi32(above, _mm256_setzero_si256());
    let negative = _mm256_srai_epi32::<31>(above);
    let tables = _mm256_sub_epi32(tables, positive);
    _mm256_sub_epi32(tables, _mm256_add_epi32(negative, negative))
}

/// As [`super::decode_symbols`].
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn decode_symbols(
    (plane, mut done): (&mut [i8], usize),
    contexts: Contexts<'_>,
    slots: &[u32],
    states: &mut [u32; LANES],
    words: &[u8],
) -> (usize, usize) {
    let width = contexts.width;
    let mut used = 0;
    // SAFETY: all quarters of the states are readable.
    let mut lanes = [0, N, 2 * N, 3 * N]
        .map(|part| unsafe { _mm256_loadu_si256(states[part..].as_ptr().cast()) });
    let last = splat(slots.len() as u32 - 1);
    // The upper byte of each number, in the first four bytes of each half.
    let upper = _mm256_setr_epi8(
        3, 7, 11, 15, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, //
        3, 7, 11, 15, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    );
    let halves = _mm256_setr_epi32(0, 4, 0, 0, 0, 0, 0, 0);
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
            for (part, state) in lanes.iter_mut().enumerate() {
                let c = start + part * N;
                let Some(channels) = contexts.channels[c..].first_chunk() else {
                    break 'rows;
                };
                let above = above.and_then(|above| above[c..].first_chunk());
                let tables = tables(row, channels, above);
                let slot = _mm256_and_si256(*state, splat(0xfff));
                let index = _mm256_or_si256(_mm256_slli_epi32::<12>(tables), slot);
                let index = _mm256_min_epu32(index, last);
                // SAFETY: the indices are below the number of slots, which is not zero.
                let slot = unsafe { _mm256_i32gather_epi32::<4>(slots.as_ptr().cast(), index) };
                let frequency = _mm256_and_si256(_mm256_srli_epi32::<12>(slot), splat(0xfff));
                let frequency = _mm256_add_epi32(frequency, splat(1));
                let next = _mm256_mullo_epi32(frequency, _mm256_srli_epi32::<12>(*state));
                let next = _mm256_add_epi32(next, _mm256_and_si256(slot, splat(0xfff)));
                let short =
                    _mm256_cmpeq_epi32(_mm256_srli_epi32::<16>(next), _mm256_setzero_si256());
                // SAFETY: 16 bytes are readable, as at least 64 were before these
                // four parts and each takes at most 16 of them.
                let fresh = unsafe { _mm_loadu_si128(words[used..].as_ptr().cast()) };
                let lanes = mask(short);
                let fresh =
                    _mm256_permutevar8x32_epi32(_mm256_cvtepu16_epi32(fresh), load(&SPREAD[lanes]));
                let longer = _mm256_or_si256(_mm256_slli_epi32::<16>(next), fresh);
                *state = _mm256_blendv_epi8(next, longer, short);
                used += 2 * lanes.count_ones() as usize;
                let symbols = _mm256_shuffle_epi8(slot, upper);
                let symbols = _mm256_permutevar8x32_epi32(symbols, halves);
                let symbols = _mm256_castsi256_si128(symbols);
                // SAFETY: the row has `width` elements, a multiple of 32.
                unsafe { _mm_storel_epi64(this[c..][..N].as_mut_ptr().cast(), symbols) };
            }
            done += LANES;
        }
    }
    for (part, lanes) in lanes.into_iter().enumerate() {
        // SAFETY: all quarters of the states are writable.
        unsafe { _mm256_storeu_si256(states[part * N..].as_mut_ptr().cast(), lanes) };
    }
    (done, used)
}

/// As `super::symbols::encode_block`.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn encode_block(
    slots: &[u32],
    states: &mut [u32; LANES],
    words: &mut [u16],
    mut at: usize,
) -> usize {
    // SAFETY: all quarters of the states are readable.
    let mut lanes = [0, N, 2 * N, 3 * N]
        .map(|part| unsafe { _mm256_loadu_si256(states[part..].as_ptr().cast()) });
    let low = splat(0xffff);
    for slots in slots.rchunks_exact(LANES) {
        for part in (0..4).rev() {
            let state = &mut lanes[part];
            // SAFETY: all quarters of the slots are readable.
            let slot = unsafe { _mm256_loadu_si256(slots[part * N..][..N].as_ptr().cast()) };
            let frequency = _mm256_and_si256(slot, low);
            let room = _mm256_cmpgt_epi32(frequency, _mm256_srli_epi32::<20>(*state));
            let full = mask(room) ^ 0xff;
            let spilt = _mm256_permutevar8x32_epi32(*state, load(&PACK_BACK[full]));
            let spilt = _mm256_and_si256(spilt, low);
            let spilt = _mm256_packus_epi32(spilt, spilt);
            let spilt = _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(spilt));
            // The words lie at the back of the vector; what is before them is
            // overwritten by the next.
            let target = words[at - N..at].as_mut_ptr();
            // SAFETY: the slice has 8 words.
            unsafe { _mm_storeu_si128(target.cast(), spilt) };
            at -= full.count_ones() as usize;
            let x = _mm256_blendv_epi8(_mm256_srli_epi32::<16>(*state), *state, room);
            let high = _mm256_cvtepi32_ps(_mm256_srli_epi32::<16>(x));
            let high = _mm256_mul_ps(high, _mm256_set1_ps(65536.0));
            let x_float = _mm256_add_ps(high, _mm256_cvtepi32_ps(_mm256_and_si256(x, low)));
            let q = _mm256_div_ps(x_float, _mm256_cvtepi32_ps(frequency));
            let q = _mm256_cvttps_epi32(_mm256_mul_ps(q, _mm256_set1_ps(BELOW_ONE)));
            let rest = _mm256_sub_epi32(x, _mm256_mullo_epi32(q, frequency));
            let next = _mm256_add_epi32(_mm256_slli_epi32::<12>(q), _mm256_srli_epi32::<16>(slot));
            let next = _mm256_add_epi32(next, rest);
            let exact = _mm256_cmpgt_epi32(frequency, rest);
            let gap = _mm256_sub_epi32(splat(1 << 12), frequency);
            *state = _mm256_add_epi32(next, _mm256_andnot_si256(exact, gap));
        }
    }
    for (part, lanes) in lanes.into_iter().enumerate() {
        // SAFETY: all quarters of the states are writable.
        unsafe { _mm256_storeu_si256(states[part * N..].as_mut_ptr().cast(), lanes) };
    }
    at
}

/// As [`super::expand`] of whole vectors; returns how many elements it did and
/// whether there is a token above [`DIRECT_TOKENS`].
#[target_feature(enable = "avx2")]
pub(super) fn expand(
    symbols: &[i8],
    magnitudes: &[f32; DIRECT_TOKENS],
    out: &mut [f32],
) -> (usize, bool) {
    // SAFETY: both halves are readable.
    let [first, second] =
        [0, N].map(|half| unsafe { _mm256_loadu_ps(magnitudes[half..].as_ptr()) });
    let mut largest = _mm256_setzero_si256();
    let (symbols, out) = (symbols.as_chunks::<N>().0, out.as_chunks_mut::<N>().0);
    let done = N * symbols.len().min(out.len());
    for (symbols, out) in symbols.iter().zip(out) {
        // SAFETY: 8 bytes are readable behind the reference.
        let symbols = _mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(symbols.as_ptr().cast()) });
        let token = _mm256_abs_epi32(symbols);
        largest = _mm256_max_epu32(largest, token);
        let index = _mm256_sub_epi32(token, splat(1));
        let [low, high] = [first, second].map(|part| _mm256_permutevar8x32_ps(part, index));
        let in_second = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index));
        let x = _mm256_castps_si256(_mm256_blendv_ps(low, high, in_second));
        let kept = _mm256_cmpgt_epi32(token, _mm256_setzero_si256());
        let sign = _mm256_and_si256(symbols, splat(1 << 31));
        let x = _mm256_or_si256(_mm256_and_si256(x, kept), sign);
        // SAFETY: 32 bytes are writable behind the reference.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), x) };
    }
    let large = _mm256_cmpgt_epi32(largest, splat(DIRECT_TOKENS as u32));
    (done, mask(large) != 0)
}
