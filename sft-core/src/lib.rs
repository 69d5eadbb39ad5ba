#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

/// LoRA adapters: sizes, layout, dropout.
mod adapter;
/// The frozen transformer block with adapters, forward and backward by hand.
mod block;
/// A run as a file, to go on from.
mod checkpoint;
/// Labelled examples and how they are spread over devices.
mod data;
/// The crate's error.
mod error;
/// Accuracy of adapters on a data set.
mod evaluate;
/// Whether adapters and a head fit a model.
mod fit;
/// The forward pass of the adapted model and its two parts.
mod forward;
/// The classification head, trained in full or adapted.
mod head;
/// Matrix product and elementwise kernels; the one folder with `unsafe`.
mod kernels;
/// The messages between device and server, and the link that carries them.
mod link;
/// A LoRA adapter in candle's operations.
mod low_rank;
/// The tuned model as one model.
mod merge;
/// What a splittable model is.
mod model;
/// Every adapter of a model with the layer that it is on.
mod pairs;
/// Independent tasks on a few threads.
mod parallel;
/// Adapters as PEFT's folder.
mod peft;
/// Independent random streams from one seed.
mod seed;
/// The device's and the server's half of a training step.
mod split;
/// The layers that get an adapter.
mod targets;
/// Algorithm 1 and the schemes it is compared with.
mod train;
/// Adapters and optimizers.
mod trainable;
/// A training step of the whole model.
mod unsplit;
/// The vision transformer.
mod vit;
/// Files that appear whole or not at all.
mod whole;
/// Devices, server and channel: the modelled delay and memory.
mod wireless;

pub use adapter::{LinearSpec, Lora, PatchSpec};
pub use checkpoint::{load_checkpoint, save_checkpoint};
pub use data::{
    Augment, CIFAR100_CLASSES, Data, DataLayout, Examples, ImageFiles, ImageInput, Images,
    Partition, cifar100, image_folder, tiny_imagenet,
};
pub use error::{Error, Result};
pub use evaluate::{accuracy, logits};
pub use head::Head;
pub use link::{ActivationMessage, AdapterMessage, Counted, GradientMessage, Link, Traffic};
pub use merge::save_merged;
pub use model::Model;
pub use peft::{ModuleNames, load_peft, save_peft};
pub use split::{DeviceHalf, ServerHalf, ServerStep, Step};
pub use targets::Targets;
pub use train::{Decay, Job, Outcome, RoundRecord, Schedule, Scheme, Settings, fed_avg, finetune};
pub use trainable::{Adapters, Optimizer, Rule};
pub use unsplit::WholeModel;
pub use vit::{PlainVit, Pretrained, Vit, VitConfig, VitWeights};
pub use whole::write_whole;
pub use wireless::{Channel, DeviceRound, Wireless};
