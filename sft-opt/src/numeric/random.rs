//! Random streams: every draw is a pure function of a seed, a purpose and its own coordinates, so
//! the order of calls and the number of threads do not matter.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a random stream is for: streams of different purposes never overlap.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    UplinkGain,
    DownlinkGain,
    Clock,
    Allocation,
}

/// The random stream number `index` of a seed and purpose.
pub(crate) fn stream(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index << 2 | purpose as u64);
    rng
}

/// Uniform on the open interval (0, 1): 52 bits and a half, so neither end occurs.
pub(crate) fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    ((rng.next_u64() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

/// A draw of `Exp(1)`, positive.
pub(crate) fn exponential(rng: &mut ChaCha8Rng) -> f64 {
    -uniform(rng).ln()
}
