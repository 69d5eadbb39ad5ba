//! Labelled examples and their distribution over devices.

mod augment;
mod cifar;
mod files;
mod folders;
mod images;
mod layout;
mod partition;
mod pickle;

use candle_core::Tensor;

use crate::Result;

pub use augment::Augment;
pub use cifar::{CIFAR100_CLASSES, cifar100};
pub use files::ImageFiles;
pub use folders::{image_folder, tiny_imagenet};
pub use images::{ImageInput, Images};
pub use layout::{DataLayout, Examples};
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
    /// An example that cannot be read.
    fn inputs(&self, indices: &[usize]) -> Result<Tensor>;

    /// The same for training: changed at random where the data set says so. What becomes of an
    /// example depends on `seed` and its index, not on the batch that it is in.
    ///
    /// # Errors
    /// An example that cannot be read.
    fn training_inputs(&self, indices: &[usize], seed: u64) -> Result<Tensor> {
        let _ = seed;
        self.inputs(indices)
    }
}
