//! Samples and their distribution over devices.

/// A mini-batch as models and tasks take it.
mod batch;
/// Images in memory and in files.
mod images;
/// How samples are spread over the devices.
mod partition;
/// Texts as token ids.
mod text;

pub use batch::{Batch, Inputs, Labels, SampleId};
pub use images::{
    Augment, CIFAR100_CLASSES, DataLayout, Examples, Filter, Fit, Found, ImageFiles, ImageInput,
    Images, Resize, cifar100, image_folder, tiny_imagenet,
};
pub use partition::Partition;
pub use text::{
    Encode, EncodePlaces, LanguageData, LanguageInput, PLACE, Render, Sequence, Sequences, Texts,
    Told, Wanted, classification, language,
};

use crate::{Digest, Result};

/// A beginning of a text, and how it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The token ids of the beginning.
    pub ids: Vec<u32>,
    /// Those that follow.
    pub completion: Vec<u32>,
}

/// Samples that a model can embed, each with a class or with next tokens.
pub trait Data: Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of classes, K; every class is below it. 0 where next tokens are to be told.
    fn classes(&self) -> usize;

    /// The class of a sample.
    fn label(&self, index: usize) -> u32;

    /// Number of groups that a partition tells samples apart by: the classes, unless there are none.
    fn groups(&self) -> usize {
        self.classes()
    }

    /// The group of a sample.
    fn group(&self, index: usize) -> u32 {
        self.label(index)
    }

    /// How images are made what a model takes; nothing where they come so.
    fn input(&self) -> Option<&ImageInput> {
        None
    }

    /// Tokens of a sample, where samples have their own numbers of them.
    fn tokens(&self, index: usize) -> Option<usize> {
        let _ = index;
        None
    }

    /// A beginning of a sample whose next tokens are to be told, and what follows; none of other samples.
    fn prompt(&self, index: usize) -> Option<Prompt> {
        let _ = index;
        None
    }

    /// What a person should hear of what was read: how much, what was left out; nothing where there
    /// is nothing to tell.
    fn told(&self) -> Option<String> {
        None
    }

    /// These samples as they are.
    ///
    /// # Errors
    /// A sample that cannot be read.
    fn batch(&self, indices: &[usize]) -> Result<Batch>;

    /// The same for training: changed at random where the data set says so. What becomes of a
    /// sample depends on `seed` and its index, not on the batch that it is in. The batch numbers a
    /// changed sample by the [view](Batch::with_views) that it became.
    ///
    /// # Errors
    /// A sample that cannot be read.
    fn training_batch(&self, indices: &[usize], seed: u64) -> Result<Batch> {
        let _ = seed;
        self.batch(indices)
    }

    /// Adds all that decides what comes out of this data set, every sample in its order and what
    /// becomes of it, to a digest that tells other contents from the same ones under other names.
    ///
    /// As it stands here, it goes through all batches.
    ///
    /// # Errors
    /// A sample that cannot be read.
    fn digest(&self, digest: &mut Digest) -> Result<()> {
        digest.number(self.classes() as u64);
        for index in 0..self.len() {
            digest.number(u64::from(self.label(index)));
            match self.batch(&[index])?.inputs {
                Inputs::Pixels(pixels) => digest.tensor(&pixels)?,
                Inputs::Tokens { ids, .. } => digest.tensor(&ids)?,
            }
        }
        Ok(())
    }
}

/// Tokens of a sample in the mean, where samples have their own numbers of them.
pub(crate) fn mean_tokens(data: &dyn Data) -> Option<usize> {
    let mut tokens = (0..data.len()).map(|i| data.tokens(i));
    let all = tokens.try_fold(0, |all, tokens| Some(all + tokens?))?;
    Some(all.div_ceil(data.len().max(1)))
}

/// The most tokens of a sample, by the same rule.
pub(crate) fn most_tokens(data: &dyn Data) -> Option<usize> {
    let mut tokens = (0..data.len()).map(|i| data.tokens(i));
    tokens.try_fold(0, |most, tokens| Some(most.max(tokens?)))
}
