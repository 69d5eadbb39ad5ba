#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

/// Sharing a band, or a band and a server.
pub mod bandwidth;
/// What a round costs.
pub mod cost;
/// The crate's error.
mod error;
/// Arithmetic.
mod numeric;
/// What the paper does, kept as rivals.
pub mod paper;
/// Choosing cut layer, compression and bandwidths.
pub mod plan;
/// What every solver answers.
mod solution;
/// Devices, server, model and radio.
pub mod system;

pub use bandwidth::{Problem, allocate_bandwidth};
pub use cost::Round;
pub use error::{Error, Result};
pub use plan::{Accuracy, Compression, optimize};
pub use solution::{Constraint, Solution, Status};
pub use system::{Device, Placement, Server, System, Training, Transformer};
