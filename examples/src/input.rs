//! Model and data as the flags name them.

use std::path::Path;

use sft_core::{Error, Head, Images, Pretrained, Result, cifar100};

use crate::digits;

const MODEL: &[u8] = include_bytes!("../data/digits_vit/model.safetensors");
const CONFIG: &str = include_str!("../data/digits_vit/config.json");

/// The model of `path`, or the embedded one.
///
/// # Errors
/// A file that does not hold a vision transformer.
pub fn model(path: Option<&Path>, heads: Option<usize>) -> Result<Pretrained> {
    match path {
        Some(path) => Pretrained::open(path, heads),
        None => Pretrained::from_bytes(MODEL, Some(CONFIG), None, heads)
            .map_err(|reason| Error::file("the embedded model", reason)),
    }
}

/// Training and test images that `data` names, as the model wants them.
///
/// # Errors
/// An unknown data set, or files that do not hold it.
pub fn data(data: &str, model: &Pretrained) -> Result<(Images, Images)> {
    match data.split_once(':') {
        None if data == "digits" => digits::load(None, &model.input),
        Some(("digits", path)) => digits::load(Some(Path::new(path)), &model.input),
        Some(("cifar100", dir)) => cifar100(Path::new(dir), &model.input),
        _ => {
            let reason = format!("must be digits, digits:FILE or cifar100:DIR, got {data}");
            Err(Error::argument("data", reason))
        }
    }
}

/// The model's head where it has the right classes, else a new one.
pub fn head(model: &Pretrained, classes: usize, seed: u64) -> Head {
    match &model.head {
        Some(head) if head.classes() == classes => head.clone(),
        _ => Head::new(classes, model.config.hidden_size, seed),
    }
}
