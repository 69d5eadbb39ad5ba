//! Algorithm 1 and the schemes it is compared with.

/// What the server makes of the adapters of a round.
mod aggregate;
/// Bases for the transform codecs.
mod calibrate;
/// A run as a file, to go on from.
mod checkpoint;
/// What a run is asked to do, as files, flags and Python say it.
mod config;
/// What the inputs hold, whatever their files are called.
mod content;
mod entry;
/// How well adapters do on a data set.
mod evaluate;
/// What a run was and did, as `run.json`.
mod file;
/// Devices that are elsewhere.
mod fleet;
/// The folder that gets a run's files.
mod folder;
/// The whole model with every weight trained.
mod full;
/// What a tuned language model says.
mod generate;
/// Model and data of a run, opened.
mod inputs;
/// What a run is made of, and whether the parts fit together.
mod job;
/// One device's part of a round.
mod local;
/// The average of products of adapters.
mod product;
/// What is told while a run goes on.
mod progress;
/// A run as it stands after a round.
mod record;
/// Round by round.
mod rounds;
/// Adapters to start from.
mod saved;
/// A run from its configuration to its files.
mod session;
/// What the trainer is asked to do.
mod settings;
/// The texts of a run.
mod texts;
/// Accuracy of a model that stays split.
mod through_cut;
/// Local training of a whole model, as in FL.
mod whole;
/// Devices, server and channel: the modelled delay and memory.
mod wireless;

pub use aggregate::fed_avg;
pub use checkpoint::{load_checkpoint, save_checkpoint};
pub use config::{
    BackendKind, DeviceAdaptersKind, FadingKind, OptimizerKind, RunConfig, ScheduleKind,
};
pub use evaluate::{evaluate, logits};
pub use file::RunFile;
pub use fleet::{Call, Fleet};
pub use generate::{Generated, generate};
pub use inputs::{Inputs, image_input, open_data, open_model, text_model};
pub use job::Job;
pub use local::CodecState;
pub use product::{ProductAverage, average_products};
pub use progress::Progress;
pub use record::{RoundRecord, Run};
pub use rounds::finetune;
pub use session::{SchemeRun, Session, Setup};
pub use settings::{Aggregation, Scheme, Settings};
#[cfg(feature = "net")]
pub(crate) use texts::TEXTS;
pub use wireless::{Channel, DeviceRound, Wireless};
