//! The whole model with every weight trained.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};

use super::whole::Unsplit;
use crate::adapter::{Adapters, Head, Lora, NamedShape, Targets, head_shapes};
use crate::data::{Inputs, Labels};
use crate::model::{Backend, Model, Pretrained};
use crate::optim::OptimizerConfig;
use crate::optim::Trainable;
use crate::split::{Step, forward};
use crate::task::TaskHead;
use crate::{Error, Result};

/// The weights of a model as the vectors of what is trained, with a head.
pub(super) fn start(base: &dyn Pretrained, head: Head) -> Result<Adapters> {
    let parameters = base.parameters().into_iter();
    let values = |(name, _): (String, _)| base.weight(&name)?.flatten_all()?.to_vec1();
    Ok(Adapters {
        embedding: Vec::new(),
        blocks: parameters.map(values).collect::<Result<_, _>>()?,
        head,
    })
}

/// The names and shapes of what is trained, in the order of [`Adapters::vectors`].
pub(super) fn layout(base: &dyn Pretrained, head: &Head) -> Vec<NamedShape> {
    let parameters = base.parameters().into_iter();
    let parameters = parameters.map(|(name, shape)| NamedShape { name, shape });
    parameters.chain(head_shapes(&base.spec(), head)).collect()
}

/// Checks that vectors are the weights of a model.
pub(super) fn check(base: &dyn Pretrained, vectors: &[Vec<f32>]) -> Result<()> {
    let (parameters, got) = (base.parameters(), vectors.len());
    let want = parameters.len();
    Error::require(got == want, "weights", got, &format!("{want} parameters"))?;
    for ((name, shape), values) in parameters.iter().zip(vectors) {
        let (want, got) = (shape.iter().product::<usize>(), values.len());
        let accepted = format!("{want} values for {name}");
        Error::require(got == want, "weights", got, &accepted)?;
    }
    Ok(())
}

/// The frozen model with the weights that training left, on the backend of another.
pub(super) fn model(
    base: &dyn Pretrained,
    vectors: &[Vec<f32>],
    backend: &Backend,
) -> Result<Box<dyn Model>> {
    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu);
    base.model_of(&named(base, vectors, tensor)?, backend.clone())
}

/// No adapters, for a model without.
pub(super) fn without_adapters() -> Result<Lora> {
    Ok(Lora::new(1, 1.0)?.with_targets(Targets::NONE))
}

/// A model and a head in candle's own operations, which differentiate in every weight.
pub(super) struct FullModel {
    model: Box<dyn Model>,
    task: TaskHead,
    head: Head,
    /// An empty vector in place of every adapter.
    empty: Vec<Tensor>,
    lora: Lora,
    /// The head's begin behind so many parameters.
    parameters: usize,
    trainable: Trainable,
}

impl FullModel {
    pub(super) fn new(
        base: &dyn Pretrained,
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
        let head = start.head.trained().into_iter();
        for values in head.filter(|values| !values.is_empty()) {
            vars.push(Var::from_slice(values, values.len(), device)?);
        }
        let model = base.model_of(&weights, Backend::Candle(device.clone()))?;
        let empty = Tensor::zeros(0, DType::F32, device)?;
        Ok(Self {
            task: forward::task_head(model.as_ref(), &start.head)?,
            head: start.head.clone(),
            empty: vec![empty; 1 + model.spec().depth],
            lora: without_adapters()?,
            parameters: start.blocks.len(),
            trainable: Trainable::from_vars(vars, config)?,
            model,
        })
    }
}

impl Unsplit for FullModel {
    fn step(&mut self, inputs: &Inputs, labels: &Labels, step: Step) -> Result<f32> {
        let head = &self.trainable.tensors()[self.parameters..];
        // A head without bias has an empty one, which is no variable.
        let mut vectors = [self.empty.as_slice(), head].concat();
        vectors.resize(
            self.empty.len() + self.task.trained(),
            self.empty[0].clone(),
        );
        let model = self.model.as_ref();
        let features = forward::features(model, self.lora, &vectors, &self.task, inputs)?;
        let head = &vectors[self.empty.len()..];
        let loss = self.task.loss(&features, head, self.lora, labels)?;
        self.trainable.step(loss.backward()?, step.learning_rate)?;
        Ok(loss.to_scalar()?)
    }

    fn adapters(&self) -> Result<Adapters> {
        let mut blocks = self.trainable.values()?;
        let head = blocks.split_off(self.parameters);
        Ok(Adapters {
            embedding: Vec::new(),
            blocks,
            head: self.head.with_trained(head),
        })
    }
}

/// Tensors made of vectors, by the names of the parameters that these are.
fn named(
    base: &dyn Pretrained,
    vectors: &[Vec<f32>],
    mut tensor: impl FnMut(&[f32], &[usize]) -> candle_core::Result<Tensor>,
) -> Result<HashMap<String, Tensor>> {
    let mut tensors = HashMap::with_capacity(vectors.len());
    for ((name, shape), values) in base.parameters().into_iter().zip(vectors) {
        tensors.insert(name, tensor(values, &shape)?);
    }
    Ok(tensors)
}
