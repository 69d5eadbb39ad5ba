//! Model and data as the flags name them.

use std::path::Path;

use candle_core::Device;
use sft_core::adapter::Head;
use sft_core::data::{Augment, DataLayout, Examples};
use sft_core::model::{Backend, Model, Pretrained, Vit};
use sft_core::{Error, Result};

use crate::digits;
use crate::flags;

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

/// The model where it runs: in the block engine on a processor, in candle's operations elsewhere.
///
/// # Errors
/// A backend that this build or this machine does not have, or that has no checkpointing.
pub fn on_backend(
    model: &Pretrained,
    backend: flags::Backend,
    gradient_checkpointing: bool,
) -> Result<Box<dyn Model>> {
    let device = match backend {
        flags::Backend::Cpu => None,
        _ if gradient_checkpointing => {
            let reason = "needs --backend cpu: only the block engine has it";
            return Err(Error::argument("gradient_checkpointing", reason));
        }
        flags::Backend::Cuda => Some(Device::new_cuda(0)),
        flags::Backend::Metal => Some(Device::new_metal(0)),
    };
    let reason = |e| format!("cannot be used by this build on this machine: {e}");
    let device = device.transpose();
    let device = device.map_err(|e| Error::argument("backend", reason(e)))?;
    let engine = Backend::Engine {
        checkpointing: gradient_checkpointing,
    };
    let backend = device.map_or(engine, Backend::Candle);
    Ok(Box::new(Vit::new(&model.config, &model.weights, backend)?))
}

/// Training and test images that `data` names, as the model wants them; the training images
/// changed at random if `augment`.
///
/// # Errors
/// An unknown data set, or files that do not hold it.
pub fn data(data: &str, model: &Pretrained, augment: bool) -> Result<Examples> {
    let (name, path) = data.split_once(':').unwrap_or((data, ""));
    let (dir, input) = (Path::new(path), &model.input);
    let augment = augment.then(Augment::default);
    if name == "digits" {
        let path = Some(dir).filter(|dir| !dir.as_os_str().is_empty());
        let (train, test) = digits::load(path, input)?;
        return Ok((Box::new(train.with_augmentation(augment)), Box::new(test)));
    }
    let unknown = |_| {
        let accepted = "digits, digits:FILE, cifar100:DIR, tiny-imagenet:DIR or folder:DIR";
        Error::argument("data", format!("must be {accepted}, got {data}"))
    };
    let layout: DataLayout = name.parse().map_err(unknown)?;
    layout.open(dir, input, augment)
}

/// The model's head where it has the right classes, else a new one.
pub fn head(model: &Pretrained, classes: usize, seed: u64) -> Head {
    match &model.head {
        Some(head) if head.classes() == classes => head.clone(),
        _ => Head::new(classes, model.config.hidden_size, seed),
    }
}
