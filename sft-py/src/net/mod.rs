//! Links between processes: what `sft.listen` and `sft.connect` return.

/// `sft.make_certificates` and certificates by their folders.
mod certs;
/// `sft.Link`.
mod link;
/// `sft.Listener`.
mod listener;
/// Waiting that Ctrl-C ends.
mod wait;

pub(crate) use certs::make_certificates;
pub(crate) use link::{Link, LinkCounts, connect};
pub(crate) use listener::{Listener, listen};
pub(crate) use wait::{same_process, seconds};
