#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

/// The accuracy surface.
mod accuracy;
/// P2 solved exactly.
mod bandwidth;
/// Allocations to compare with: given, even, proportional, random.
mod baseline;
/// Two resources shared at once, with caps.
mod capped_pools;
/// Spectral efficiency, Rayleigh fading, random clocks.
mod channel;
/// Sums and quotients with their rounding errors.
mod compensated;
/// The compression problem, solved exactly.
mod compression;
/// The joint problem of a system.
mod cut_options;
/// Delay of a round, phase by phase.
mod delay;
/// Compression of its own for every device.
mod device_compression;
/// A cut layer of its own for every device.
mod device_cuts;
/// The crate's error.
mod error;
/// Least-squares fit of the accuracy surface.
mod fit;
/// Floating-point operations of a mini-batch.
mod flops;
/// The inner problem of Algorithm 2.
mod inner;
/// P1 and the joint problem P.
mod joint;
/// Algorithm 2 as an augmented Lagrangian.
mod lagrangian;
/// Loops that become vector instructions.
mod lanes;
/// Algorithm 2 as printed.
mod literal;
/// Memory on a device.
mod memory;
/// The transformer and its parameters.
mod model;
/// Steps of fourth order to the delay of a bandwidth problem.
mod moments;
/// How a solver ended.
mod outcome;
/// Mean signal-to-noise ratio from distance.
mod path_loss;
/// Bits on the air.
mod payload;
/// Cubics on an interval.
mod polynomial;
/// Two resources shared at once.
mod pools;
/// Memory, payloads and delays of a whole training.
mod predict;
/// The bandwidth problem P2 and its checks.
mod problem;
/// Compressed bits over raw bits.
mod rate;
/// A cut layer and a share of the server for every device.
mod shared_cuts;
/// The answer to a bandwidth problem.
mod solution;
/// Algorithm 3: bandwidths by sequential programming.
#[cfg(feature = "sqp")]
mod sqp;
/// Devices, server, and the system they form.
mod system;
/// A system in files.
mod system_file;
/// Training settings and schemes.
mod training;
/// P1 once, P2 in every round.
mod two_timescale;

pub use accuracy::{Accuracy, KeepScale, Term};
pub use bandwidth::{allocate_bandwidth, allocate_bandwidth_into};
pub use baseline::{allocate_even, allocate_proportional, allocate_random, evaluate_allocation};
pub use channel::{Direction, Fading, Link, random_clocks_hz, spectral_efficiency};
pub use compression::{Compression, Setting, best_compression};
pub use delay::{Demands, Phases, PoolDemands, Round, RoundDelay};
pub use device_compression::{DeviceCompression, optimize_device_compression};
pub use device_cuts::{DeviceCuts, optimize_device_cuts};
pub use error::{Error, Result};
pub use fit::{AccuracyPoint, Axis, Fit, NotMonotone};
pub use flops::{BatchFlops, Flops, Pass};
pub use joint::{Configuration, CutOption, JointProblem, configure, optimize};
pub use lagrangian::{Phr, PhrSolution, augmented_lagrangian};
pub use literal::{Literal, LiteralSolution, algorithm2_literal};
pub use memory::{Memory, device_memory};
pub use model::{Counts, Part, Qkv, Transformer};
pub use outcome::{Constraint, Outcome};
pub use path_loss::PathLoss;
pub use payload::{Payload, activation_bits, adapter_bits, model_bits};
pub use pools::{TwoPoolSolution, TwoPools, allocate_two_pools};
pub use predict::{Allocation, Forecast, PredictedRound, Prediction};
pub use problem::Problem;
pub use rate::{Rate, RateGrid};
pub use solution::{Regime, Solution};
#[cfg(feature = "sqp")]
pub use sqp::{Sqp, SqpEnd, SqpSolution, sqp};
pub use system::{Device, Server, ServerModel, System};
pub use training::{FlHead, Scheme, Training};
pub use two_timescale::{Assumption, TwoTimescale, two_timescale};
