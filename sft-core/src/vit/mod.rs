//! The vision transformer of Dosovitskiy et al. with Hugging Face's parameter names.

mod config;
mod features;
mod names;
mod plain;
mod pretrained;
mod stem;
mod weights;

use candle_core::{Device, Result, Tensor};

pub use config::VitConfig;
pub use plain::PlainVit;
pub use pretrained::Pretrained;
pub use weights::VitWeights;

pub(crate) use self::config::block_path;
pub(crate) use self::names::as_checkpoint;

use self::features::FeatureNorm;
use self::stem::Stem;
use crate::block::{BlockWeights, FrozenBlock, Linear, Norm};
use crate::{LinearSpec, Lora, Model, PatchSpec};

/// A frozen vision transformer on the CPU, its blocks run by the block engine.
///
/// Cloning shares the weights.
#[derive(Clone, Debug)]
pub struct Vit {
    stem: Stem,
    blocks: Vec<FrozenBlock>,
    norm: FeatureNorm,
    linears: Vec<LinearSpec>,
    checkpointing: bool,
}

impl Vit {
    /// The model with a copy of these weights.
    ///
    /// # Errors
    /// A tensor operation failed.
    pub fn new(config: &VitConfig, weights: &VitWeights) -> Result<Self> {
        let block = |i| Ok(FrozenBlock::new(block_weights(config, weights, i)?));
        Ok(Self {
            stem: Stem::new(config, weights)?,
            blocks: (0..config.num_hidden_layers)
                .map(block)
                .collect::<Result<_>>()?,
            norm: FeatureNorm::new(norm(weights, "vit.layernorm", config)?),
            linears: config.linears(),
            checkpointing: false,
        })
    }

    /// The same, its blocks keeping only their input for the backward pass, which then computes
    /// each block's forward pass again (gradient checkpointing); the results are the same bits.
    #[must_use]
    pub fn with_checkpointing(self, checkpointing: bool) -> Self {
        Self {
            checkpointing,
            ..self
        }
    }
}

impl Model for Vit {
    fn depth(&self) -> usize {
        self.blocks.len()
    }

    fn width(&self) -> usize {
        self.linears[0].inputs
    }

    fn linears(&self) -> &[LinearSpec] {
        &self.linears
    }

    fn patch(&self) -> &PatchSpec {
        self.stem.spec()
    }

    fn block_path(&self, index: usize) -> String {
        block_path(index)
    }

    fn head_path(&self) -> &'static str {
        "classifier"
    }

    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn embed(&self, input: &Tensor, adapter: Option<(&Tensor, Lora)>) -> Result<Tensor> {
        match adapter {
            Some((adapter, lora)) => self.stem.embed_frozen(input, adapter, lora),
            None => self.stem.embed(input, None),
        }
    }

    fn block(&self, index: usize, hidden: &Tensor, adapter: &Tensor, lora: Lora) -> Result<Tensor> {
        // The head reads the class token: nothing else is needed of the last block. A mask of
        // dropout is numbered by all tokens.
        let class_token = index + 1 == self.depth() && !lora.is_masked();
        let wanted = class_token.then_some(1);
        self.blocks[index].apply(hidden, adapter, lora, wanted, self.checkpointing)
    }

    fn features(&self, hidden: &Tensor) -> Result<Tensor> {
        self.norm.forward(&hidden.narrow(1, 0, 1)?.squeeze(1)?)
    }
}

fn block_weights(config: &VitConfig, weights: &VitWeights, index: usize) -> Result<BlockWeights> {
    let path = block_path(index);
    let [q, k, v, o, fc1, fc2] = [0, 1, 2, 3, 4, 5].map(|i| {
        let spec = &config.linears()[i];
        linear(weights, &format!("{path}.{}", spec.name), spec.outputs)
    });
    Ok(BlockWeights {
        heads: config.num_attention_heads,
        norm1: norm(weights, &format!("{path}.layernorm_before"), config)?,
        qkv: stack([q?, k?, v?]),
        out: o?,
        norm2: norm(weights, &format!("{path}.layernorm_after"), config)?,
        fc1: fc1?,
        fc2: fc2?,
    })
}

/// The layers below each other.
fn stack(linears: [Linear; 3]) -> Linear {
    let [q, k, v] = linears;
    Linear {
        weight: [q.weight, k.weight, v.weight].concat(),
        bias: [q.bias, k.bias, v.bias].concat(),
    }
}

fn linear(weights: &VitWeights, path: &str, outputs: usize) -> Result<Linear> {
    let bias = weights
        .find(&format!("{path}.bias"))
        .map(values)
        .transpose()?;
    Ok(Linear {
        weight: values(weights.get(&format!("{path}.weight")))?,
        bias: bias.unwrap_or_else(|| vec![0.0; outputs]),
    })
}

fn norm(weights: &VitWeights, path: &str, config: &VitConfig) -> Result<Norm> {
    Ok(Norm {
        gain: values(weights.get(&format!("{path}.weight")))?,
        bias: values(weights.get(&format!("{path}.bias")))?,
        eps: config.layer_norm_eps as f32,
    })
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}
