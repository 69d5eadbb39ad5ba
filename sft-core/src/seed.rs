//! Independent random streams from one seed.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What a stream is for; the first word of its key.
pub(crate) const PARTITION: u64 = 1;
pub(crate) const ADAPTER: u64 = 2;
pub(crate) const HEAD: u64 = 3;
pub(crate) const ORDER: u64 = 4;
pub(crate) const UPLINK: u64 = 5;
pub(crate) const DOWNLINK: u64 = 6;
pub(crate) const DROPOUT: u64 = 7;
pub(crate) const AUGMENT: u64 = 8;
pub(crate) const PARTICIPANTS: u64 = 9;
pub(crate) const EMBEDDING_ADAPTER: u64 = 10;
pub(crate) const HEAD_ADAPTER: u64 = 11;
pub(crate) const WEIGHTS: u64 = 12;
pub(crate) const CALIBRATION: u64 = 13;
pub(crate) const ADAPTERS_UP: u64 = 14;
pub(crate) const ADAPTERS_DOWN: u64 = 15;
pub(crate) const FEATURES: u64 = 16;
pub(crate) const FEATURE_GRADIENT: u64 = 17;
pub(crate) const THROUGH_CUT: u64 = 18;

/// The seed of the stream with this key (the SplitMix64 finaliser over its words).
pub(crate) fn derive(seed: u64, key: &[u64]) -> u64 {
    key.iter()
        .fold(mix(seed), |state, &word| mix(state ^ mix(word)))
}

/// A generator for the stream with this key.
pub(crate) fn rng(seed: u64, key: &[u64]) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(derive(seed, key))
}

/// Spreads a word over all 64 bits.
pub(crate) fn mix(word: u64) -> u64 {
    let z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
