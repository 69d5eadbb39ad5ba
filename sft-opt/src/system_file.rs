//! A system as it stands in JSON, TOML or any other format of serde.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Counts, Qkv, Transformer};
use crate::system::{Device, Server, System};
use crate::training::Training;

/// The fields of a system in a file. What is missing has its default; unknown keys are refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SystemFile {
    total_hz: f64,
    model: ModelFile,
    #[serde(default)]
    training: Training,
    #[serde(default)]
    server: Server,
    devices: Vec<Device>,
}

/// A model by name, by what its parts count, or by shape.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum ModelFile {
    Named(Named),
    Counted(Counted),
    Shape(Transformer),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    preset: Vit,
    classes: usize,
    #[serde(default = "default_rank")]
    lora_rank: usize,
    #[serde(default)]
    qkv: Qkv,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counted {
    blocks: usize,
    tokens: usize,
    width: usize,
    heads: usize,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Vit {
    #[serde(rename = "vit_tiny")]
    Tiny,
    #[serde(rename = "vit_small")]
    Small,
    #[serde(rename = "vit_base")]
    Base,
    #[serde(rename = "vit_large")]
    Large,
}

fn default_rank() -> usize {
    16
}

impl ModelFile {
    fn transformer(self) -> Transformer {
        match self {
            Self::Shape(transformer) => transformer,
            Self::Counted(Counted {
                blocks,
                tokens,
                width,
                heads,
                counts,
            }) => Transformer::counted(blocks, tokens, width, heads, counts),
            Self::Named(named) => {
                let make = match named.preset {
                    Vit::Tiny => Transformer::vit_tiny,
                    Vit::Small => Transformer::vit_small,
                    Vit::Base => Transformer::vit_base,
                    Vit::Large => Transformer::vit_large,
                };
                make(named.classes).with_lora(named.lora_rank, named.qkv)
            }
        }
    }
}

impl TryFrom<SystemFile> for System {
    type Error = Error;

    fn try_from(file: SystemFile) -> Result<Self> {
        let model = file.model.transformer();
        Self::new(
            model,
            file.training,
            file.server,
            file.devices,
            file.total_hz,
        )
    }
}

impl From<System> for SystemFile {
    fn from(system: System) -> Self {
        Self {
            total_hz: system.total_hz(),
            model: ModelFile::Shape(*system.model()),
            training: *system.training(),
            server: *system.server(),
            devices: system.devices().to_vec(),
        }
    }
}
