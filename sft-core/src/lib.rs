#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

/// LoRA adapters and where they attach.
mod adapter;
/// The frozen transformer block with adapters, forward and backward by hand.
mod block;
/// Labelled examples and how they are spread over devices.
mod data;
/// The crate's error.
mod error;
/// Accuracy of adapters on a data set.
mod evaluate;
/// Matrix product and elementwise kernels; the one folder with `unsafe`.
mod kernels;
/// The messages between device and server, and the link that carries them.
mod link;
/// What a splittable model is.
mod model;
/// Independent tasks on a few threads.
mod parallel;
/// Adapters as files.
mod save;
/// Independent random streams from one seed.
mod seed;
/// The device's and the server's half of a training step.
mod split;
/// Algorithm 1 and the schemes it is compared with.
mod train;
/// Adapters, head and optimizers.
mod trainable;
/// The vision transformer.
mod vit;
/// Devices, server and channel: the modelled delay and memory.
mod wireless;

pub use adapter::{LinearSpec, Lora};
pub use data::{CIFAR100_CLASSES, Data, ImageInput, Images, Partition, cifar100};
pub use error::{Error, Result};
pub use evaluate::{accuracy, logits};
pub use link::{ActivationMessage, AdapterMessage, Counted, GradientMessage, Link, Traffic};
pub use model::Model;
pub use save::{save_adapters, write_whole};
pub use split::{DeviceHalf, ServerHalf, ServerStep};
pub use train::{Job, Outcome, RoundRecord, Scheme, Settings, fed_avg, finetune};
pub use trainable::{Adapters, Head, Optimizer};
pub use vit::{PlainVit, Pretrained, Vit, VitConfig, VitWeights};
pub use wireless::{Channel, Wireless};
