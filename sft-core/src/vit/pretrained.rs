//! Reading pre-trained vision transformers: safetensors with Hugging Face's or timm's names.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde::Deserialize;

use super::weights::take;
use super::{VitConfig, VitWeights, names};
use crate::{Error, Head, ImageInput, Result};

/// A pre-trained vision transformer as its files describe it.
#[derive(Clone, Debug)]
pub struct Pretrained {
    /// The model's sizes.
    pub config: VitConfig,
    /// Every parameter but the head's.
    pub weights: VitWeights,
    /// The head, where the file has one.
    pub head: Option<Head>,
    /// The images that the model wants.
    pub input: ImageInput,
}

/// Per-channel mean and standard deviation, as `preprocessor_config.json` has them.
#[derive(Deserialize)]
struct Preprocessor {
    image_mean: Vec<f32>,
    image_std: Vec<f32>,
}

impl Pretrained {
    /// Reads `path` and, where they exist beside it, `config.json` and `preprocessor_config.json`.
    ///
    /// Without `config.json` the sizes come from the tensors' shapes with `heads`
    /// (default: width / 64) and a layer-norm epsilon of 1e-12; without the
    /// preprocessor's file mean and standard deviation are 0.5.
    ///
    /// # Errors
    /// A file that cannot be read, is not safetensors, or does not hold a vision
    /// transformer; the message names file and tensor.
    pub fn open(path: &Path, heads: Option<usize>) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
        let beside = |name| match std::fs::read_to_string(path.with_file_name(name)) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::file(path.with_file_name(name), e)),
        };
        let (config, preprocessor) = (beside("config.json")?, beside("preprocessor_config.json")?);
        Self::from_bytes(&bytes, config.as_deref(), preprocessor.as_deref(), heads)
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
        let tensors = candle_core::safetensors::load_buffer(safetensors, &Device::Cpu)
            .map_err(|e| format!("not a complete safetensors file: {e}"))?;
        let mut tensors = names::as_checkpoint(tensors)?;
        let mut config = match config {
            Some(text) => parse_config(text, &tensors)?,
            None => infer_config(&tensors)?,
        };
        if let Some(heads) = heads {
            config.num_attention_heads = heads;
        }
        config.validate()?;
        let weights = VitWeights::new(&config, &tensors)?;
        let head = take_head(&mut tensors, config.hidden_size)?;
        let input = image_input(&config, preprocessor)?;
        Ok(Self {
            config,
            weights,
            head,
            input,
        })
    }
}

fn image_input(config: &VitConfig, preprocessor: Option<&str>) -> Result<ImageInput, String> {
    let channels = config.num_channels;
    let half = || Preprocessor {
        image_mean: vec![0.5; channels],
        image_std: vec![0.5; channels],
    };
    let Preprocessor {
        image_mean: mean,
        image_std: std,
    } = match preprocessor {
        Some(text) => {
            serde_json::from_str(text).map_err(|e| format!("preprocessor_config.json: {e}"))?
        }
        None => half(),
    };
    if mean.len() != channels || std.len() != channels {
        let (mean, std) = (mean.len(), std.len());
        return Err(format!(
            "image_mean and image_std need {channels} values, got {mean} and {std}"
        ));
    }
    if let Some(bad) = std.iter().find(|&&s| !(s.is_finite() && s > 0.0)) {
        return Err(format!("image_std must be positive, got {bad}"));
    }
    Ok(ImageInput {
        side: config.image_size,
        mean,
        std,
    })
}

fn parse_config(text: &str, tensors: &HashMap<String, Tensor>) -> Result<VitConfig, String> {
    let json: serde_json::Value =
        serde_json::from_str(text).map_err(|e| format!("config.json: {e}"))?;
    if json.get("architecture").is_some() {
        return names::timm_config(&json, infer_config(tensors)?);
    }
    match json.get("model_type").and_then(serde_json::Value::as_str) {
        Some("vit") => serde_json::from_value(json).map_err(|e| format!("config.json: {e}")),
        Some(other) => Err(format!("config.json: model_type must be vit, got {other}")),
        None => Err("config.json: no model_type, expected vit".into()),
    }
}

/// The sizes that the tensors' shapes tell, with width / 64 heads.
fn infer_config(tensors: &HashMap<String, Tensor>) -> Result<VitConfig, String> {
    let dims = |name: &str, rank: usize| match tensors.get(name) {
        Some(tensor) if tensor.rank() == rank => Ok(tensor.dims().to_vec()),
        Some(tensor) => Err(format!(
            "tensor {name} has shape {:?}, expected {rank} dimensions",
            tensor.dims()
        )),
        None => Err(format!(
            "missing tensor {name}: neither a Hugging Face nor a timm ViT"
        )),
    };
    let patch = dims("vit.embeddings.patch_embeddings.projection.weight", 4)?;
    let tokens = dims("vit.embeddings.position_embeddings", 3)?[1];
    let side = (tokens.saturating_sub(1) as f64).sqrt().round() as usize;
    let mlp = dims("vit.encoder.layer.0.intermediate.dense.weight", 2)?[0];
    let has_layer = |i: &usize| tensors.keys().any(|k| k.starts_with(&layer_prefix(*i)));
    let layers = (0..tensors.len()).take_while(has_layer).count();
    Ok(VitConfig {
        hidden_size: patch[0],
        num_hidden_layers: layers,
        num_attention_heads: default_heads(patch[0])?,
        intermediate_size: mlp,
        image_size: side * patch[2],
        patch_size: patch[2],
        num_channels: patch[1],
        qkv_bias: tensors.contains_key("vit.encoder.layer.0.attention.attention.query.bias"),
        ..VitConfig::default()
    })
}

fn layer_prefix(index: usize) -> String {
    format!("{}.", super::block_path(index))
}

/// One head for every 64 features, at least one.
fn default_heads(width: usize) -> Result<usize, String> {
    if width > 64 && !width.is_multiple_of(64) {
        return Err(format!(
            "width {width} is no multiple of 64: give the number of heads"
        ));
    }
    Ok((width / 64).max(1))
}

fn take_head(tensors: &mut HashMap<String, Tensor>, width: usize) -> Result<Option<Head>, String> {
    let Some(weight) = tensors.get("classifier.weight") else {
        return Ok(None);
    };
    let classes = weight.dims().first().copied().unwrap_or(0);
    let weight = take(tensors, "classifier.weight", &[classes, width])?;
    let bias = take(tensors, "classifier.bias", &[classes])?;
    let values = |t: Tensor| t.flatten_all()?.to_vec1::<f32>();
    let both = (|| candle_core::Result::Ok((values(weight)?, values(bias)?)))();
    let (weight, bias) = both.map_err(|e| e.to_string())?;
    Ok(Some(Head { weight, bias }))
}
