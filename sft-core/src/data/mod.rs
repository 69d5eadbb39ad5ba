//! Labelled examples and their distribution over devices.

mod cifar;
mod images;
mod partition;

use candle_core::Tensor;

pub use cifar::{CIFAR100_CLASSES, cifar100};
pub use images::{ImageInput, Images};
pub use partition::Partition;

/// Labelled examples that a model can embed.
pub trait Data: Sync {
    /// Number of examples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of classes, K; every label is below it.
    fn classes(&self) -> usize;

    /// The class of an example.
    fn label(&self, index: usize) -> u32;

    /// The model's input for these examples, stacked along the first dimension.
    ///
    /// # Errors
    /// A tensor operation failed.
    fn inputs(&self, indices: &[usize]) -> candle_core::Result<Tensor>;
}
