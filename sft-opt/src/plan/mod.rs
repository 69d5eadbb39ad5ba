//! Choosing cut layer, compression and bandwidths: the joint problem P and its kin.

/// The accuracy surface.
mod accuracy;
/// The compression problem, solved exactly.
mod compression;
/// What the solvers ask of it.
mod compression_problem;
/// The joint problem of a system.
mod cut_options;
/// Every cut layer for every device.
mod cut_table;
/// Compression of its own for every device.
mod device_compression;
/// A cut layer of its own for every device.
mod device_cuts;
/// Least-squares fit of the accuracy surface.
mod fit;
/// What accuracy costs at best.
mod frontier;
/// P1 and P.
mod joint;
/// The joint problem and its checks.
mod problem;
/// Compressed bits over raw bits.
mod rate;
/// A cut layer and a share of the server for every device.
mod shared_cuts;
/// The compression problem of a codec with one knob.
mod step_compression;
/// Rate or accuracy over one knob.
mod step_curve;
/// P1 once, P2 in every round.
mod two_timescale;

pub use accuracy::{Accuracy, KeepScale, Term};
pub use compression::{Compression, Setting, best_compression};
pub use compression_problem::CompressionProblem;
pub use device_compression::{DeviceCompression, optimize_device_compression};
pub use device_cuts::{DeviceCuts, optimize_device_cuts};
pub use fit::{AccuracyPoint, Axis, Fit, NotMonotone};
pub use joint::{Configuration, configure, optimize};
pub use problem::{CutOption, JointProblem};
pub(crate) use rate::formula;
pub use rate::{Rate, RateGrid};
pub use step_compression::{StepCompression, StepSetting, best_step};
pub use step_curve::{StepCurve, StepFit, StepPoint};
pub use two_timescale::{Assumption, TwoTimescale, two_timescale};
