//! Text models as they are on people's disks: `LLaMA`, Mistral, Qwen, Gemma, GPT-2, BERT and kin.

/// Sizes and form.
mod config;
/// What the parts cost.
mod cost;
/// Vectors of tokens.
mod embedding;
/// The head of a language model.
mod language;
/// Names of parameters.
mod names;
/// The layer before the head.
mod pooler;
/// Which tokens features are made of.
mod pooling;
/// Models in files.
mod pretrained;
/// Configurations in files.
mod read;
/// Reading token by token.
mod reader;
/// Tuned models in files.
mod save;
/// Tensors of files by the names of models with a head.
mod tensors;
/// From texts to token ids.
mod tokenizer;
/// Parameters by name.
mod weights;

use candle_core::{Result, Tensor, bail};

pub use config::TextConfig;
pub use names::TextFamily;
pub use pooling::Pooling;
pub use pretrained::PretrainedText;
pub use tokenizer::{ChatTemplate, SpecialTokens, Tokenizer};
pub use weights::TextWeights;

use self::embedding::Embedding;
use self::language::LanguageHead;
use self::pooler::Pooler;
use self::pooling::real_rows;
use self::reader::TextReader;
use super::half::{held_block, held_blocks};
use super::splittable::{Hidden, Model, Reader};
use crate::adapter::{Lora, ModelSpec};
use crate::data::Inputs;
use crate::layers::{
    AttentionWeights, Backend, Block, BlockWeights, MlpWeights, Norm, NormWeights, Wanted,
};

/// A frozen text model, its layers run by a backend.
///
/// Cloning shares the weights.
#[derive(Clone, Debug)]
pub struct TextModel {
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: Option<Norm>,
    head: LanguageHead,
    pooling: Pooling,
    pooler: Option<Pooler>,
    spec: ModelSpec,
    backend: Backend,
}

impl TextModel {
    /// The model with these weights, whose head reads what `pooling` says.
    ///
    /// # Errors
    /// Weights that cannot be read, or a device that has no room for them.
    pub fn new(
        config: &TextConfig,
        weights: &TextWeights,
        pooling: Pooling,
        backend: Backend,
    ) -> Result<Self> {
        let names = config.family.names();
        let block = |i| Block::new(&block_weights(config, weights, i)?, &backend);
        let norm = names
            .final_norm
            .map(|path| weights.norm(config, &names.at(path)));
        let norm = norm.transpose()?.map(|norm| Norm::new(&norm, &backend));
        let spec = config.spec_with(pooling);
        let pooler = names.pooler.filter(|_| spec.pooler.is_some());
        let pooler = pooler.map(|pooler| Pooler::new(pooler, weights, &backend));
        Ok(Self {
            embedding: Embedding::new(config, weights, &backend)?,
            blocks: (0..held_blocks(&spec, |name| weights.0.holds(name)))
                .map(block)
                .collect::<Result<_>>()?,
            norm: norm.transpose()?,
            head: LanguageHead::new(config, weights),
            pooling,
            pooler: pooler.transpose()?,
            spec,
            backend,
        })
    }

    /// Memory of the frozen weights, bytes.
    pub fn bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(Block::bytes).sum();
        let pooler = self.pooler.as_ref().map_or(0, Pooler::bytes);
        self.embedding.bytes() + blocks + self.norm.as_ref().map_or(0, Norm::bytes) + pooler
    }

    /// The features `[B, D]` of token ids, without adapters.
    ///
    /// # Errors
    /// Images, or ids and lengths that do not fit the model.
    pub fn features(&self, inputs: &Inputs) -> Result<Tensor> {
        let wanted = self.pooling.wanted();
        self.finish(&self.hidden(inputs, wanted)?)
    }

    /// The features `[T, D]` of all real tokens, one sample after the other, without adapters.
    ///
    /// # Errors
    /// Images, ids and lengths that do not fit the model, or a model whose head reads the first token.
    pub fn token_features(&self, inputs: &Inputs) -> Result<Tensor> {
        self.finish_tokens(&self.hidden(inputs, Wanted::All)?)
    }

    /// What the last block gives, without adapters.
    fn hidden(&self, inputs: &Inputs, wanted: Wanted) -> Result<Hidden> {
        let embedded = self.embed(inputs, None)?;
        (0..self.blocks.len()).try_fold(embedded, |hidden, index| {
            let last = index + 1 == self.spec.depth;
            let wanted = if last { wanted } else { Wanted::All };
            self.run(index, &hidden, None, wanted)
        })
    }

    /// Rows `[T, D]` after the final norm, where there is one.
    fn normed(&self, rows: &Tensor) -> Result<Tensor> {
        match &self.norm {
            Some(norm) => norm.forward(rows),
            None => Ok(rows.clone()),
        }
    }

    fn run(
        &self,
        index: usize,
        hidden: &Hidden,
        adapter: Option<(&Tensor, Lora)>,
        wanted: Wanted,
    ) -> Result<Hidden> {
        let block = held_block(&self.blocks, index)?;
        let state = block.forward(&hidden.state, hidden.lengths.as_deref(), adapter, wanted)?;
        Ok(hidden.with_state(state))
    }
}

impl Model for TextModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn backend(&self) -> &Backend {
        &self.backend
    }

    fn embed(&self, inputs: &Inputs, adapter: Option<(&Tensor, Lora)>) -> Result<Hidden> {
        let Inputs::Tokens { ids, lengths } = inputs else {
            bail!("the model takes token ids, got images")
        };
        if let Some((vector, _)) = adapter.filter(|(vector, _)| vector.elem_count() > 0) {
            bail!(
                "no layer before the blocks takes an adapter, got {} values",
                vector.elem_count()
            )
        }
        Ok(Hidden {
            state: self.embedding.embed(ids, lengths)?,
            lengths: Some(lengths.clone()),
        })
    }

    fn block(&self, index: usize, hidden: &Hidden, adapter: &Tensor, lora: Lora) -> Result<Hidden> {
        self.run(index, hidden, Some((adapter, lora)), Wanted::All)
    }

    fn last_block(&self, hidden: &Hidden, adapter: &Tensor, lora: Lora) -> Result<Hidden> {
        let last = self.spec.depth.saturating_sub(1);
        self.run(last, hidden, Some((adapter, lora)), self.pooling.wanted())
    }

    fn finish(&self, hidden: &Hidden) -> Result<Tensor> {
        let rows = self.pooling.pool(hidden, |rows| self.normed(rows))?;
        match &self.pooler {
            Some(pooler) => pooler.forward(&rows),
            None => Ok(rows),
        }
    }

    fn finish_tokens(&self, hidden: &Hidden) -> Result<Tensor> {
        self.normed(&real_rows(hidden)?)
    }

    fn language_head(&self) -> Result<Option<Tensor>> {
        self.head.weight(self.embedding.tokens(), self.device())
    }

    fn reader<'a>(
        &'a self,
        adapters: &'a [Vec<f32>],
        lora: Lora,
        most: usize,
    ) -> Result<Box<dyn Reader + 'a>> {
        Ok(Box::new(TextReader::new(self, adapters, lora, most)?))
    }
}

fn block_weights(config: &TextConfig, weights: &TextWeights, index: usize) -> Result<BlockWeights> {
    let names = config.family.names();
    let at = |below: &str| names.in_block(index, below);
    let norm = |below: &str| weights.norm(config, &at(below));
    let [attention_norm, mlp_norm] = &names.norms;
    let out_norms = names.out_norms.as_ref();
    let [attention_out_norm, mlp_out_norm] =
        [0, 1].map(|i| out_norms.map(|norms| norm(norms[i])).transpose());
    Ok(BlockWeights {
        order: config.norm.order,
        attention_norm: norm(attention_norm)?,
        attention: attention_weights(config, weights, index)?,
        attention_out_norm: attention_out_norm?,
        attention_scale: None,
        mlp_norm: norm(mlp_norm)?,
        mlp: MlpWeights {
            gate: names
                .gate
                .map(|gate| weights.0.linear(&at(gate)))
                .transpose()?,
            up: weights.0.linear(&at(names.up))?,
            down: weights.0.linear(&at(names.down))?,
            activation: config.mlp.activation,
        },
        mlp_out_norm: mlp_out_norm?,
        mlp_scale: None,
    })
}

fn attention_weights(
    config: &TextConfig,
    weights: &TextWeights,
    index: usize,
) -> Result<AttentionWeights> {
    let (names, form) = (config.family.names(), &config.attention);
    let linear = |below: &str| weights.0.linear(&names.in_block(index, below));
    let qkv = names.qkv.paths().iter().map(|below| linear(below));
    let [query_norm, key_norm] = names
        .head_norms
        .map(|below| -> Result<Option<NormWeights>> {
            let norm = || weights.norm(config, &names.in_block(index, below));
            form.head_norms.then(norm).transpose()
        });
    let (mask, rotary) = &form.blocks[index];
    Ok(AttentionWeights {
        heads: config.heads,
        head_width: config.head_width,
        scale: form.scale,
        qkv: qkv.collect::<Result<_>>()?,
        output: linear(names.output)?,
        query_norm: query_norm?,
        key_norm: key_norm?,
        rotary: rotary.clone(),
        mask: *mask,
    })
}
