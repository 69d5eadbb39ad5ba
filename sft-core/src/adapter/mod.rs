//! LoRA adapters: on which layers, of which sizes, as values and as PEFT's files.

/// Everything that fine-tuning changes.
mod adapters;
/// Whether adapters and a head fit a model.
mod fit;
/// The head as plain data.
mod head;
/// Sizes, layout and dropout.
mod lora;
/// Every adapter with the layer that it is on.
mod named;
/// Adapters as PEFT's folder.
mod peft;
/// PEFT's configuration.
mod peft_config;
/// What a model tells of itself.
mod spec;
/// The layers that get an adapter.
mod targets;

pub use adapters::Adapters;
pub use head::Head;
pub use lora::Lora;
pub(crate) use peft::TENSORS;
pub use peft::{ModuleNames, load_peft, load_pooler, save_peft};
pub use spec::{LinearSpec, ModelSpec, NamedShape, Path};
pub use targets::{Place, TargetModules, Targets};

pub(crate) use adapters::{cut_into, device_vectors};
pub(crate) use fit::{check_adapters, check_blocks, check_embedding, check_frozen, check_head};
pub(crate) use lora::{Dropout, normal};
pub(crate) use named::{
    AdaptedLayer, adapted_layers, block_layers, device_layout, device_lengths, embedding_layers,
    head_layer, head_layout, head_shapes, whole_layout,
};
