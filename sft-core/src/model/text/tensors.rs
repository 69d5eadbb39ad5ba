//! Tensors of files as a model with a head has them.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};

use super::TextConfig;
use super::names::TextFamily;
use super::weights::LANGUAGE_HEAD;
use crate::adapter::Head;
use crate::model::checkpoint::{Weight, checked};

/// Tensors by the names of models with a head; those of files without it leave out the model's.
pub(super) fn as_checkpoint(
    family: TextFamily,
    tensors: Vec<(String, Weight)>,
) -> std::result::Result<HashMap<String, Weight>, String> {
    let names = family.names();
    let prefix = format!("{}.", names.model);
    let bare = !tensors.iter().any(|(name, _)| name.starts_with(&prefix));
    let outside = |name: &str| name == LANGUAGE_HEAD || names.is_outside(name);
    let mut renamed = HashMap::with_capacity(tensors.len());
    for (stored, mut tensor) in tensors {
        let mut name = stored.clone();
        // What the first BERT calls the parameters of a norm.
        for (old, new) in [
            ("LayerNorm.gamma", "LayerNorm.weight"),
            ("LayerNorm.beta", "LayerNorm.bias"),
        ] {
            if let Some(path) = name.strip_suffix(old) {
                name = format!("{path}{new}");
            }
        }
        if bare && !outside(&name) {
            name.insert_str(0, &prefix);
        }
        if names.is_transposed(&name) && tensor.dims().len() == 2 {
            tensor = tensor.transposed();
        }
        if renamed.insert(name.clone(), tensor).is_some() {
            return Err(format!("tensor {stored} is a second {name}"));
        }
    }
    Ok(renamed)
}

/// Adds a layer before the head where the family has one and the files have none: the identity.
///
/// Whether a head can be in the files: behind such a layer only with it.
pub(super) fn add_pooler(
    config: &TextConfig,
    tensors: &mut HashMap<String, Weight>,
) -> Result<bool> {
    let parameters = config.pooler_parameters();
    let [(weight, _), (bias, _)] = parameters.as_slice() else {
        return Ok(true);
    };
    if tensors.contains_key(weight) || tensors.contains_key(bias) {
        return Ok(true);
    }
    let identity = Tensor::eye(config.width, DType::F32, &Device::Cpu)?;
    let zeros = Tensor::zeros(config.width, DType::F32, &Device::Cpu)?;
    tensors.insert(weight.clone(), identity.into());
    tensors.insert(bias.clone(), zeros.into());
    Ok(false)
}

/// The head of a classifier, where the files have one.
pub(super) fn take_head(
    config: &TextConfig,
    tensors: &mut HashMap<String, Weight>,
) -> std::result::Result<Option<Head>, String> {
    let path = config.family.names().head;
    let [weight, bias] = ["weight", "bias"].map(|part| format!("{path}.{part}"));
    let Some(classes) = tensors
        .get(&weight)
        .map(|weight| weight.dims().first().copied())
    else {
        return Ok(None);
    };
    let classes = classes.unwrap_or(0);
    let mut take = |name: &str, shape: &[usize]| {
        checked(tensors, name, shape)?;
        let values = tensors
            .remove(name)
            .map(|tensor| tensor.load()?.flatten_all()?.to_vec1());
        values
            .transpose()
            .map_err(|e| e.to_string())
            .map(Option::unwrap_or_default)
    };
    let weight = take(&weight, &[classes, config.width])?;
    let biased = config.spec().head_bias.then(|| take(&bias, &[classes]));
    Ok(Some(Head {
        classes,
        weight,
        bias: biased.transpose()?.unwrap_or_default(),
        adapter: Vec::new(),
    }))
}
