//! The whole model with every weight trained.

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};

use super::whole::Unsplit;
use crate::adapter::{Adapters, Head, NamedShape, head_shapes};
use crate::data::{Inputs, Labels};
use crate::model::{PlainVit, Pretrained, VitWeights};
use crate::optim::OptimizerConfig;
use crate::optim::Trainable;
use crate::split::Step;
use crate::task::{cross_entropy, linear};
use crate::{Error, Result};

/// The weights of a model as the vectors of what is trained, with a head.
pub(super) fn start(base: &Pretrained, head: Head) -> Result<Adapters> {
    Ok(Adapters {
        embedding: Vec::new(),
        blocks: base.weights.vectors(&base.config)?,
        head,
    })
}

/// The names and shapes of what is trained, in the order of [`Adapters::vectors`].
pub(super) fn layout(base: &Pretrained, head: &Head) -> Vec<NamedShape> {
    let parameters = base.config.parameters().into_iter();
    let parameters = parameters.map(|(name, shape)| NamedShape { name, shape });
    parameters
        .chain(head_shapes(&base.config.spec(), head))
        .collect()
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
        config: OptimizerConfig,
        device: &Device,
    ) -> Result<Self> {
        let mut vars = Vec::with_capacity(start.blocks.len() + 2);
        let weights = named(base, &start.blocks, |values, shape| {
            let var = Var::from_slice(values, shape, device)?;
            vars.push(var.clone());
            Ok(var.into_inner())
        })?;
        let (head, width) = (&start.head, base.config.hidden_size);
        vars.push(Var::from_slice(
            &head.weight,
            (head.classes(), width),
            device,
        )?);
        vars.push(Var::from_slice(&head.bias, head.classes(), device)?);
        Ok(Self {
            vit: PlainVit::new(&base.config, &weights)?,
            trainable: Trainable::from_vars(vars, config)?,
        })
    }
}

impl Unsplit for FullModel {
    fn step(&mut self, inputs: &Inputs, labels: &Labels, step: Step) -> Result<f32> {
        let [.., weight, bias] = self.trainable.tensors() else {
            unreachable!("a full model is made with a head")
        };
        let logits = linear(&self.vit.forward(inputs.pixels()?)?, weight, bias)?;
        let loss = cross_entropy(&logits, labels)?;
        self.trainable.step(loss.backward()?, step.learning_rate)?;
        Ok(loss.to_scalar()?)
    }

    fn adapters(&self) -> Result<Adapters> {
        let mut blocks = self.trainable.values()?;
        let bias = blocks.pop().unwrap_or_default();
        let weight = blocks.pop().unwrap_or_default();
        let adapter = Vec::new();
        Ok(Adapters {
            embedding: Vec::new(),
            blocks,
            head: Head {
                weight,
                bias,
                adapter,
            },
        })
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
