//! Model and data as the flags name them: what `sft-core` opens, and the embedded digits.

use std::path::Path;

use sft_core::data::Examples;
use sft_core::model::{Pretrained, PretrainedVit};
use sft_core::run::{Inputs, RunConfig, image_input, open_data, open_model};
use sft_core::{Error, Result};

use crate::digits;

const MODEL: &[u8] = include_bytes!("../data/digits_vit/model.safetensors");
const CONFIG: &str = include_str!("../data/digits_vit/config.json");

/// Model and data of a run.
///
/// # Errors
/// A file that is not there or not what it should be.
pub fn open(config: &RunConfig) -> Result<Inputs> {
    let pretrained: Box<dyn Pretrained> = match config.model {
        Some(_) => open_model(config)?,
        None => Box::new(embedded_model(config.heads)?),
    };
    let examples = data(config, pretrained.as_ref())?;
    Inputs::new(config, pretrained, examples)
}

/// The embedded model.
///
/// # Errors
/// A number of heads that does not divide its width.
pub fn embedded_model(heads: Option<usize>) -> Result<PretrainedVit> {
    PretrainedVit::from_bytes(MODEL, Some(CONFIG), None, heads)
        .map_err(|reason| Error::file("the embedded model", reason))
}

/// Training and test samples of a run, for a model.
///
/// # Errors
/// A file that is not there or not what it should be.
pub fn data(config: &RunConfig, model: &dyn Pretrained) -> Result<Examples> {
    let data = config.data.as_deref().unwrap_or("digits");
    let (kind, path) = data.split_once(':').unwrap_or((data, ""));
    match kind {
        "digits" => {
            let path = Some(Path::new(path)).filter(|path| !path.as_os_str().is_empty());
            let (train, test) = digits::load(path, image_input(model)?)?;
            let train = train.with_augmentation(config.augmentation());
            Ok((Box::new(train), Box::new(test)))
        }
        "cifar100" | "tiny-imagenet" | "folder" => open_data(config, model),
        _ => {
            let accepted = "digits, digits:FILE, cifar100:DIR, tiny-imagenet:DIR or folder:DIR";
            let reason = format!("must be {accepted}, got {data}");
            Err(Error::argument("data", reason))
        }
    }
}
