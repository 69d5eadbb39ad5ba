//! The two halves of a training step, and what passes between them.

/// The forward pass of the adapted model and its two parts.
pub(crate) mod forward;
/// The device's and the server's half.
mod halves;
/// What crosses the link.
mod messages;
/// A training step of the whole model.
mod unsplit;

pub use halves::{DeviceHalf, ServerHalf, ServerStep, Step};
pub use messages::{ActivationMessage, AdapterMessage, Counted, GradientMessage, Link, Traffic};
pub use unsplit::WholeModel;
