//! Devices and server as processes of their own, on a network.

/// Certificates to try with.
mod certs;
/// A device's way to its server.
mod connect;
/// The rates that links are held to.
mod control;
/// What a link carried.
mod counts;
/// The devices, as the server sees them.
mod devices;
/// Halves of models as files.
mod files;
/// Signs of life.
mod heard;
/// Certificates of one's own.
mod identity;
/// What a device learns before its first round.
mod job;
/// A device as a process.
mod join;
/// One end of a connection.
mod link;
/// Where devices come in.
mod listener;
/// What a device's codecs remember.
mod memory;
/// What all links carry together.
mod meter;
/// The status of a run for browsers and Prometheus.
mod page;
/// What is said over a link.
mod say;
/// The server.
mod serve;
/// How a run stands.
mod status;
/// Turns at the server's work.
mod turns;
/// Messages as pieces of a stream.
mod wire;

pub use certs::make_certificates;
pub use connect::connect;
pub use control::Pacing;
pub use counts::LinkCounts;
pub use devices::RoundPolicy;
pub use files::HalfFile;
pub use identity::Identity;
pub use job::DeviceJob;
pub use join::{DeviceNews, JoinOptions, OpenData, join};
pub use link::{Link, LinkLimits};
pub use listener::Listener;
pub use page::StatusPage;
pub use serve::serve;
pub use status::{Board, DeviceState, DeviceStatus, Promise, Status};
