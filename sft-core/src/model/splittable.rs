//! What a splittable model is.

use candle_core::{Device, Result, Tensor, bail};

use crate::adapter::{Lora, ModelSpec};
use crate::data::Inputs;
use crate::layers::Backend;

/// What passes from block to block, and across the cut.
#[derive(Clone, Debug)]
pub struct Hidden {
    /// The hidden state `[B, S, D]`.
    pub state: Tensor,
    /// Tokens of each sample, of which the state holds S, the largest; none where all have S.
    pub lengths: Option<Vec<u32>>,
}

impl Hidden {
    /// Samples of one length.
    pub fn even(state: Tensor) -> Self {
        Self {
            state,
            lengths: None,
        }
    }

    /// The same samples with another state.
    #[must_use]
    pub fn with_state(&self, state: Tensor) -> Self {
        let lengths = self.lengths.clone();
        Self { state, lengths }
    }
}

/// A model that reads a text a few tokens at a time, and keeps what the next ones need of those before.
pub trait Reader {
    /// The features `[D]` of the last of the next tokens.
    ///
    /// # Errors
    /// No tokens, ids beyond the vocabulary, or more in all than the reader is for.
    fn read(&mut self, ids: &[u32]) -> Result<Tensor>;

    /// Begins with another text.
    fn forget(&mut self);
}

/// A frozen transformer that can be cut between any two of its blocks.
///
/// The device holds the embedding and blocks `0..l`, the server blocks `l..L`
/// and the head. What crosses the cut is the hidden state up and its gradient down. The weights are
/// shared by all devices and never change; adapters and head are arguments.
pub trait Model: Send + Sync {
    /// Its sizes, and the layers of it that may take adapters.
    fn spec(&self) -> &ModelSpec;

    /// Who computes its layers, and the head's.
    fn backend(&self) -> &Backend;

    /// Where its tensors are.
    fn device(&self) -> &Device {
        self.backend().device()
    }

    /// The hidden state before block 0, adapted by the flat vector of the layers before the blocks
    /// where `lora` has any among its targets.
    ///
    /// Differentiable in `adapter`.
    ///
    /// # Errors
    /// Inputs of another kind or shape than the model's, or an adapter of the wrong length.
    fn embed(&self, inputs: &Inputs, adapter: Option<(&Tensor, Lora)>) -> Result<Hidden>;

    /// The hidden state `[B, S, D]` after block `index`, adapted by one block's flat vector.
    ///
    /// Differentiable in the state and `adapter`.
    ///
    /// # Errors
    /// A hidden state or an adapter of the wrong shape.
    fn block(&self, index: usize, hidden: &Hidden, adapter: &Tensor, lora: Lora) -> Result<Hidden>;

    /// The hidden state after the last block, possibly of those tokens alone that [`Self::finish`] needs.
    ///
    /// Differentiable in the state and `adapter`.
    ///
    /// # Errors
    /// As [`Self::block`].
    fn last_block(&self, hidden: &Hidden, adapter: &Tensor, lora: Lora) -> Result<Hidden> {
        self.block(self.spec().depth.saturating_sub(1), hidden, adapter, lora)
    }

    /// The features `[B, D]` that the head reads, from what the last block gives.
    ///
    /// Differentiable in the state.
    ///
    /// # Errors
    /// A hidden state of the wrong shape.
    fn finish(&self, hidden: &Hidden) -> Result<Tensor>;

    /// The features `[T, D]` of all real tokens, one sample after the other, that the head of a language
    /// model reads, from the last hidden state.
    ///
    /// Differentiable in the state.
    ///
    /// # Errors
    /// A model without such features, or a hidden state of the wrong shape.
    fn finish_tokens(&self, hidden: &Hidden) -> Result<Tensor> {
        let _ = hidden;
        bail!("the model has no features of tokens")
    }

    /// The frozen head of a language model, `[V, D]`; none of another model.
    ///
    /// # Errors
    /// A file that it cannot be read from any more.
    fn language_head(&self) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// The model with a flat vector of adapters for each block, to read texts of at most `most` tokens a few
    /// at a time.
    ///
    /// # Errors
    /// A model that is not read so, or adapters that do not fit it.
    fn reader<'a>(
        &'a self,
        adapters: &'a [Vec<f32>],
        lora: Lora,
        most: usize,
    ) -> Result<Box<dyn Reader + 'a>> {
        let _ = (adapters, lora, most);
        bail!("the model does not read token by token")
    }
}
