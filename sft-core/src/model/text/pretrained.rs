//! Reading pre-trained text models: a folder of Hugging Face's files, or a GGUF file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Result as TensorResult, Tensor};
use serde_json::{Map, Value};
use sft_opt::Transformer;

use super::read::{Translated, from_gguf, read_config, scale_angles};
use super::save::{save_half, save_merged};
use super::tensors::{add_pooler, as_checkpoint, take_head};
use super::{Pooling, TextConfig, TextFamily, TextModel, TextWeights, Tokenizer};
use crate::adapter::{Adapters, Head, Lora, ModelSpec};
use crate::model::checkpoint::{Checkpoint, Gguf, Weight, open_shards};
use crate::model::half::{BLOCKS, sent_blocks};
use crate::model::{Backend, Model, Pretrained, TextInput};
use crate::{Digest, Error, Result};

const CONFIG: &str = "config.json";
/// What a `config.json` of a vision transformer says that it is.
const VIT_FAMILIES: [&str; 2] = ["vit", "dinov2"];
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A pre-trained text model as its files describe it.
#[derive(Clone, Debug)]
pub struct PretrainedText {
    /// The model's sizes and form.
    pub config: TextConfig,
    /// Every parameter but the head's; they are read when a model is made of them, and are not kept
    /// here.
    pub weights: TextWeights,
    /// The head of a classifier of sequences, where the files have one.
    pub head: Option<Head>,
    /// From texts to token ids, where the files say how.
    pub tokenizer: Option<Tokenizer>,
    /// What a head reads; what the family is made for, where nothing else is chosen.
    pub pooling: Pooling,
    /// The model's `config.json`, or what a GGUF file says instead.
    pub(super) json: Map<String, Value>,
    /// Whether a GGUF file has divisors of the angles, which `json` does not tell.
    scaled_angles: bool,
}

impl PretrainedText {
    /// Whether `path` is a text model, by what its files say: a GGUF file, or `config.json` of one
    /// of the families in the folder or beside the file.
    pub fn is_one(path: &Path) -> bool {
        let gguf = |path: &Path| {
            path.extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
        };
        if gguf(path) || Gguf::is_one(path) {
            return true;
        }
        let folder = if path.is_dir() {
            Some(path)
        } else {
            path.parent()
        };
        let json = folder.and_then(|folder| read_json(&folder.join(CONFIG)).ok());
        let kind = json.as_ref().and_then(|json| json.get("model_type"));
        match kind.and_then(Value::as_str) {
            Some(kind) => !VIT_FAMILIES.contains(&kind),
            // timm's configuration has an architecture.
            None => path.is_dir() && json.is_some_and(|json| !json.contains_key("architecture")),
        }
    }

    /// Reads a folder with `config.json` and `model.safetensors` (or several such files with
    /// `model.safetensors.index.json`) and, where it is there, `tokenizer.json`; or a file among
    /// these; or a GGUF file, quantized or not.
    ///
    /// # Errors
    /// A file that cannot be read or is not whole, a configuration that asks for what is not done,
    /// or weights that are missing, misshapen or without a place; the message names file and tensor
    /// or setting.
    pub fn open(path: &Path) -> Result<Self> {
        if Gguf::is_one(path) {
            return Self::from_gguf(path).map_err(|reason| Error::file(path, reason));
        }
        if path
            .extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("gguf"))
        {
            return Err(Error::file(
                path,
                "not a GGUF file: it does not begin with GGUF",
            ));
        }
        let (folder, weights) = files(path)?;
        let config = folder.join(CONFIG);
        let json = read_json(&config)?;
        let found = read_config(&json).map_err(|reason| Error::file(&config, reason))?;
        let tensors = if weights.extension().is_some_and(|end| end == "json") {
            open_shards(&weights)?
        } else {
            let file =
                Checkpoint::open(&weights).map_err(|reason| Error::file(&weights, reason))?;
            file.weights()
        };
        let tensors = as_checkpoint(found.family, tensors);
        let tokenizer = Tokenizer::open(&folder, &json)?;
        let model = tensors.and_then(|tensors| Self::new(found, json, tensors));
        let model = model.map_err(|reason| Error::file(&weights, reason))?;
        model
            .check_classes()
            .map_err(|reason| Error::file(&config, reason))?;
        Ok(Self { tokenizer, ..model })
    }

    /// The same from the contents of the files of a folder.
    ///
    /// # Errors
    /// What is wrong with the contents, in one line.
    pub fn from_bytes(safetensors: &[u8], config: &str, tokenizer: &str) -> Result<Self, String> {
        let json: Map<_, _> = serde_json::from_str(config).map_err(|e| format!("{CONFIG}: {e}"))?;
        let found = read_config(&json)?;
        let tensors = Checkpoint::from_bytes(safetensors)?.weights();
        let tensors = as_checkpoint(found.family, tensors)?;
        let tokenizer = Some(Tokenizer::from_json(tokenizer, &json)?);
        let model = Self::new(found, json, tensors)?;
        model.check_classes()?;
        Ok(Self { tokenizer, ..model })
    }

    /// The same whose head reads what `pooling` says.
    ///
    /// # Errors
    /// The first token of a decoder, which sees no other.
    pub fn with_pooling(self, pooling: Pooling) -> Result<Self> {
        if self.config.family.is_decoder() && pooling == Pooling::First {
            let reason =
                "must be last or mean: the first token of a decoder sees no other, got first";
            return Err(Error::argument("pooling", reason));
        }
        Ok(Self { pooling, ..self })
    }

    fn from_gguf(path: &Path) -> Result<Self, String> {
        let file = Gguf::open(path)?;
        let tokenizer = Tokenizer::from_gguf(&file.settings)?;
        let Translated {
            mut config,
            json,
            mut weights,
        } = from_gguf(file)?;
        let scaled_angles = scale_angles(&mut config, &mut weights)?;
        let model = Self::new(config, json, weights)?;
        Ok(Self {
            tokenizer: Some(tokenizer),
            scaled_angles,
            ..model
        })
    }

    fn new(
        config: TextConfig,
        json: Map<String, Value>,
        mut tensors: HashMap<String, Weight>,
    ) -> Result<Self, String> {
        let has_head = add_pooler(&config, &mut tensors).map_err(|e| e.to_string())?;
        let sent = json.get(BLOCKS);
        let blocks = sent_blocks(sent, config.depth)?;
        let mut weights = TextWeights::take(&config, &mut tensors, blocks)?;
        if sent.is_some() {
            weights = TextWeights(weights.0.mapped());
        }
        let head = has_head.then(|| take_head(&config, &mut tensors));
        let head = head.transpose()?.flatten();
        let names = config.family.names();
        let leftover = tensors.keys().filter(|name| !names.is_unused(name)).min();
        if let Some(name) = leftover {
            return Err(format!("tensor {name} has no place in this architecture"));
        }
        Ok(Self {
            pooling: Pooling::of(config.family),
            config,
            weights,
            head,
            tokenizer: None,
            json,
            scaled_angles: false,
        })
    }

    /// Whether a `config.json` can say all that the model is.
    fn check_named(&self) -> Result<(), String> {
        if self.scaled_angles {
            return Err("no config.json says the rope_freqs.weight of the GGUF file".into());
        }
        Ok(())
    }

    /// The classes that the configuration names must be those of the head.
    fn check_classes(&self) -> Result<(), String> {
        let labels = self
            .json
            .get("id2label")
            .and_then(Value::as_object)
            .map(Map::len);
        match (labels, &self.head) {
            (Some(named), Some(head)) if named != head.classes => {
                let classes = head.classes;
                Err(format!(
                    "id2label names {named} classes, the head has {classes}"
                ))
            }
            _ => Ok(()),
        }
    }
}

impl Pretrained for PretrainedText {
    fn spec(&self) -> ModelSpec {
        self.config.spec_with(self.pooling)
    }

    fn head(&self) -> Option<&Head> {
        let own = |_: &&Head| self.pooling == Pooling::of(self.config.family);
        self.head.as_ref().filter(own)
    }

    fn text_input(&self) -> Option<TextInput<'_>> {
        let tokenizer = self.tokenizer.as_ref();
        tokenizer.map(|tokenizer| TextInput {
            tokenizer,
            vocabulary: self.config.vocabulary,
            most: self.config.tokens,
            keep_last: self.pooling == Pooling::Last,
        })
    }

    fn head_of_words(&self, words: &[String]) -> Result<Head> {
        let refused = |reason: String| Error::argument("class_words", reason);
        let rows = self.weights.language_head(&self.config)?;
        let (Some(rows), Some(tokenizer)) = (rows, &self.tokenizer) else {
            return Err(refused("must be left out: the model says no words".into()));
        };
        let mut head = Head {
            classes: words.len(),
            weight: Vec::with_capacity(words.len() * self.config.width),
            bias: Vec::new(),
            adapter: Vec::new(),
        };
        let mut firsts = Vec::with_capacity(words.len());
        for word in words {
            let first = first_token(tokenizer, word)?;
            let first = first.filter(|&id| (id as usize) < self.config.vocabulary);
            let first = first.ok_or_else(|| refused(format!("must be words, got {word:?}")))?;
            if let Some(same) = firsts.iter().position(|&other| other == first) {
                let same = &words[same];
                let reason = format!("must begin otherwise each, got {same:?} and {word:?}");
                return Err(refused(reason));
            }
            firsts.push(first);
            let row = rows.get(first as usize)?;
            head.weight.extend(row.to_vec1::<f32>()?);
        }
        Ok(head)
    }

    fn transformer(&self, classes: usize, rank: usize, tokens: usize) -> Transformer {
        self.config.transformer(classes, rank, tokens)
    }

    fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let mut parameters = self.config.parameters();
        if self.spec().pooler.is_none() {
            let unused = self.config.pooler_parameters();
            parameters.retain(|parameter| !unused.contains(parameter));
        }
        parameters.retain(|(name, _)| self.weights.0.holds(name));
        parameters
    }

    fn language_head(&self) -> TensorResult<Option<Tensor>> {
        if self.config.tied_head {
            return Ok(None);
        }
        self.weights.language_head(&self.config)
    }

    fn weight(&self, name: &str) -> TensorResult<Tensor> {
        self.weights.0.get(name)
    }

    fn model(&self, backend: Backend) -> TensorResult<Box<dyn Model>> {
        let model = TextModel::new(&self.config, &self.weights, self.pooling, backend);
        Ok(Box::new(model?))
    }

    fn model_of(
        &self,
        weights: &HashMap<String, Tensor>,
        backend: Backend,
    ) -> Result<Box<dyn Model>> {
        let mut weights = weights.clone();
        // A pooler that the pooling goes by is none of the parameters.
        for (name, _) in self.config.pooler_parameters() {
            if !weights.contains_key(&name) && self.spec().pooler.is_none() {
                weights.insert(name.clone(), self.weights.0.get(&name)?);
            }
        }
        let weights = TextWeights::new(&self.config, &weights);
        let weights = weights.map_err(|reason| Error::argument("weights", reason))?;
        let model = TextModel::new(&self.config, &weights, self.pooling, backend);
        Ok(Box::new(model?))
    }

    fn take_pooler(&mut self, pooler: [Tensor; 2]) {
        let names = self.config.pooler_parameters().into_iter();
        for ((name, _), tensor) in names.zip(pooler) {
            self.weights.0.replace(&name, tensor);
        }
    }

    fn digest_sizes(&self, digest: &mut Digest) {
        digest.bytes(format!("{:?} {:?}", self.config, self.pooling).as_bytes());
    }

    fn save_half(&self, folder: &Path, blocks: usize) -> Result<()> {
        let refused = |reason: String| Error::argument("model", format!("is not sent: {reason}"));
        self.check_named().map_err(refused)?;
        if matches!(self.config.family, TextFamily::Gemma2 | TextFamily::Gemma3)
            && !self.config.norm.plus_one
        {
            let reason = "the norms of a GGUF file of Gemma are not those of a folder, bit for bit";
            return Err(refused(reason.into()));
        }
        save_half(folder, self, blocks)
    }

    fn save_merged(&self, folder: &Path, lora: Option<Lora>, adapters: &Adapters) -> Result<()> {
        let refused =
            |reason: String| Error::argument("model", format!("is not written: {reason}"));
        self.check_merged().map_err(refused)?;
        save_merged(folder, self, lora, adapters)
    }

    fn check_merged(&self) -> Result<(), String> {
        let (ours, theirs) = (self.pooling, Pooling::of(self.config.family));
        if ours != theirs {
            return Err(format!(
                "Transformers' classifiers of this family have pooling {0}, got {1}; give pooling {0}",
                theirs.name(),
                ours.name()
            ));
        }
        self.check_named()
    }
}

/// The first token of a word behind a space that is not the space alone.
fn first_token(tokenizer: &Tokenizer, word: &str) -> Result<Option<u32>> {
    for id in tokenizer.encode(&format!(" {word}"), false)? {
        if !tokenizer.decode(&[id])?.trim().is_empty() {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// The folder of a model and the file with its tensors or their index.
fn files(path: &Path) -> Result<(PathBuf, PathBuf)> {
    if !path.is_dir() {
        let folder = path.parent().unwrap_or(Path::new(""));
        if path.file_name().is_some_and(|name| name == CONFIG) {
            return files(folder);
        }
        return Ok((folder.into(), path.into()));
    }
    let candidates = [WEIGHTS, INDEX].map(|name| path.join(name));
    let found = candidates.into_iter().find(|file| file.exists());
    let missing = || Error::file(path, format!("has neither {WEIGHTS} nor {INDEX}"));
    Ok((path.into(), found.ok_or_else(missing)?))
}

/// A table in a file.
pub(super) fn read_json(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::file(path, e))
}
