//! Values that are trained: as plain data between rounds, as candle variables within one.

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer as _, ParamsAdamW};

use crate::adapter::normal;
use crate::{Error, Lora, Model, Result, seed};

/// The classification head, trained in full.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// `[K, D]`, row by row.
    pub weight: Vec<f32>,
    /// `[K]`.
    pub bias: Vec<f32>,
}

impl Head {
    /// A new head for `classes` classes: weights from N(0, 0.02^2), bias 0.
    pub fn new(classes: usize, width: usize, seed: u64) -> Self {
        let mut rng = seed::rng(seed, &[seed::HEAD]);
        let weight = (0..classes * width)
            .map(|_| (0.02 * normal(&mut rng)) as f32)
            .collect();
        Self {
            weight,
            bias: vec![0.0; classes],
        }
    }

    /// Number of classes, K.
    pub fn classes(&self) -> usize {
        self.bias.len()
    }
}

/// Everything that fine-tuning changes: an adapter per block, and the head.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapters {
    /// One flat vector per block, as [`Lora::initial`] lays it out.
    pub blocks: Vec<Vec<f32>>,
    /// The head.
    pub head: Head,
}

impl Adapters {
    /// New adapters for every block of `model`, with this head.
    pub fn new(model: &dyn Model, lora: Lora, head: Head, seed: u64) -> Self {
        let block = |i| lora.initial(model.linears(), &mut seed::rng(seed, &[seed::ADAPTER, i]));
        Self {
            blocks: (0..model.depth() as u64).map(block).collect(),
            head,
        }
    }

    /// Every vector, in the order of messages: the blocks, the head's weight, its bias.
    pub(crate) fn vectors(&self) -> impl Iterator<Item = &[f32]> {
        let head = [self.head.weight.as_slice(), self.head.bias.as_slice()];
        self.blocks.iter().map(Vec::as_slice).chain(head)
    }

    /// The length of every vector.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        self.vectors().map(<[f32]>::len).collect()
    }

    /// Adapters and head from their vectors.
    pub(crate) fn from_vectors(mut blocks: Vec<Vec<f32>>) -> Self {
        let bias = blocks.pop().unwrap_or_default();
        let weight = blocks.pop().unwrap_or_default();
        Self {
            blocks,
            head: Head { weight, bias },
        }
    }
}

/// How gradients become updates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    /// Stochastic gradient descent: `v = momentum v + g`, `p = p - lr v`.
    Sgd {
        /// In [0, 1).
        momentum: f64,
    },
    /// AdamW with beta 0.9 and 0.999, epsilon 1e-8 and weight decay 0.01.
    AdamW,
}

/// Variables with their optimizer state, which starts anew with them.
#[derive(Debug)]
pub(crate) struct Trainable {
    vars: Vec<Var>,
    state: State,
}

#[derive(Debug)]
enum State {
    Sgd {
        momentum: f64,
        learning_rate: f64,
        velocity: Vec<Option<Tensor>>,
    },
    AdamW(AdamW),
}

impl Trainable {
    /// Variables for the adapters of consecutive blocks and, last, a head's weight and bias.
    pub(crate) fn new(
        blocks: &[Vec<f32>],
        head: Option<&Head>,
        optimizer: Optimizer,
        learning_rate: f64,
    ) -> Result<Self> {
        let var = |values: &[f32], shape: &[usize]| Var::from_slice(values, shape, &Device::Cpu);
        let mut vars = Vec::with_capacity(blocks.len() + 2);
        for block in blocks {
            vars.push(var(block, &[block.len()])?);
        }
        if let Some(Head { weight, bias }) = head {
            vars.push(var(weight, &[bias.len(), weight.len() / bias.len()])?);
            vars.push(var(bias, &[bias.len()])?);
        }
        let state = match optimizer {
            Optimizer::Sgd { momentum } => State::Sgd {
                momentum,
                learning_rate,
                velocity: vec![None; vars.len()],
            },
            Optimizer::AdamW => {
                let params = ParamsAdamW {
                    lr: learning_rate,
                    ..ParamsAdamW::default()
                };
                State::AdamW(AdamW::new(vars.clone(), params)?)
            }
        };
        Ok(Self { vars, state })
    }

    pub(crate) fn vars(&self) -> &[Var] {
        &self.vars
    }

    /// One update; every variable must have a gradient.
    pub(crate) fn step(&mut self, grads: &GradStore) -> Result<()> {
        if let Some(i) = self.vars.iter().position(|var| grads.get(var).is_none()) {
            return Err(Error::NoGradient(i));
        }
        match &mut self.state {
            State::AdamW(adamw) => adamw.step(grads)?,
            State::Sgd {
                momentum,
                learning_rate,
                velocity,
            } => {
                for (var, velocity) in self.vars.iter().zip(velocity) {
                    let grad = grads.get(var).ok_or(Error::NoGradient(0))?;
                    let next = match velocity.take() {
                        Some(v) => ((v * *momentum)? + grad)?,
                        None => grad.clone(),
                    };
                    var.set(&(var.as_tensor() - (&next * *learning_rate)?)?)?;
                    *velocity = Some(next);
                }
            }
        }
        Ok(())
    }

    /// The present values, one flat vector per variable.
    pub(crate) fn values(&self) -> Result<Vec<Vec<f32>>> {
        self.vars
            .iter()
            .map(|var| Ok(var.flatten_all()?.to_vec1()?))
            .collect()
    }
}
