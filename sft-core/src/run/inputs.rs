//! Model and data of a run, opened.

use std::path::Path;

use candle_core::Device;

use super::texts::{TEXTS, open_texts, refuse_settings_of_texts};
use super::{BackendKind, RunConfig};
use crate::adapter::load_pooler;
use crate::data::{Data, DataLayout, Examples, ImageInput};
use crate::model::{Backend, Model, Pretrained, PretrainedText, PretrainedVit};
use crate::{Error, Result};

/// What a run trains, and on what.
pub struct Inputs {
    /// The weights as they were read.
    pub pretrained: Box<dyn Pretrained>,
    /// The frozen model where it runs.
    pub model: Box<dyn Model>,
    /// The training data of all devices.
    pub train: Box<dyn Data + Send>,
    /// The data that accuracy is measured on.
    pub test: Box<dyn Data + Send>,
}

impl Inputs {
    /// Opens what the configuration names.
    ///
    /// # Errors
    /// A file that is not there or not what it should be.
    pub fn open(config: &RunConfig) -> Result<Self> {
        let pretrained = open_model(config)?;
        let examples = open_data(config, pretrained.as_ref())?;
        Self::new(config, pretrained, examples)
    }

    /// Takes a model and data that the caller has, and brings the model to where the
    /// configuration says.
    ///
    /// How the data makes images a model's input becomes that of the weights: what is saved tells it.
    /// So does the layer before the head of the adapters to start from, where their folder has one.
    ///
    /// The fields [`RunConfig::model`] and [`RunConfig::data`] are not looked at, but tell one
    /// run from another: the caller sets them to what names its own.
    ///
    /// # Errors
    /// A backend that this build or this machine does not have, or that has no checkpointing, or a
    /// field that is for texts with a model of images.
    pub fn new(
        config: &RunConfig,
        mut pretrained: Box<dyn Pretrained>,
        (train, test): Examples,
    ) -> Result<Self> {
        if pretrained.text_input().is_none() {
            refuse_settings_of_texts(config)?;
        }
        if let Some(input) = test.input() {
            pretrained.take_image_input(input);
        }
        if let Some(folder) = &config.adapters {
            let pooler = load_pooler(folder, &pretrained.spec()).map_err(of("adapters"))?;
            if let Some(pooler) = pooler {
                pretrained.take_pooler(pooler);
            }
        }
        Ok(Self {
            model: on_backend(config, pretrained.as_ref())?,
            pretrained,
            train,
            test,
        })
    }
}

/// The model that the configuration names.
///
/// # Errors
/// None is named, or its files do not hold a model that is known.
pub fn open_model(config: &RunConfig) -> Result<Box<dyn Pretrained>> {
    let missing = || Error::argument("model", "must be given, got none");
    let path = config.model.as_deref().ok_or_else(missing)?;
    if !PretrainedText::is_one(path) {
        let vit = PretrainedVit::open(path, config.heads);
        return Ok(Box::new(vit.map_err(of("model"))?));
    }
    let text = PretrainedText::open(path).map_err(of("model"))?;
    Ok(Box::new(text_model(config, text)?))
}

/// A text model as the configuration wants it.
///
/// # Errors
/// A setting of other models, or a pooling that the model does not have.
pub fn text_model(config: &RunConfig, text: PretrainedText) -> Result<PretrainedText> {
    if let Some(heads) = config.heads {
        let reason = format!("must be left out for a text model, got {heads}");
        return Err(Error::argument("heads", reason));
    }
    let pooling = config.pooling.unwrap_or(text.pooling);
    text.with_pooling(pooling)
}

/// The training and test samples that the configuration names, as a model wants them.
///
/// # Errors
/// None or an unknown kind is named, or its files do not hold it.
pub fn open_data(config: &RunConfig, model: &dyn Pretrained) -> Result<Examples> {
    let data = config.data.as_deref().unwrap_or("none");
    let (layout, dir) = data.split_once(':').unwrap_or((data, ""));
    if TEXTS.contains(&layout) {
        return open_texts(config, (layout, Path::new(dir)), model);
    }
    let unknown = |_| {
        let accepted =
            "cifar100:DIR, tiny-imagenet:DIR, folder:DIR, classify:FILE, text:PATH or chat:FILE";
        Error::argument("data", format!("must be {accepted}, got {data}"))
    };
    let layout: DataLayout = layout.parse().map_err(unknown)?;
    let input = image_input(model)?;
    let examples = layout.open(Path::new(dir), input, config.augmentation());
    examples.map_err(of("data"))
}

/// How images are made what a model takes.
///
/// # Errors
/// A model of texts.
pub fn image_input(model: &dyn Pretrained) -> Result<&ImageInput> {
    let reason = "must be texts for a model of texts, got images";
    (model.image_input()).ok_or_else(|| Error::argument("data", reason))
}

/// The block engine on a processor, candle's operations elsewhere.
fn on_backend(config: &RunConfig, pretrained: &dyn Pretrained) -> Result<Box<dyn Model>> {
    let device = match config.backend {
        BackendKind::Cpu => None,
        _ if config.gradient_checkpointing => {
            let reason = "needs backend cpu: only the block engine has it";
            return Err(Error::argument("gradient_checkpointing", reason));
        }
        BackendKind::Cuda => Some(Device::new_cuda(0)),
        BackendKind::Metal => Some(Device::new_metal(0)),
    };
    let reason = |e| format!("cannot be used by this build on this machine: {e}");
    let device = device.transpose();
    let device = device.map_err(|e| Error::argument("backend", reason(e)))?;
    let engine = Backend::Engine {
        checkpointing: config.gradient_checkpointing,
    };
    let backend = device.map_or(engine, Backend::Candle);
    Ok(pretrained.model(backend)?)
}

/// Names the field that a file was given by.
pub(super) fn of(field: &str) -> impl Fn(Error) -> Error + '_ {
    move |error| match error {
        Error::File { path, reason } => Error::File {
            path: format!("{field} {path}"),
            reason,
        },
        other => other,
    }
}
