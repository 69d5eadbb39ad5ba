//! The two halves of a split training step.
//!
//! The device runs embedding and blocks `0..l` forward, the server the rest,
//! the loss and its own backward; what the device needs to go on is the
//! gradient of the activation at the cut.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, Var};

use crate::trainable::Trainable;
use crate::{Adapters, Error, Head, Lora, Model, Optimizer, Result};

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
        optimizer: Optimizer,
        learning_rate: f64,
    ) -> Result<Self> {
        check_adapters(model, lora, blocks)?;
        let adapter = Trainable::new(blocks, None, optimizer, learning_rate)?;
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
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let adapters = self.adapter.vars().iter().map(Var::as_tensor);
        blocks(self.model, self.lora, 0, adapters, self.model.embed(input)?)
    }

    /// Updates the adapter, (6) of the paper, from the gradient of the activation.
    ///
    /// # Errors
    /// A gradient of another shape than the activation's.
    pub fn backward(&mut self, activation: &Tensor, gradient: &Tensor) -> Result<()> {
        let loss = activation.apply_op1(Inject(gradient.clone()))?;
        self.adapter.step(&loss.backward()?)
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
        optimizer: Optimizer,
        learning_rate: f64,
    ) -> Result<Self> {
        check_adapters(model, lora, blocks)?;
        check_head(model, head)?;
        let adapter = Trainable::new(blocks, Some(head), optimizer, learning_rate)?;
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
    pub fn step(&mut self, activation: &Tensor, labels: &[u32], cut: bool) -> Result<ServerStep> {
        let received = if cut {
            Some(Var::from_tensor(activation)?)
        } else {
            None
        };
        let input = received.as_ref().map_or(activation, Var::as_tensor);
        let logits = self.logits(input)?;
        let labels = Tensor::new(labels, logits.device())?;
        let loss = candle_nn::loss::cross_entropy(&logits, &labels)?;
        let mut grads = loss.backward()?;
        let gradient = received.as_ref().and_then(|var| grads.remove(var));
        self.adapter.step(&grads)?;
        Ok(ServerStep {
            loss: loss.to_scalar()?,
            gradient,
        })
    }

    /// The logits `[B, K]` for a hidden state before the half's first block.
    ///
    /// # Errors
    /// Shapes that do not fit the model.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let [adapters @ .., weight, bias] = self.adapter.vars() else {
            unreachable!("a server half is made with a head")
        };
        let adapters = adapters.iter().map(Var::as_tensor);
        let hidden = blocks(self.model, self.lora, self.start, adapters, hidden.clone())?;
        classify(self.model, weight, bias, &hidden)
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
            Ok(model.block(index, &hidden, adapter, lora)?)
        })
}

/// The logits `[B, K]` for the last hidden state.
pub(crate) fn classify(
    model: &dyn Model,
    weight: &Tensor,
    bias: &Tensor,
    hidden: &Tensor,
) -> Result<Tensor> {
    Ok(model
        .features(hidden)?
        .matmul(&weight.t()?)?
        .broadcast_add(bias)?)
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
