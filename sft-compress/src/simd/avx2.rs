#![allow(
    clippy::wildcard_imports,
    reason = "the instructions are the vocabulary here"
)]
#![allow(clippy::inline_always, reason = "compiled into each kernel")]

use std::arch::x86_64::*;

use super::vector::{N, Vector, methods};

/// Numbers of a register.
const H: usize = N / 2;

/// For each mask of lanes: those that are set, in order, at the front.
static PACK_FRONT: [[u32; H]; 256] = pack(0);
/// The same at the back.
static PACK_BACK: [[u32; H]; 256] = pack(1);
/// For each mask of lanes: which of the numbers at the front goes to a lane.
static SPREAD: [[u32; H]; 256] = spread();

const fn pack(to_back: usize) -> [[u32; H]; 256] {
    let mut lanes = [[0; H]; 256];
    let mut mask = 0;
    while mask < 256 {
        let mut at = to_back * (H - (mask as u8).count_ones() as usize);
        let mut lane = 0;
        while lane < H {
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

const fn spread() -> [[u32; H]; 256] {
    let mut lanes = [[0; H]; 256];
    let mut mask = 0;
    while mask < 256 {
        let mut from = 0;
        let mut lane = 0;
        while lane < H {
            lanes[mask][lane] = from;
            from += (mask >> lane & 1) as u32;
            lane += 1;
        }
        mask += 1;
    }
    lanes
}

/// Two registers, each of half of the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The processor has AVX2, BMI1, BMI2, LZCNT and POPCNT.
    pub(super) const unsafe fn new() -> Self {
        Self(())
    }
}

type Pair = [__m256i; 2];

/// The numbers whose upper bit is set.
#[inline]
#[target_feature(enable = "avx2")]
fn bits(half: __m256i) -> usize {
    _mm256_movemask_ps(_mm256_castsi256_ps(half)) as usize
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_half(numbers: &[u32; H]) -> __m256i {
    // SAFETY: 32 bytes are readable behind the reference.
    unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) }
}

/// As single precision, rounded once.
#[inline]
#[target_feature(enable = "avx2")]
fn to_float(x: __m256i) -> __m256 {
    let high = _mm256_cvtepi32_ps(_mm256_srli_epi32::<16>(x));
    let high = _mm256_mul_ps(high, _mm256_set1_ps(65536.0));
    let low = _mm256_and_si256(x, _mm256_set1_epi32(0xffff));
    _mm256_add_ps(high, _mm256_cvtepi32_ps(low))
}

#[inline]
#[target_feature(enable = "avx2")]
fn look_up_half([first, second]: Pair, index: __m256i) -> __m256i {
    let low = _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(first, index));
    let high = _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(second, index));
    let in_second = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index));
    _mm256_castps_si256(_mm256_blendv_ps(low, high, in_second))
}

/// As [`Vector::store_packed`].
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn store_packed(mask: Pair, x: [Pair; 2], to: [*mut u32; 2]) -> usize {
    let mut len = 0;
    for half in 0..2 {
        let mask = bits(mask[half]);
        let order = load_half(&PACK_FRONT[mask]);
        let first = _mm256_permutevar8x32_epi32(x[0][half], order);
        let second = _mm256_permutevar8x32_epi32(x[1][half], order);
        // SAFETY: the caller's, as at most 8 numbers are before the second half.
        unsafe {
            _mm256_storeu_si256(to[0].add(len).cast(), first);
            _mm256_storeu_si256(to[1].add(len).cast(), second);
        }
        len += mask.count_ones() as usize;
    }
    len
}

/// The lower halves of the numbers of the mask, at the back of 8 words.
#[inline]
#[target_feature(enable = "avx2")]
fn words_at_back(mask: usize, x: __m256i) -> __m128i {
    let x = _mm256_permutevar8x32_epi32(x, load_half(&PACK_BACK[mask]));
    let x = _mm256_and_si256(x, _mm256_set1_epi32(0xffff));
    let x = _mm256_packus_epi32(x, x);
    _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(x))
}

impl Vector for Avx2 {
    type Numbers = Pair;
    /// All bits of the numbers, or none.
    type Mask = Pair;

    #[inline(always)]
    unsafe fn load(self, from: *const u32) -> Pair {
        // SAFETY: the processor has the instructions; the rest is the caller's.
        unsafe {
            [
                _mm256_loadu_si256(from.cast()),
                _mm256_loadu_si256(from.add(H).cast()),
            ]
        }
    }

    #[inline(always)]
    unsafe fn store(self, x: Pair, to: *mut u32) {
        // SAFETY: the processor has the instructions; the rest is the caller's.
        unsafe {
            _mm256_storeu_si256(to.cast(), x[0]);
            _mm256_storeu_si256(to.add(H).cast(), x[1]);
        }
    }

    #[inline(always)]
    unsafe fn gather(self, table: &[u32], index: Pair) -> Pair {
        let table = table.as_ptr().cast();
        // SAFETY: the processor has the instructions; the rest is the caller's.
        unsafe {
            [
                _mm256_i32gather_epi32::<4>(table, index[0]),
                _mm256_i32gather_epi32::<4>(table, index[1]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn store_packed(self, mask: Pair, x: [Pair; 2], to: [*mut u32; 2]) -> usize {
        // SAFETY: the processor has the instructions; the rest is the caller's.
        unsafe { store_packed(mask, x, to) }
    }

    methods! { "avx2,popcnt";
        fn load_u8(from: &[u8; N]) -> Pair {
            let from = from.as_ptr();
            // SAFETY: 16 bytes are readable behind the reference.
            let [low, high] =
                unsafe { [_mm_loadl_epi64(from.cast()), _mm_loadl_epi64(from.add(H).cast())] };
            [_mm256_cvtepu8_epi32(low), _mm256_cvtepu8_epi32(high)]
        }

        fn load_i8(from: &[i8; N]) -> Pair {
            let from = from.as_ptr();
            // SAFETY: 16 bytes are readable behind the reference.
            let [low, high] =
                unsafe { [_mm_loadl_epi64(from.cast()), _mm_loadl_epi64(from.add(H).cast())] };
            [_mm256_cvtepi8_epi32(low), _mm256_cvtepi8_epi32(high)]
        }

        fn signs(of: &[i8; N]) -> (Pair, Pair) {
            let of = of.as_ptr();
            // SAFETY: 16 bytes are readable behind the reference.
            let [low, high] =
                unsafe { [_mm_loadl_epi64(of.cast()), _mm_loadl_epi64(of.add(H).cast())] };
            let (low, high) = (_mm256_cvtepi8_epi32(low), _mm256_cvtepi8_epi32(high));
            let zero = _mm256_setzero_si256();
            (
                [_mm256_cmpgt_epi32(low, zero), _mm256_cmpgt_epi32(high, zero)],
                [_mm256_srai_epi32::<31>(low), _mm256_srai_epi32::<31>(high)],
            )
        }

        fn upper_bytes(x: Pair) -> [i8; N] {
            // The upper bytes of a quarter, in its first four or second four bytes.
            let first = _mm256_setr_epi8(
                3, 7, 11, 15, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, //
                3, 7, 11, 15, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
            );
            let second = _mm256_setr_epi8(
                -1, -1, -1, -1, 3, 7, 11, 15, -1, -1, -1, -1, -1, -1, -1, -1, //
                -1, -1, -1, -1, 3, 7, 11, 15, -1, -1, -1, -1, -1, -1, -1, -1,
            );
            let (first, second) =
                (_mm256_shuffle_epi8(x[0], first), _mm256_shuffle_epi8(x[1], second));
            let bytes = _mm256_or_si256(first, second);
            let quarters = _mm256_setr_epi32(0, 4, 1, 5, 0, 0, 0, 0);
            let bytes = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(bytes, quarters));
            let mut array = [0; N];
            // SAFETY: the array has 16 bytes.
            unsafe { _mm_storeu_si128(array.as_mut_ptr().cast(), bytes) };
            array
        }

        fn load_words(mask: Pair, words: &[u8; 2 * N]) -> Pair {
            let (first, second) = (bits(mask[0]), bits(mask[1]));
            let behind = 2 * first.count_ones() as usize;
            // SAFETY: 16 bytes are readable there, as `behind` is at most 16.
            let [low, high] = unsafe {
                [
                    _mm_loadu_si128(words.as_ptr().cast()),
                    _mm_loadu_si128(words.as_ptr().add(behind).cast()),
                ]
            };
            let (low, high) = (_mm256_cvtepu16_epi32(low), _mm256_cvtepu16_epi32(high));
            [
                _mm256_permutevar8x32_epi32(low, load_half(&SPREAD[first])),
                _mm256_permutevar8x32_epi32(high, load_half(&SPREAD[second])),
            ]
        }

        fn store_words_before(mask: Pair, x: Pair, words: &mut [u16], at: usize) -> usize {
            let (first, second) = (bits(mask[0]), bits(mask[1]));
            let target = words[at - H..at].as_mut_ptr();
            // SAFETY: the slice has 8 words.
            unsafe { _mm_storeu_si128(target.cast(), words_at_back(second, x[1])) };
            let at = at - second.count_ones() as usize;
            let target = words[at - H..at].as_mut_ptr();
            // SAFETY: the slice has 8 words.
            unsafe { _mm_storeu_si128(target.cast(), words_at_back(first, x[0])) };
            at - first.count_ones() as usize
        }

        fn splat(x: u32) -> Pair {
            [_mm256_set1_epi32(x.cast_signed()); 2]
        }

        fn iota() -> Pair {
            let first = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            [first, _mm256_add_epi32(first, _mm256_set1_epi32(8))]
        }

        fn add(a: Pair, b: Pair) -> Pair {
            [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])]
        }

        fn sub(a: Pair, b: Pair) -> Pair {
            [_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])]
        }

        fn mul(a: Pair, b: Pair) -> Pair {
            [_mm256_mullo_epi32(a[0], b[0]), _mm256_mullo_epi32(a[1], b[1])]
        }

        fn and(a: Pair, b: Pair) -> Pair {
            [_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])]
        }

        fn or(a: Pair, b: Pair) -> Pair {
            [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])]
        }

        fn min(a: Pair, b: Pair) -> Pair {
            [_mm256_min_epu32(a[0], b[0]), _mm256_min_epu32(a[1], b[1])]
        }

        fn max(a: Pair, b: Pair) -> Pair {
            [_mm256_max_epu32(a[0], b[0]), _mm256_max_epu32(a[1], b[1])]
        }

        fn shl<const BITS: u32>(x: Pair) -> Pair {
            let by = _mm256_set1_epi32(BITS.cast_signed());
            [_mm256_sllv_epi32(x[0], by), _mm256_sllv_epi32(x[1], by)]
        }

        fn shr<const BITS: u32>(x: Pair) -> Pair {
            let by = _mm256_set1_epi32(BITS.cast_signed());
            [_mm256_srlv_epi32(x[0], by), _mm256_srlv_epi32(x[1], by)]
        }

        fn magnitude(x: Pair) -> Pair {
            [_mm256_abs_epi32(x[0]), _mm256_abs_epi32(x[1])]
        }

        fn scaled_quotient(a: Pair, b: Pair, factor: f32) -> Pair {
            let factor = _mm256_set1_ps(factor);
            let low = _mm256_div_ps(to_float(a[0]), to_float(b[0]));
            let high = _mm256_div_ps(to_float(a[1]), to_float(b[1]));
            [
                _mm256_cvttps_epi32(_mm256_mul_ps(low, factor)),
                _mm256_cvttps_epi32(_mm256_mul_ps(high, factor)),
            ]
        }

        fn look_up(table: Pair, index: Pair) -> Pair {
            [look_up_half(table, index[0]), look_up_half(table, index[1])]
        }

        fn less(a: Pair, b: Pair) -> Pair {
            let upper = _mm256_set1_epi32(i32::MIN);
            let flip = |x| _mm256_xor_si256(x, upper);
            [
                _mm256_cmpgt_epi32(flip(b[0]), flip(a[0])),
                _mm256_cmpgt_epi32(flip(b[1]), flip(a[1])),
            ]
        }

        fn at_least_signed(a: Pair, b: Pair) -> Pair {
            let all = _mm256_set1_epi32(-1);
            [
                _mm256_xor_si256(_mm256_cmpgt_epi32(b[0], a[0]), all),
                _mm256_xor_si256(_mm256_cmpgt_epi32(b[1], a[1]), all),
            ]
        }

        fn select(mask: Pair, a: Pair, b: Pair) -> Pair {
            [
                _mm256_blendv_epi8(b[0], a[0], mask[0]),
                _mm256_blendv_epi8(b[1], a[1], mask[1]),
            ]
        }

        fn count(mask: Pair) -> usize {
            (bits(mask[0]).count_ones() + bits(mask[1]).count_ones()) as usize
        }
    }
}
