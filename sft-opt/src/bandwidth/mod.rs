//! Sharing a band, or a band and a server: problems of plain numbers, solved exactly.

/// The answer, and what fixes its delay.
mod bandwidths;
/// Allocations to compare with: given, even, proportional, random.
mod baseline;
/// Two pools with caps.
mod capped_pools;
/// Steps of fourth order to the delay of one pool.
mod moments;
/// P2 solved exactly.
mod one_pool;
/// The problem P2 and its checks.
mod problem;
/// Two pools solved exactly.
mod two_pools;

pub use bandwidths::{Bandwidths, Regime};
#[cfg(feature = "sqp")]
pub(crate) use baseline::share;
pub use baseline::{allocate_even, allocate_proportional, allocate_random, evaluate_allocation};
pub use one_pool::{allocate_bandwidth, allocate_bandwidth_into};
pub use problem::Problem;
pub use two_pools::{Shares, TwoPools, allocate_two_pools};
