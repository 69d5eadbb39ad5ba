//! What a splittable model is.

use candle_core::{Device, Result, Tensor};

use crate::{LinearSpec, Lora, PatchSpec};

/// A frozen transformer that can be cut between any two of its blocks.
///
/// The device holds the embedding and blocks `0..l`, the server blocks `l..L`
/// and the head. What crosses the cut is the hidden state `[B, S, D]` up and
/// its gradient, of the same shape, down. The weights are shared by all devices
/// and never change; adapters and head are arguments.
pub trait Model: Send + Sync {
    /// Number of blocks, L.
    fn depth(&self) -> usize;

    /// Features of a hidden state, D.
    fn width(&self) -> usize;

    /// The linear layers of a block, in the order of the adapter vector: q, k, v, o, fc1, fc2.
    fn linears(&self) -> &[LinearSpec];

    /// The layer that turns patches of the input into tokens.
    fn patch(&self) -> &PatchSpec;

    /// The path of a block's parameters in the checkpoint.
    fn block_path(&self, index: usize) -> String;

    /// The path of the head's parameters in the checkpoint.
    fn head_path(&self) -> &str;

    /// Where the model's tensors live.
    fn device(&self) -> &Device;

    /// The hidden state `[B, S, D]` before block 0, adapted by the patch embedding's flat vector
    /// where `lora` has it among its targets.
    ///
    /// Differentiable in `adapter`.
    ///
    /// # Errors
    /// An input whose shape is not the model's, or an adapter of the wrong length.
    fn embed(&self, input: &Tensor, adapter: Option<(&Tensor, Lora)>) -> Result<Tensor>;

    /// The hidden state after block `index`, adapted by one block's flat vector: `[B, S, D]`, after
    /// the last block possibly only the first tokens of each sample, where [`Self::features`] needs
    /// no more.
    ///
    /// Differentiable in `hidden` and `adapter`.
    ///
    /// # Errors
    /// A hidden state or an adapter of the wrong shape.
    fn block(&self, index: usize, hidden: &Tensor, adapter: &Tensor, lora: Lora) -> Result<Tensor>;

    /// The features `[B, D]` that the head classifies, from the last hidden state.
    ///
    /// Differentiable in `hidden`.
    ///
    /// # Errors
    /// A hidden state of the wrong shape.
    fn features(&self, hidden: &Tensor) -> Result<Tensor>;
}
