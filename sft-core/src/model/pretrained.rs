//! A pre-trained model, whatever kind it is.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Result as TensorResult, Tensor};
use sft_opt::Transformer;

use super::{Backend, Model, Tokenizer};
use crate::adapter::{Adapters, Head, Lora, ModelSpec};
use crate::data::ImageInput;
use crate::{Digest, Error, Result};

/// How texts are made what a model takes.
#[derive(Clone, Copy, Debug)]
pub struct TextInput<'a> {
    /// From texts to token ids.
    pub tokenizer: &'a Tokenizer,
    /// Tokens of the model's vocabulary, V.
    pub vocabulary: usize,
    /// The most tokens of a sample.
    pub most: usize,
    /// Whether of a longer one the last tokens are kept, in place of the first.
    pub keep_last: bool,
}

impl TextInput<'_> {
    /// Checks the ids that the tokenizer gives.
    ///
    /// # Errors
    /// An id beyond the vocabulary: the tokenizer is not the model's.
    pub fn check(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            Some(id) => {
                let vocabulary = self.vocabulary;
                let reason = format!("must be for {vocabulary} tokens, it gives the id {id}");
                Err(Error::argument("tokenizer", reason))
            }
            None => Ok(()),
        }
    }
}

/// A pre-trained model as its files describe it.
pub trait Pretrained: Send + Sync {
    /// Its sizes, and the layers of it that may take adapters.
    fn spec(&self) -> ModelSpec;

    /// The head, where the file has one and it reads what this one does.
    fn head(&self) -> Option<&Head>;

    /// The images that the model wants, and how they are made such; none of a model of texts.
    fn image_input(&self) -> Option<&ImageInput> {
        None
    }

    /// How texts are made what the model takes; none of a model of images.
    fn text_input(&self) -> Option<TextInput<'_>> {
        None
    }

    /// A head for as many classes as there are words, which begins with what a language model says
    /// these by.
    ///
    /// # Errors
    /// A model that is no language model, or a word without tokens.
    fn head_of_words(&self, words: &[String]) -> Result<Head> {
        let _ = words;
        let reason = "must be left out: the model says no words";
        Err(Error::argument("class_words", reason))
    }

    /// Weight and bias of the layer before the head, where the model has one.
    ///
    /// # Errors
    /// A file that it cannot be read from any more.
    fn pooler(&self) -> TensorResult<Option<[Tensor; 2]>> {
        let Some(path) = self.spec().pooler else {
            return Ok(None);
        };
        let part = |part: &str| self.weight(&format!("{}.{part}", path.checkpoint));
        Ok(Some([part("weight")?, part("bias")?]))
    }

    /// Puts another in its place, that of a folder of adapters.
    fn take_pooler(&mut self, pooler: [Tensor; 2]) {
        let _ = pooler;
    }

    /// Takes over how images are made what the model takes: what is saved tells it.
    fn take_image_input(&mut self, input: &ImageInput) {
        let _ = input;
    }

    /// The same sizes for the cost model, with adapters of `rank`, a head of `classes` and samples of
    /// so many tokens.
    fn transformer(&self, classes: usize, rank: usize, tokens: usize) -> Transformer;

    /// Name in the checkpoint and shape of every parameter but the head's.
    fn parameters(&self) -> Vec<(String, Vec<usize>)>;

    /// The frozen head of a language model `[V, D]` where it is not among the parameters.
    ///
    /// # Errors
    /// A file that it cannot be read from any more.
    fn language_head(&self) -> TensorResult<Option<Tensor>> {
        Ok(None)
    }

    /// A parameter as f32.
    ///
    /// # Errors
    /// A file that it cannot be read from any more, or a name that the model does not have.
    fn weight(&self, name: &str) -> TensorResult<Tensor>;

    /// The frozen model where it runs.
    ///
    /// # Errors
    /// Weights that cannot be read, or a device that has no room for them.
    fn model(&self, backend: Backend) -> TensorResult<Box<dyn Model>>;

    /// The same with other weights, those of [`Self::parameters`] by their names; variables stay
    /// variables.
    ///
    /// # Errors
    /// The first tensor that is missing or misshapen, or a device without room.
    fn model_of(
        &self,
        weights: &HashMap<String, Tensor>,
        backend: Backend,
    ) -> Result<Box<dyn Model>>;

    /// Adds what tells models of the same weights apart to a digest.
    fn digest_sizes(&self, digest: &mut Digest);

    /// Writes what a device of a model that is split needs, the embedding and the first `blocks` blocks, as a
    /// Hugging Face folder whose `config.json` says how many blocks these are; it is opened like any
    /// other.
    ///
    /// # Errors
    /// A model that no `config.json` describes, or a folder that cannot be written.
    fn save_half(&self, folder: &Path, blocks: usize) -> Result<()>;

    /// Writes the tuned model as one model, for whoever knows no adapters: `W + s B A` for every
    /// adapted weight, and everything else, as a Hugging Face folder.
    ///
    /// With `lora` the adapters are LoRA's; without it they are the weights themselves, as
    /// [`Scheme::FlFull`](crate::run::Scheme::FlFull) leaves them. Each file appears whole or not at all.
    ///
    /// # Errors
    /// A model that is not written so, adapters that do not fit the model, or a folder that cannot be
    /// written.
    fn save_merged(&self, folder: &Path, lora: Option<Lora>, adapters: &Adapters) -> Result<()>;

    /// Whether [`Self::save_merged`] writes this model.
    ///
    /// # Errors
    /// It does not, for this reason.
    fn check_merged(&self) -> Result<(), String> {
        Ok(())
    }
}

/// The first parameter, by name, that has a value which is not finite.
///
/// # Errors
/// A file that weights cannot be read from any more.
pub(crate) fn not_finite(model: &dyn Pretrained) -> Result<Option<String>> {
    let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
    for (name, _) in model.parameters() {
        let values = model.weight(&name)?.flatten_all()?.to_vec1::<f32>()?;
        if !finite(&values) {
            return Ok(Some(name));
        }
    }
    if let Some(head) = model.language_head()? {
        let values = head.flatten_all()?.to_vec1::<f32>()?;
        if !finite(&values) {
            return Ok(Some("the language model's head".into()));
        }
    }
    let head = model.head().into_iter();
    let mut head = head.flat_map(|head| [&head.weight, &head.bias]);
    Ok((!head.all(|values| finite(values))).then(|| model.spec().head.checkpoint))
}

/// Adds sizes, weights and input to a digest, which is the same for the same model in another
/// file.
///
/// # Errors
/// A file that weights cannot be read from any more.
pub fn digest(model: &dyn Pretrained, digest: &mut Digest) -> Result<()> {
    model.digest_sizes(digest);
    for (name, _) in model.parameters() {
        digest.bytes(name.as_bytes());
        digest.tensor(&model.weight(&name)?)?;
    }
    if let Some(head) = model.language_head()? {
        digest.tensor(&head)?;
    }
    for vector in model
        .head()
        .into_iter()
        .flat_map(|head| [&head.weight, &head.bias])
    {
        digest.floats(vector);
    }
    Ok(())
}
