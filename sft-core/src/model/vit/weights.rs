//! The parameters of a vision transformer by name.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use super::VitConfig;

/// Every parameter of a [`VitConfig`] but the head's, present and of the right shape.
#[derive(Clone, Debug)]
pub struct VitWeights(HashMap<String, Tensor>);

impl VitWeights {
    /// Takes what `config` lists out of `tensors`, as f32; others are left out.
    ///
    /// # Errors
    /// The first tensor that is missing, misshapen or not a float, named.
    pub fn new(config: &VitConfig, tensors: &HashMap<String, Tensor>) -> Result<Self, String> {
        let take = |(name, shape): (String, Vec<usize>)| {
            let tensor = take(tensors, &name, &shape)?;
            Ok((name, tensor))
        };
        config
            .parameters()
            .into_iter()
            .map(take)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The same parameters on another device.
    ///
    /// # Errors
    /// A device that has no room for them.
    pub fn to_device(&self, device: &Device) -> candle_core::Result<Self> {
        let moved =
            |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_device(device)?));
        self.0
            .iter()
            .map(moved)
            .collect::<candle_core::Result<_>>()
            .map(Self)
    }

    /// The values of every parameter, in the order of the configuration's list.
    pub(crate) fn vectors(&self, config: &VitConfig) -> candle_core::Result<Vec<Vec<f32>>> {
        let values = |(name, _): (String, _)| self.get(&name).flatten_all()?.to_vec1();
        config.parameters().into_iter().map(values).collect()
    }

    /// A parameter that the configuration lists.
    pub(super) fn get(&self, name: &str) -> &Tensor {
        &self.0[name]
    }

    /// A parameter that the configuration may leave out.
    pub(super) fn find(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }
}

/// The tensor of this name as f32; variables stay variables.
pub(super) fn take(
    tensors: &HashMap<String, Tensor>,
    name: &str,
    shape: &[usize],
) -> Result<Tensor, String> {
    let tensor = tensors
        .get(name)
        .ok_or_else(|| format!("missing tensor {name}"))?;
    if tensor.dims() != shape {
        return Err(format!(
            "tensor {name} has shape {:?}, expected {shape:?}",
            tensor.dims()
        ));
    }
    if !tensor.dtype().is_float() {
        return Err(format!(
            "tensor {name} is {:?}, expected floats",
            tensor.dtype()
        ));
    }
    tensor
        .to_dtype(DType::F32)
        .map_err(|e| format!("tensor {name}: {e}"))
}
