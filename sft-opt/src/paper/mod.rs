//! What the paper does, kept as rivals of the exact solvers: Algorithms 2 and 3.

/// The inner problem of Algorithm 2.
mod compression_given_cut;
/// Algorithm 2 as an augmented Lagrangian.
mod lagrangian;
/// Algorithm 2 as printed.
mod literal;
/// Algorithm 3: bandwidths by sequential programming.
#[cfg(feature = "sqp")]
mod sqp;

pub use lagrangian::{Phr, augmented_lagrangian};
pub use literal::{Literal, LiteralPoint, algorithm2_literal};
#[cfg(feature = "sqp")]
pub use sqp::{Sqp, SqpPoint, sqp};
