//! The device's half of a training step: embedding and the first blocks forward, and on from the
//! gradient of the activation at the cut; where the labels are on the device, the head between them.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use super::Step;
use super::forward::lower;
use super::head_half::HeadHalf;
use crate::adapter::{Head, Lora, check_blocks, check_embedding, device_vectors};
use crate::data::{Inputs, Labels};
use crate::layers::inject;
use crate::model::{Hidden, Model};
use crate::optim::{OptimizerConfig, Trainable};
use crate::{Error, Result};

/// The device's half: embedding and the first blocks, with their adapters, and the head where the
/// labels are on the device.
pub struct DeviceHalf<'m> {
    model: &'m dyn Model,
    lora: Lora,
    head: Option<HeadHalf>,
    trainable: Trainable,
}

/// What the head on a device makes of features.
pub struct HeadStep {
    /// Mean loss of the mini-batch.
    pub loss: f32,
    /// The gradient of the features.
    pub gradient: Tensor,
    /// Those of the head.
    grads: GradStore,
}

impl<'m> DeviceHalf<'m> {
    /// The half with the first `blocks.len()` blocks of `model`; `embedding` are the adapters before
    /// them, empty where none is a target, and `head` is there where the labels are.
    ///
    /// # Errors
    /// Adapters or a head that do not fit the model.
    pub fn new(
        model: &'m dyn Model,
        lora: Lora,
        embedding: &[f32],
        blocks: &[Vec<f32>],
        head: Option<&Head>,
        config: impl Into<OptimizerConfig>,
    ) -> Result<Self> {
        check_embedding(model.spec(), lora, embedding)?;
        check_blocks(model.spec(), lora, 0, blocks)?;
        let trained = head.into_iter().flat_map(Head::trained);
        let vectors = device_vectors(embedding, blocks).chain(trained);
        let trainable = Trainable::new(vectors, config.into(), model.device())?;
        Ok(Self {
            model,
            lora,
            head: head
                .map(|head| HeadHalf::new(model, lora, head))
                .transpose()?,
            trainable,
        })
    }

    /// What is trained of the blocks and before them, and of the head.
    fn tensors(&self) -> (&[Tensor], &[Tensor]) {
        let head = self.head.as_ref().map_or(0, HeadHalf::trained);
        let tensors = self.trainable.tensors();
        tensors.split_at(tensors.len() - head)
    }

    /// The activation `[B, S, D]` at the cut; it carries the graph that [`Self::backward`] needs, or
    /// nothing where the half is frozen.
    ///
    /// # Errors
    /// Inputs of another kind or shape than the model's.
    pub fn forward(&self, inputs: &Inputs, step: Step) -> Result<Hidden> {
        let lora = self.lora.training(step.dropout_seed);
        lower(self.model, lora, self.tensors().0, inputs)
    }

    /// Loss and gradient of the server's features, where the labels are on the device.
    ///
    /// # Errors
    /// A half without a head, or shapes that do not fit it.
    pub fn head(&self, features: &Tensor, labels: &Labels, step: Step) -> Result<HeadStep> {
        let missing = || Error::argument("head", "must be on the device with the labels, got none");
        let head = self.head.as_ref().ok_or_else(missing)?;
        let features = Var::from_tensor(features)?;
        let lora = self.lora.training(step.dropout_seed);
        let loss = head.loss(&features, self.tensors().1, lora, labels)?;
        let mut grads = loss.backward()?;
        Ok(HeadStep {
            loss: loss.to_scalar()?,
            gradient: grads.remove(&features).ok_or(Error::NoGradient(0))?,
            grads,
        })
    }

    /// Updates the adapters, (6) of the paper, from the gradient of the activation, which a frozen half
    /// has none of, and the head from what it made of the features.
    ///
    /// # Errors
    /// A gradient of another shape than the activation's, or none where one is needed.
    pub fn backward(
        &mut self,
        activation: &Hidden,
        gradient: Option<&Tensor>,
        head: Option<HeadStep>,
        step: Step,
    ) -> Result<()> {
        let below = |gradient| Ok::<_, Error>(inject(&activation.state, gradient)?.backward()?);
        let below = gradient.map(below);
        let grads = match (below.transpose()?, head) {
            (Some(below), None) => below,
            (Some(mut below), Some(mut head)) => {
                // A head without a bias has an empty one.
                let tensors = self.tensors().1.iter();
                for tensor in tensors.filter(|tensor| tensor.elem_count() > 0) {
                    let grad = head.grads.remove(tensor).ok_or(Error::NoGradient(0))?;
                    below.insert(tensor, grad);
                }
                below
            }
            (None, Some(head)) => head.grads,
            (None, None) => return Ok(()),
        };
        self.trainable.step(grads, step.learning_rate)
    }

    /// The adapters before the blocks, and those of the half's blocks.
    ///
    /// # Errors
    /// A tensor operation failed.
    pub fn adapters(&self) -> Result<(Vec<f32>, Vec<Vec<f32>>)> {
        let mut vectors = self.trainable.values()?;
        vectors.truncate(self.tensors().0.len());
        Ok((vectors.remove(0), vectors))
    }

    /// The head, if it is here.
    ///
    /// # Errors
    /// A tensor operation failed.
    pub fn trained_head(&self) -> Result<Option<Head>> {
        let trained = self.trainable.values()?.split_off(self.tensors().0.len());
        let head = self.head.as_ref();
        Ok(head.map(|head| head.with_trained(trained)))
    }

    /// The values of all that is trained, one after the other.
    pub(super) fn values(&self) -> Result<Vec<f32>> {
        Ok(self.trainable.values()?.concat())
    }
}
