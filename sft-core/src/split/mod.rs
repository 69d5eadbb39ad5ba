//! The two halves of a training step, and the protocol between device and server.
//!
//! `DeviceHalf` and `ServerHalf` compute; `DeviceSide` and `ServerSide` add what a round needs around
//! them. The two sides share nothing but messages, which a `Transport` carries.

/// Adapters between the sides.
mod adapters;
/// How the server gets bases.
pub(crate) mod calibration;
/// The ends of the streams of messages.
mod codecs;
/// Tensors of the cut on their way into a codec and out of it.
mod coded;
/// How tensors cross the cut.
mod cut_codec;
/// A server that does not wait for ever.
mod deadline;
/// The device's side of a round.
mod device;
/// The device's half of a step.
mod device_half;
/// A tensor over the connection.
mod exchange;
/// How large a mini-batch at the cut is.
mod extent;
/// The forward pass of the adapted model and its two parts.
pub(crate) mod forward;
/// The head on either side.
mod head_half;
/// How a round begins.
mod hello;
/// A device's own samples, mini-batch by mini-batch.
mod local_data;
/// A connection within a process.
mod memory;
/// What crosses the link.
pub mod message;
/// What a device is told at the start of a round.
mod plan;
/// The server's side of a round for one device.
mod server;
/// The server's half of a step.
mod server_half;
/// How far the server's side is.
mod stage;
/// What crosses outside of a round.
mod through_cut;
/// What carries messages.
mod transport;
/// A training step of the whole model.
mod unsplit;

pub use adapters::Held;
pub use calibration::{ShownActivations, learn_bases, samples as calibration_samples};
pub use codecs::{DeviceCodecs, Remembered, ServerCodecs};
pub use cut_codec::{Bases, CutCodec};
pub use deadline::Deadline;
pub use device::{DevicePart, DeviceSide};
pub use device_half::{DeviceHalf, HeadStep};
pub use local_data::LocalData;
pub use memory::{InMemory, Serve};
pub use plan::{LabelSide, RoundPlan, Step, Work};
pub use server::{ServerSide, Update};
pub use server_half::{Passed, ServerHalf, ServerStep};
pub use transport::{Connection, Traffic, Transport};
pub use unsplit::WholeModel;

pub(crate) use coded::finite;
pub(crate) use device::receive_adapters;
pub(crate) use hello::{check_hello, say_hello};
pub(crate) use local_data::Loaded;
pub(crate) use plan::{
    batches, check_between, check_count, check_cut, check_frozen_blocks, check_rank, check_rate,
};
pub(crate) use through_cut::ThroughCut;
pub(crate) use transport::unexpected;
