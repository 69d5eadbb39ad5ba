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

    /// The hidden state after block `index`, adapted by one block's flat vector: `[B, S, D]`, after
    /// the last block possibly only the tokens of each sample that [`Self::finish`] needs.
    ///
    /// Differentiable in the state and `adapter`.
    ///
    /// # Errors
    /// A hidden state or an adapter of the wrong shape.
    fn block(&self, index: usize, hidden: &Hidden, adapter: &Tensor, lora: Lora) -> Result<Hidden>;

    /// The features `[B, D]` that the head reads, from the last hidden state.
    ///
    /// Differentiable in the state.
    ///
    /// # Errors
    /// A hidden state of the wrong shape.
    fn finish(&self, hidden: &Hidden) -> Result<Tensor>;

    /// The features `[T, D]` of all real tokens after the final norm, one sample after the other,
    /// without padding: what a language model's head reads.
    ///
    /// Differentiable in the state.
    ///
    /// # Errors
    /// A model without tokens, or a hidden state of the wrong shape.
    fn finish_tokens(&self, hidden: &Hidden) -> Result<Tensor> {
        let _ = hidden;
        bail!("the model has no features of tokens")
    }
}
