#![allow(
    clippy::wildcard_imports,
    reason = "the instructions are the vocabulary here"
)]
#![allow(clippy::inline_always, reason = "compiled into each kernel")]

use std::arch::x86_64::*;

use super::vector::{N, Vector, methods};

/// One register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ and VL, and what [`super::avx2`] needs.
    pub(super) const unsafe fn new() -> Self {
        Self(())
    }
}

impl Vector for Avx512 {
    type Numbers = __m512i;
    type Mask = __mmask16;

    #[inline(always)]
    unsafe fn load(self, from: *const u32) -> __m512i {
        // SAFETY: the processor has the instructions; the rest is the caller's.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, x: __m512i, to: *mut u32) {
        // SAFETY: the processor has the instructions; the rest is the caller's.
        unsafe { _mm512_storeu_si512(to.cast(), x) }
    }

    #[inline(always)]
    unsafe fn gather(self, table: &[u32], index: __m512i) -> __m512i {
        // SAFETY: the processor has the instructions; the rest is the caller's.
        unsafe { _mm512_i32gather_epi32::<4>(index, table.as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn store_packed(self, mask: __mmask16, x: [__m512i; 2], to: [*mut u32; 2]) -> usize {
        // SAFETY: the processor has the instructions; the rest is the caller's.
        unsafe {
            _mm512_storeu_si512(to[0].cast(), _mm512_maskz_compress_epi32(mask, x[0]));
            _mm512_storeu_si512(to[1].cast(), _mm512_maskz_compress_epi32(mask, x[1]));
        }
        mask.count_ones() as usize
    }

    methods! { "avx512f,avx512bw,avx512dq,avx512vl,popcnt";
        fn load_u8(from: &[u8; N]) -> __m512i {
            // SAFETY: 16 bytes are readable behind the reference.
            _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
        }

        fn load_i8(from: &[i8; N]) -> __m512i {
            // SAFETY: 16 bytes are readable behind the reference.
            _mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
        }

        fn signs(of: &[i8; N]) -> (__mmask16, __mmask16) {
            // SAFETY: 16 bytes are readable behind the reference.
            let of = unsafe { _mm_loadu_si128(of.as_ptr().cast()) };
            (_mm_cmpgt_epi8_mask(of, _mm_setzero_si128()), _mm_movepi8_mask(of))
        }

        fn upper_bytes(x: __m512i) -> [i8; N] {
            let bytes = _mm512_cvtepi32_epi8(_mm512_srli_epi32::<24>(x));
            let mut array = [0; N];
            // SAFETY: the array has 16 bytes.
            unsafe { _mm_storeu_si128(array.as_mut_ptr().cast(), bytes) };
            array
        }

        fn load_words(mask: __mmask16, words: &[u8; 2 * N]) -> __m512i {
            // SAFETY: 32 bytes are readable behind the reference.
            let words = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
            _mm512_maskz_expand_epi32(mask, _mm512_cvtepu16_epi32(words))
        }

        fn store_words_before(mask: __mmask16, x: __m512i, words: &mut [u16], at: usize) -> usize {
            let packed = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(mask, x));
            let count = mask.count_ones() as usize;
            let target = words[at - count..at].as_mut_ptr();
            let stored = ((1_u32 << count) - 1) as u16;
            // SAFETY: the mask selects the `count` words of the slice.
            unsafe { _mm256_mask_storeu_epi16(target.cast(), stored, packed) };
            at - count
        }

        fn splat(x: u32) -> __m512i {
            _mm512_set1_epi32(x.cast_signed())
        }

        fn iota() -> __m512i {
            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
        }

        fn add(a: __m512i, b: __m512i) -> __m512i {
            _mm512_add_epi32(a, b)
        }

        fn sub(a: __m512i, b: __m512i) -> __m512i {
            _mm512_sub_epi32(a, b)
        }

        fn mul(a: __m512i, b: __m512i) -> __m512i {
            _mm512_mullo_epi32(a, b)
        }

        fn and(a: __m512i, b: __m512i) -> __m512i {
            _mm512_and_si512(a, b)
        }

        fn or(a: __m512i, b: __m512i) -> __m512i {
            _mm512_or_si512(a, b)
        }

        fn min(a: __m512i, b: __m512i) -> __m512i {
            _mm512_min_epu32(a, b)
        }

        fn max(a: __m512i, b: __m512i) -> __m512i {
            _mm512_max_epu32(a, b)
        }

        fn shl<const BITS: u32>(x: __m512i) -> __m512i {
            _mm512_slli_epi32::<BITS>(x)
        }

        fn shr<const BITS: u32>(x: __m512i) -> __m512i {
            _mm512_srli_epi32::<BITS>(x)
        }

        fn magnitude(x: __m512i) -> __m512i {
            _mm512_abs_epi32(x)
        }

        fn scaled_quotient(a: __m512i, b: __m512i, factor: f32) -> __m512i {
            let q = _mm512_div_ps(_mm512_cvtepu32_ps(a), _mm512_cvtepu32_ps(b));
            _mm512_cvttps_epi32(_mm512_mul_ps(q, _mm512_set1_ps(factor)))
        }

        fn look_up(table: __m512i, index: __m512i) -> __m512i {
            _mm512_permutexvar_epi32(index, table)
        }

        fn less(a: __m512i, b: __m512i) -> __mmask16 {
            _mm512_cmplt_epu32_mask(a, b)
        }

        fn at_least_signed(a: __m512i, b: __m512i) -> __mmask16 {
            _mm512_cmpge_epi32_mask(a, b)
        }

        fn select(mask: __mmask16, a: __m512i, b: __m512i) -> __m512i {
            _mm512_mask_blend_epi32(mask, b, a)
        }

        fn count(mask: __mmask16) -> usize {
            mask.count_ones() as usize
        }
    }
}
