#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

/// P2 solved exactly.
mod bandwidth;
/// Allocations to compare with: given, even, random.
mod baseline;
/// Spectral efficiency, Rayleigh fading, random clocks.
mod channel;
/// Sums and quotients with their rounding errors.
mod compensated;
/// Delay of a round, phase by phase.
mod delay;
/// The crate's error.
mod error;
/// Floating-point operations of a mini-batch.
mod flops;
/// Memory on a device.
mod memory;
/// The transformer and its parameters.
mod model;
/// Bits on the air.
mod payload;
/// The bandwidth problem P2 and its checks.
mod problem;
/// The answer to a bandwidth problem.
mod solution;
/// Devices, server, and the system they form.
mod system;
/// Training settings and schemes.
mod training;

pub use bandwidth::{allocate_bandwidth, allocate_bandwidth_into};
pub use baseline::{allocate_even, allocate_random, evaluate_allocation};
pub use channel::{Direction, Fading, Link, random_clocks_hz, spectral_efficiency};
pub use delay::{Demands, Phases, Round, RoundDelay};
pub use error::{Error, Result};
pub use flops::{BatchFlops, Flops, Pass};
pub use memory::{Memory, device_memory};
pub use model::{Qkv, Transformer};
pub use payload::{Payload, activation_bits, adapter_bits, model_bits};
pub use problem::Problem;
pub use solution::{Regime, Solution};
pub use system::{Device, Server, ServerModel, System};
pub use training::{FlHead, Scheme, Training};
