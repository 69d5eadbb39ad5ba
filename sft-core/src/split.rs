//! The two halves of a split training step.
//!
//! The device runs embedding and blocks `0..l` forward, the server the rest,
//! the loss and its own backward; what the device needs to go on is the
//! gradient of the activation at the cut.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, Var};

use crate::trainable::Trainable;
use crate::{Adapters, Error, Head, Lora, Model, Result, Rule};

/// What differs from one mini-batch to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The learning rate of the update.
    pub learning_rate: f64,
    /// Where the masks of LoRA dropout come from; the same on both sides of the cut.
    pub dropout_seed: u64,
}

/// The device's half: embedding and the first blocks, with their adapters.
pub struct DeviceHalf<'m> {
    model: &'m dyn Model,
    lora: Lora,
    adapter: Trainable,
}

impl<'m> DeviceHalf<'m> {
    /// The half with the first `blocks.len()` blocks of `model`.
    ///
    /// # Errors
    /// Adapters that do not fit the model.
    pub fn new(
        model: &'m dyn Model,
        lora: Lora,
        blocks: &[Vec<f32>],
        rule: impl Into<Rule>,
    ) -> Result<Self> {
        check_adapters(model, lora, blocks)?;
        let adapter = Trainable::new(blocks, None, rule.into(), model.device())?;
        Ok(Self {
            model,
            lora,
            adapter,
        })
    }

    /// The activation `[B, S, D]` at the cut; it carries the graph that [`Self::backward`] needs.
    ///
    /// # Errors
    /// An input of the wrong shape.
    pub fn forward(&self, input: &Tensor, step: Step) -> Result<Tensor> {
        let adapters = self.adapter.vars().iter().map(Var::as_tensor);
        let lora = self.lora.training(step.dropout_seed);
        blocks(self.model, lora, 0, adapters, self.model.embed(input)?)
    }

    /// Updates the adapter, (6) of the paper, from the gradient of the activation.
    ///
    /// # Errors
    /// A gradient of another shape than the activation's.
    pub fn backward(&mut self, activation: &Tensor, gradient: &Tensor, step: Step) -> Result<()> {
        let loss = if activation.device().is_cpu() {
            activation.apply_op1(Inject(gradient.clone()))?
        } else {
            (activation * gradient)?.sum_all()?
        };
        self.adapter.step(loss.backward()?, step.learning_rate)
    }

    /// The adapters of the half's blocks.
    ///
    /// # Errors
    /// A tensor operation failed.
    pub fn adapters(&self) -> Result<Vec<Vec<f32>>> {
        self.adapter.values()
    }
}

/// The server's half for one device: the other blocks and the head, with their adapters.
///
/// With all blocks it is the whole model, as FL puts it on the device.
pub struct ServerHalf<'m> {
    model: &'m dyn Model,
    lora: Lora,
    start: usize,
    adapter: Trainable,
}

/// What one step of the server gives.
pub struct ServerStep {
    /// Mean cross-entropy of the mini-batch.
    pub loss: f32,
    /// The gradient of the activation, where it was asked for.
    pub gradient: Option<Tensor>,
}

impl<'m> ServerHalf<'m> {
    /// The half with the last `blocks.len()` blocks of `model`.
    ///
    /// # Errors
    /// Adapters or a head that do not fit the model.
    pub fn new(
        model: &'m dyn Model,
        lora: Lora,
        blocks: &[Vec<f32>],
        head: &Head,
        rule: impl Into<Rule>,
    ) -> Result<Self> {
        check_adapters(model, lora, blocks)?;
        check_head(model, head)?;
        let adapter = Trainable::new(blocks, Some(head), rule.into(), model.device())?;
        Ok(Self {
            model,
            lora,
            start: model.depth() - blocks.len(),
            adapter,
        })
    }

    /// Forward, loss, backward and update, (5) of the paper, for one mini-batch.
    ///
    /// # Errors
    /// Shapes that do not fit the model.
    pub fn step(
        &mut self,
        activation: &Tensor,
        labels: &[u32],
        cut: bool,
        step: Step,
    ) -> Result<ServerStep> {
        let received = if cut {
            Some(Var::from_tensor(activation)?)
        } else {
            None
        };
        let input = received.as_ref().map_or(activation, Var::as_tensor);
        let logits = self.logits(input, self.lora.training(step.dropout_seed))?;
        let labels = Tensor::new(labels, logits.device())?;
        let loss = candle_nn::loss::cross_entropy(&logits, &labels)?;
        let mut grads = loss.backward()?;
        let gradient = received.as_ref().and_then(|var| grads.remove(var));
        self.adapter.step(grads, step.learning_rate)?;
        Ok(ServerStep {
            loss: loss.to_scalar()?,
            gradient,
        })
    }

    /// The logits `[B, K]` for a hidden state before the half's first block.
    fn logits(&self, hidden: &Tensor, lora: Lora) -> Result<Tensor> {
        let [adapters @ .., weight, bias] = self.adapter.vars() else {
            unreachable!("a server half is made with a head")
        };
        let adapters = adapters.iter().map(Var::as_tensor);
        let hidden = blocks(self.model, lora, self.start, adapters, hidden.clone())?;
        classify(&self.model.features(&hidden)?, weight, bias)
    }

    /// The adapters of the half's blocks, and the head.
    ///
    /// # Errors
    /// A tensor operation failed.
    pub fn adapters(&self) -> Result<Adapters> {
        Ok(Adapters::from_vectors(self.adapter.values()?))
    }
}

/// Runs the blocks from `start` on, as many as there are adapters.
pub(crate) fn blocks<'a>(
    model: &dyn Model,
    lora: Lora,
    start: usize,
    adapters: impl Iterator<Item = &'a Tensor>,
    hidden: Tensor,
) -> Result<Tensor> {
    adapters
        .zip(start..)
        .try_fold(hidden, |hidden, (adapter, index)| {
            Ok(model.block(index, &hidden, adapter, lora.in_block(index))?)
        })
}

/// The logits `[B, K]` for features `[B, D]`.
pub(crate) fn classify(features: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    Ok(features.matmul(&weight.t()?)?.broadcast_add(bias)?)
}

/// Adapters for at most all blocks, each of the right length.
pub(crate) fn check_adapters(model: &dyn Model, lora: Lora, blocks: &[Vec<f32>]) -> Result<()> {
    let (depth, length) = (model.depth(), lora.parameters(model.linears()));
    if blocks.len() > depth || blocks.iter().any(|block| block.len() != length) {
        let got: Vec<_> = blocks.iter().map(Vec::len).collect();
        let want = format!("must be at most {depth} vectors of {length} values");
        return Err(Error::argument(
            "adapters",
            format!("{want}, got lengths {got:?}"),
        ));
    }
    Ok(())
}

/// A head of at least one class and the model's width.
pub(crate) fn check_head(model: &dyn Model, head: &Head) -> Result<()> {
    let (classes, width) = (head.classes(), model.width());
    if classes == 0 || head.weight.len() != classes * width {
        let weights = head.weight.len();
        let want = format!("must have at least one class and width {width}");
        let reason = format!("{want}, got {classes} classes and {weights} weights");
        return Err(Error::argument("head", reason));
    }
    Ok(())
}

/// A scalar whose gradient with respect to its argument is a given tensor.
struct Inject(Tensor);

impl CustomOp1 for Inject {
    fn name(&self) -> &'static str {
        "inject-gradient"
    }

    fn cpu_fwd(&self, _: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        if layout.shape() != self.0.shape() {
            candle_core::bail!(
                "the gradient's shape is {:?}, the activation's {:?}",
                self.0.shape(),
                layout.shape()
            )
        }
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}
