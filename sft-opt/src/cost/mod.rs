//! What a round costs: operations, memory, bits on the air, and the delay of every phase.

/// Delay of a round.
mod delay;
/// What a round asks of band and server.
mod demands;
/// Floating-point operations of a mini-batch.
mod flops;
/// Memory on a device.
mod memory;
/// Bits on the air.
mod payload;
/// Memory, payloads and delays of a whole training.
mod predict;
/// A round to be timed, and its phases.
mod round;

pub use delay::RoundDelay;
pub use demands::{Demands, PoolDemands};
pub use flops::{BatchFlops, Pass};
pub use memory::{Memory, device_memory};
pub use payload::{Payload, activation_bits, adapter_bits, feature_bits, model_bits};
pub use predict::{Allocation, Forecast, PredictedRound, Prediction};
pub(crate) use round::RoundClock;
pub use round::{Phases, Round};
