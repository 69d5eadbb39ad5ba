//! The vision transformer of Dosovitskiy et al. with Hugging Face's parameter names.

mod config;
mod features;
mod names;
mod plain;
mod pretrained;
mod save;
mod stem;
mod weights;

use candle_core::{Device, Result, Tensor};

pub use config::VitConfig;
pub use plain::PlainVit;
pub use pretrained::Pretrained;
pub use save::save_merged;
pub use weights::VitWeights;

use self::config::block_path;

use self::features::FeatureNorm;
use self::stem::Stem;
use crate::adapter::{Lora, ModelSpec};
use crate::data::Inputs;
use crate::layers::{BlockWeights, FrozenBlock, Linear, Norm};
use crate::model::splittable::{Hidden, Model};

/// A frozen vision transformer on the CPU, its blocks run by the block engine.
///
/// Cloning shares the weights.
#[derive(Clone, Debug)]
pub struct Vit {
    stem: Stem,
    blocks: Vec<FrozenBlock>,
    norm: FeatureNorm,
    spec: ModelSpec,
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
            spec: config.spec(),
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
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn embed(&self, inputs: &Inputs, adapter: Option<(&Tensor, Lora)>) -> Result<Hidden> {
        let pixels = inputs.pixels()?;
        Ok(Hidden::even(match adapter {
            Some((adapter, lora)) => self.stem.embed_frozen(pixels, adapter, lora)?,
            None => self.stem.embed(pixels, None)?,
        }))
    }

    fn block(&self, index: usize, hidden: &Hidden, adapter: &Tensor, lora: Lora) -> Result<Hidden> {
        // The head reads the class token: nothing else is needed of the last block. A mask of
        // dropout is numbered by all tokens.
        let class_token = index + 1 == self.spec.depth && !lora.is_masked();
        let wanted = class_token.then_some(1);
        let block = &self.blocks[index];
        let state = block.apply(&hidden.state, adapter, lora, wanted, self.checkpointing)?;
        Ok(hidden.with_state(state))
    }

    fn finish(&self, hidden: &Hidden) -> Result<Tensor> {
        self.norm
            .forward(&hidden.state.narrow(1, 0, 1)?.squeeze(1)?)
    }
}

fn block_weights(config: &VitConfig, weights: &VitWeights, index: usize) -> Result<BlockWeights> {
    let path = block_path(index);
    let [q, k, v, o, fc1, fc2] = [0, 1, 2, 3, 4, 5].map(|i| {
        let spec = &config.spec().block[i];
        linear(
            weights,
            &format!("{path}.{}", spec.path.checkpoint),
            spec.outputs,
        )
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
