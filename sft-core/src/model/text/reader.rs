//! A text model that reads token by token.

use candle_core::{Result, Tensor, bail};

use super::TextModel;
use crate::adapter::Lora;
use crate::layers;
use crate::model::{Hidden, Model, Reader};

/// A model with its adapters, and what it keeps of a text.
pub(super) struct TextReader<'a> {
    model: &'a TextModel,
    blocks: Vec<layers::Reader<'a>>,
    ids: Vec<u32>,
    most: usize,
}

impl<'a> TextReader<'a> {
    pub(super) fn new(
        model: &'a TextModel,
        adapters: &'a [Vec<f32>],
        lora: Lora,
        most: usize,
    ) -> Result<Self> {
        let (depth, got) = (model.blocks.len(), adapters.len());
        if got != depth {
            bail!("the model has {depth} blocks, got adapters for {got}")
        }
        let blocks = model.blocks.iter().zip(adapters).enumerate();
        let blocks =
            blocks.map(|(i, (block, adapter))| block.reader(adapter, lora.in_block(i), most));
        Ok(Self {
            model,
            blocks: blocks.collect::<Result<_>>()?,
            ids: Vec::new(),
            most,
        })
    }
}

impl Reader for TextReader<'_> {
    fn read(&mut self, ids: &[u32]) -> Result<Tensor> {
        let (before, all) = (self.ids.len(), self.ids.len() + ids.len());
        if ids.is_empty() || all > self.most {
            bail!(
                "a reader of {} tokens got {} after {before}",
                self.most,
                ids.len()
            )
        }
        // Vectors of tokens depend on where they stand, so all are made and the new ones taken.
        let tokens = [self.ids.as_slice(), ids].concat();
        let tokens = Tensor::from_vec(tokens, (1, all), self.model.device())?;
        let embedded = self.model.embedding.embed(&tokens, &[all as u32])?;
        let rows = embedded.squeeze(0)?.narrow(0, before, ids.len())?;
        self.ids.extend(ids);
        let state = (self.blocks.iter_mut()).try_fold(rows, |rows, block| block.read(&rows))?;
        let last = state.narrow(0, ids.len() - 1, 1)?.unsqueeze(0)?;
        self.model
            .finish_tokens(&Hidden::even(last.contiguous()?))?
            .squeeze(0)
    }

    fn forget(&mut self) {
        self.ids.clear();
        self.blocks.iter_mut().for_each(layers::Reader::forget);
    }
}
