//! The whole model with every weight trained.

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};

use super::local::Whole;
use crate::split::{Step, classify};
use crate::trainable::Trainable;
use crate::{Adapters, Error, Head, PlainVit, Pretrained, Result, Rule, VitWeights};

/// The weights of a model as the vectors of what is trained, with a head.
pub(super) fn start(base: &Pretrained, head: Head) -> Result<Adapters> {
    let blocks = base.weights.vectors(&base.config)?;
    Ok(Adapters { blocks, head })
}

/// The model's weights, from their vectors.
pub(super) fn weights(base: &Pretrained, vectors: &[Vec<f32>]) -> Result<VitWeights> {
    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu);
    named(base, vectors, tensor)
}

/// A model and a head in candle's own operations, which differentiate in every weight.
pub(super) struct FullModel {
    vit: PlainVit,
    trainable: Trainable,
}

impl FullModel {
    pub(super) fn new(
        base: &Pretrained,
        start: &Adapters,
        rule: Rule,
        device: &Device,
    ) -> Result<Self> {
        let mut vars = Vec::with_capacity(start.blocks.len() + 2);
        let weights = named(base, &start.blocks, |values, shape| {
            let var = Var::from_slice(values, shape, device)?;
            vars.push(var.clone());
            Ok(var.into_inner())
        })?;
        vars.extend(start.head.vars(device)?);
        Ok(Self {
            vit: PlainVit::new(&base.config, &weights)?,
            trainable: Trainable::of(vars, rule)?,
        })
    }
}

impl Whole for FullModel {
    fn step(&mut self, inputs: &Tensor, labels: &[u32], step: Step) -> Result<f32> {
        let [.., weight, bias] = self.trainable.vars() else {
            unreachable!("a full model is made with a head")
        };
        let logits = classify(&self.vit.forward(inputs)?, weight, bias)?;
        let labels = Tensor::new(labels, logits.device())?;
        let loss = candle_nn::loss::cross_entropy(&logits, &labels)?;
        self.trainable.step(loss.backward()?, step.learning_rate)?;
        Ok(loss.to_scalar()?)
    }

    fn adapters(&self) -> Result<Adapters> {
        Ok(Adapters::from_vectors(self.trainable.values()?))
    }
}

fn named(
    base: &Pretrained,
    vectors: &[Vec<f32>],
    mut tensor: impl FnMut(&[f32], &[usize]) -> candle_core::Result<Tensor>,
) -> Result<VitWeights> {
    let mut tensors = HashMap::with_capacity(vectors.len());
    for ((name, shape), values) in base.config.parameters().into_iter().zip(vectors) {
        tensors.insert(name, tensor(values, &shape)?);
    }
    VitWeights::new(&base.config, &tensors).map_err(|reason| Error::argument("weights", reason))
}
