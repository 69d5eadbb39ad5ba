#![allow(
    clippy::inline_always,
    reason = "compiled with the instructions of the loop around it"
)]

/// Uniform random numbers in [0, 1), each a function of seed and index alone.
///
/// The `SplitMix64` generator in counter form: number i is output i + 1 of the
/// generator whose state starts at the mixed seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise {
    start: u64,
}

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self { start: mix(seed) }
    }

    /// A multiple of 2⁻²⁴: the upper bits of [`uniform`](Self::uniform).
    #[inline(always)]
    pub(crate) fn coarse(self, index: u32) -> f32 {
        (self.bits(index) >> 40) as u32 as f32 * (1.0 / (1 << 24) as f32)
    }

    /// A multiple of 2⁻⁵³.
    #[inline(always)]
    pub(crate) fn uniform(self, index: u32) -> f64 {
        (self.bits(index) >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    #[inline(always)]
    fn bits(self, index: u32) -> u64 {
        let counter = (u64::from(index) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mix(self.start.wrapping_add(counter))
    }
}

/// The finalizer of `SplitMix64` (Steele, Lea and Flood, 2014; variant 13 of Stafford).
#[inline(always)]
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
