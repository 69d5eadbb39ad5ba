//! The vision transformer of Dosovitskiy et al. with Hugging Face's parameter names.

mod config;
mod infer;
mod names;
mod preprocessor;
mod pretrained;
mod save;
mod stem;
mod weights;

use candle_core::{Result, Tensor, bail};

pub use config::VitConfig;
pub use pretrained::PretrainedVit;
pub use weights::VitWeights;

use self::config::{SCALED, block_path};
use self::stem::Stem;
use super::half::{held_block, held_blocks};
use super::splittable::{Hidden, Model};
use crate::adapter::{Lora, ModelSpec};
use crate::data::Inputs;
use crate::layers::{
    Activation, AttentionWeights, Backend, Block, BlockWeights, Mask, MlpWeights, Norm, NormOrder,
    Wanted,
};

/// What the head reads: nothing else is needed of the last block.
const CLASS_TOKEN: Wanted = Wanted::First(1);

/// A frozen vision transformer, its layers run by a backend.
///
/// Cloning shares the weights.
#[derive(Clone, Debug)]
pub struct Vit {
    stem: Stem,
    blocks: Vec<Block>,
    norm: Norm,
    spec: ModelSpec,
    backend: Backend,
}

impl Vit {
    /// The model with these weights: copied into the engine, or shared with candle's tensors where
    /// they are on its device, so that variables stay variables.
    ///
    /// # Errors
    /// Weights that cannot be read, or a device that has no room for them.
    pub fn new(config: &VitConfig, weights: &VitWeights, backend: Backend) -> Result<Self> {
        let block = |i| Block::new(&block_weights(config, weights, i)?, &backend);
        let norm = weights.norm("vit.layernorm", config.layer_norm_eps)?;
        Ok(Self {
            stem: Stem::new(config, weights, &backend)?,
            blocks: (0..held_blocks(&config.spec(), |name| weights.0.holds(name)))
                .map(block)
                .collect::<Result<_>>()?,
            norm: Norm::new(&norm, &backend)?,
            spec: config.spec(),
            backend,
        })
    }

    /// Memory of the frozen weights, bytes.
    pub fn bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(Block::bytes).sum();
        self.stem.bytes() + blocks + self.norm.bytes()
    }

    /// The features `[B, D]` of images `[B, C, H, H]`, without adapters.
    ///
    /// # Errors
    /// Images of another size.
    pub fn features(&self, images: &Tensor) -> Result<Tensor> {
        let embedded = self.stem.embed(images, None)?;
        let last = self.spec.depth.saturating_sub(1);
        let hidden = (0..)
            .zip(&self.blocks)
            .try_fold(embedded, |state, (i, block)| {
                let wanted = if i == last { CLASS_TOKEN } else { Wanted::All };
                block.forward(&state, None, None, wanted)
            });
        self.finish(&Hidden::even(hidden?))
    }

    fn run(
        &self,
        index: usize,
        hidden: &Hidden,
        adapter: (&Tensor, Lora),
        wanted: Wanted,
    ) -> Result<Hidden> {
        let block = held_block(&self.blocks, index)?;
        let state = block.forward(&hidden.state, None, Some(adapter), wanted)?;
        Ok(hidden.with_state(state))
    }
}

impl Model for Vit {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn backend(&self) -> &Backend {
        &self.backend
    }

    fn embed(&self, inputs: &Inputs, adapter: Option<(&Tensor, Lora)>) -> Result<Hidden> {
        Ok(Hidden::even(self.stem.embed(inputs.pixels()?, adapter)?))
    }

    fn block(&self, index: usize, hidden: &Hidden, adapter: &Tensor, lora: Lora) -> Result<Hidden> {
        self.run(index, hidden, (adapter, lora), Wanted::All)
    }

    fn last_block(&self, hidden: &Hidden, adapter: &Tensor, lora: Lora) -> Result<Hidden> {
        let last = self.spec.depth.saturating_sub(1);
        self.run(last, hidden, (adapter, lora), CLASS_TOKEN)
    }

    fn finish(&self, hidden: &Hidden) -> Result<Tensor> {
        self.norm
            .forward(&hidden.state.narrow(1, 0, 1)?.squeeze(1)?)
    }
}

fn block_weights(config: &VitConfig, weights: &VitWeights, index: usize) -> Result<BlockWeights> {
    let (path, spec) = (block_path(index), config.spec());
    let linears = spec.block.iter().map(|linear| {
        weights
            .0
            .linear(&format!("{path}.{}", linear.path.checkpoint))
    });
    let linears = linears.collect::<Result<Vec<_>>>()?;
    let Ok([query, key, value, output, up, down]) = <[_; 6]>::try_from(linears) else {
        bail!("a block of a vision transformer has six linears")
    };
    let [attention_scale, mlp_scale] =
        SCALED.map(|(_, scale)| weights.0.find(&format!("{path}.{scale}")));
    let norm = |name| weights.norm(&format!("{path}.{name}"), config.layer_norm_eps);
    let head_width = config.hidden_size / config.num_attention_heads;
    Ok(BlockWeights {
        order: NormOrder::Before,
        attention_norm: norm("layernorm_before")?,
        attention: AttentionWeights {
            heads: config.num_attention_heads,
            head_width,
            scale: f64::from(1.0 / (head_width as f32).sqrt()),
            rotary: None,
            query_norm: None,
            key_norm: None,
            mask: Mask::None,
            qkv: vec![query, key, value],
            output,
        },
        attention_out_norm: None,
        attention_scale: attention_scale?,
        mlp_norm: norm("layernorm_after")?,
        mlp: MlpWeights {
            gate: None,
            up,
            down,
            activation: Activation::Gelu,
        },
        mlp_out_norm: None,
        mlp_scale: mlp_scale?,
    })
}
