//! Reading pre-trained vision transformers: safetensors with Hugging Face's or timm's names.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use candle_core::{Result as TensorResult, Tensor};
use serde_json::Value;
use sft_opt::Transformer;

use super::infer::{blocks, has_layer_scale, has_qkv_bias, infer_config};
use super::preprocessor::image_input;
use super::save::{save_half, save_merged};
use super::{Vit, VitConfig, VitWeights, names};
use crate::adapter::{Adapters, Head, Lora, ModelSpec};
use crate::data::ImageInput;
use crate::model::checkpoint::{Checkpoint, Weight, checked};
use crate::model::half::{BLOCKS, sent_blocks};
use crate::model::{Backend, Model, Pretrained};
use crate::{Digest, Error, Result};

/// A pre-trained vision transformer as its files describe it.
#[derive(Clone, Debug)]
pub struct PretrainedVit {
    /// The model's sizes.
    pub config: VitConfig,
    /// Every parameter but the head's; of a file they are read when a model is made of them, and are
    /// not kept here.
    pub weights: VitWeights,
    /// The head, where the file has one.
    pub head: Option<Head>,
    /// The images that the model wants, and how they are made such.
    pub input: ImageInput,
}

impl PretrainedVit {
    /// Reads `path`, or `model.safetensors` in the folder `path`, and, where they exist beside it, `config.json` and `preprocessor_config.json`.
    ///
    /// Without `config.json` the sizes come from the tensors' shapes with `heads` (default:
    /// width / 64, to a width of 1024) and a layer-norm epsilon of 1e-12, or timm's 1e-6 where the
    /// names are timm's; without the preprocessor's file images are resized, cut and normalised as
    /// a timm configuration says, else normalised with 0.5 and resized as the data set has it. Tensors that are no floats, a pooler and the token of masked
    /// patches are not read.
    ///
    /// # Errors
    /// A file that cannot be read, is not safetensors, does not hold a vision transformer, or holds
    /// weights that this one has no place for; the message names file and tensor.
    pub fn open(path: &Path, heads: Option<usize>) -> Result<Self> {
        let folder = path.is_dir().then(|| path.join("model.safetensors"));
        let path = folder.as_deref().unwrap_or(path);
        let file = Checkpoint::open(path).map_err(|reason| Error::file(path, reason))?;
        let beside = |name| match std::fs::read_to_string(path.with_file_name(name)) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::file(path.with_file_name(name), e)),
        };
        let (config, preprocessor) = (beside("config.json")?, beside("preprocessor_config.json")?);
        Self::new(file, config.as_deref(), preprocessor.as_deref(), heads)
            .map_err(|reason| Error::file(path, reason))
    }

    /// The same from the contents of the files.
    ///
    /// # Errors
    /// What is wrong with the contents, in one line.
    pub fn from_bytes(
        safetensors: &[u8],
        config: Option<&str>,
        preprocessor: Option<&str>,
        heads: Option<usize>,
    ) -> Result<Self, String> {
        Self::new(
            Checkpoint::from_bytes(safetensors)?,
            config,
            preprocessor,
            heads,
        )
    }

    /// A model that no file holds and that has learned nothing: matrices from N(0, 0.02^2), biases 0,
    /// no head; its images are normalised by mean and standard deviation 0.5.
    ///
    /// # Errors
    /// Sizes that do not fit together.
    pub fn untrained(config: VitConfig, seed: u64) -> Result<Self> {
        let refused = |reason| Error::argument("config", reason);
        config.validate().map_err(refused)?;
        Ok(Self {
            weights: VitWeights::untrained(&config, seed)?,
            head: None,
            input: image_input(config.image_size, config.num_channels, None, None)
                .map_err(refused)?,
            config,
        })
    }

    fn new(
        file: Checkpoint,
        config: Option<&str>,
        preprocessor: Option<&str>,
        heads: Option<usize>,
    ) -> Result<Self, String> {
        let tensors = file.weights();
        let timm = names::are_timm(tensors.iter().map(|(name, _)| name.as_str()));
        let tensors = names::as_checkpoint(tensors)?;
        let json = config.map(|text| parse("config.json", text)).transpose()?;
        let mut config = match &json {
            Some(json) => read_config(json, heads, &tensors)?,
            None => infer_config(&tensors, heads)?,
        };
        if json.is_none() && timm {
            config.layer_norm_eps = names::TIMM_EPS;
        }
        config.validate()?;
        check_sizes(&config, &tensors)?;
        let sent = json.as_ref().and_then(|json| json.get(BLOCKS));
        let blocks = sent_blocks(sent, config.num_hidden_layers)?;
        let mut weights = VitWeights::select(&config, &tensors, blocks)?;
        if sent.is_some() {
            weights = VitWeights(weights.0.mapped());
        }
        let head = take_head(&tensors, config.hidden_size)?;
        check_classes(json.as_ref(), head.as_ref())?;
        check_leftovers(&config, &tensors)?;
        let preprocessor = preprocessor.map(|text| parse("preprocessor_config.json", text));
        let preprocessor = preprocessor.transpose()?;
        let (side, channels) = (config.image_size, config.num_channels);
        let input = image_input(side, channels, json.as_ref(), preprocessor.as_ref())?;
        Ok(Self {
            config,
            weights,
            head,
            input,
        })
    }
}

impl Pretrained for PretrainedVit {
    fn spec(&self) -> ModelSpec {
        self.config.spec()
    }

    fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    fn image_input(&self) -> Option<&ImageInput> {
        Some(&self.input)
    }

    fn take_image_input(&mut self, input: &ImageInput) {
        self.input.clone_from(input);
    }

    fn transformer(&self, classes: usize, rank: usize, _: usize) -> Transformer {
        self.config.transformer(classes, rank)
    }

    fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let mut parameters = self.config.parameters();
        parameters.retain(|(name, _)| self.weights.0.holds(name));
        parameters
    }

    fn weight(&self, name: &str) -> TensorResult<Tensor> {
        self.weights.0.get(name)
    }

    fn model(&self, backend: Backend) -> TensorResult<Box<dyn Model>> {
        Ok(Box::new(Vit::new(&self.config, &self.weights, backend)?))
    }

    fn model_of(
        &self,
        weights: &HashMap<String, Tensor>,
        backend: Backend,
    ) -> Result<Box<dyn Model>> {
        let weights = VitWeights::new(&self.config, weights);
        let weights = weights.map_err(|reason| Error::argument("weights", reason))?;
        Ok(Box::new(Vit::new(&self.config, &weights, backend)?))
    }

    fn digest_sizes(&self, digest: &mut Digest) {
        digest.bytes(format!("{:?} {:?}", self.config, self.input).as_bytes());
    }

    fn save_half(&self, folder: &Path, blocks: usize) -> Result<()> {
        save_half(folder, self, blocks)
    }

    fn save_merged(&self, folder: &Path, lora: Option<Lora>, adapters: &Adapters) -> Result<()> {
        save_merged(folder, self, lora, adapters)
    }
}

fn parse(name: &str, text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|e| format!("{name}: {e}"))
}

fn read_config(
    json: &Value,
    heads: Option<usize>,
    tensors: &HashMap<String, Weight>,
) -> Result<VitConfig, String> {
    if json.get("architecture").is_some() {
        return names::timm_config(json, heads, tensors);
    }
    match json.get("model_type").and_then(Value::as_str) {
        Some(kind @ ("vit" | "dinov2")) => {
            let config = serde_path_to_error::deserialize::<_, VitConfig>(json);
            let mut config = config.map_err(|e| format!("config.json: {e}"))?;
            if kind == "dinov2" {
                let ratio = json.get("mlp_ratio").map_or(Some(4), Value::as_u64);
                let ratio = ratio.ok_or("config.json: mlp_ratio must be a whole number")?;
                config.intermediate_size = config.hidden_size.saturating_mul(ratio as usize);
                if json.get("layer_norm_eps").is_none() {
                    config.layer_norm_eps = 1e-6;
                }
            }
            config.num_attention_heads = heads.unwrap_or(config.num_attention_heads);
            config.layer_scale = has_layer_scale(tensors);
            Ok(config)
        }
        Some(other) => Err(format!(
            "config.json: model_type must be vit or dinov2, got {other}"
        )),
        None => Err("config.json: no model_type, expected vit or dinov2".into()),
    }
}

/// A configuration must not leave out what the file has.
fn check_sizes(config: &VitConfig, tensors: &HashMap<String, Weight>) -> Result<(), String> {
    let (named, found) = (config.num_hidden_layers, blocks(tensors));
    if named < found {
        return Err(format!(
            "config.json: num_hidden_layers is {named}, the file has {found} blocks"
        ));
    }
    if !config.qkv_bias && has_qkv_bias(tensors) {
        return Err("config.json: qkv_bias is false, the file has such biases".into());
    }
    Ok(())
}

/// Every weight must have a place in the model, or be known to have no part in its features.
fn check_leftovers(config: &VitConfig, tensors: &HashMap<String, Weight>) -> Result<(), String> {
    let parameters = config.parameters();
    let mut known: HashSet<_> = parameters.iter().map(|(name, _)| name.as_str()).collect();
    known.extend(["classifier.weight", "classifier.bias"]);
    known.extend(["vit.pooler.dense.weight", "vit.pooler.dense.bias"]);
    known.insert("vit.embeddings.mask_token");
    let unknown = tensors.iter().filter(|(name, weight)| {
        let (_, float) = weight.dtype();
        float && !known.contains(name.as_str())
    });
    match unknown.map(|(name, _)| name).min() {
        Some(name) => Err(format!("tensor {name} has no place in this architecture")),
        None => Ok(()),
    }
}

/// The classes that the configuration names must be those of the head.
fn check_classes(json: Option<&Value>, head: Option<&Head>) -> Result<(), String> {
    let (Some(json), Some(head)) = (json, head) else {
        return Ok(());
    };
    let labels = json
        .get("id2label")
        .and_then(Value::as_object)
        .map(|labels| labels.len() as u64);
    let number = |name| json.get(name).and_then(Value::as_u64);
    let named = labels
        .or_else(|| number("num_labels"))
        .or_else(|| number("num_classes"));
    match named {
        Some(named) if named != head.classes as u64 => {
            let classes = head.classes;
            Err(format!(
                "config.json names {named} classes, classifier.weight has {classes}"
            ))
        }
        _ => Ok(()),
    }
}

fn take_head(tensors: &HashMap<String, Weight>, width: usize) -> Result<Option<Head>, String> {
    let Some(weight) = tensors.get("classifier.weight") else {
        return Ok(None);
    };
    let classes = weight.dims().first().copied().unwrap_or(0);
    let weight = checked(tensors, "classifier.weight", &[classes, width])?;
    let bias = checked(tensors, "classifier.bias", &[classes])?;
    let values = |weight: &Weight| weight.load()?.flatten_all()?.to_vec1::<f32>();
    let both = (|| candle_core::Result::Ok((values(weight)?, values(bias)?)))();
    let (weight, bias) = both.map_err(|e| e.to_string())?;
    let adapter = Vec::new();
    Ok(Some(Head {
        classes,
        weight,
        bias,
        adapter,
    }))
}
