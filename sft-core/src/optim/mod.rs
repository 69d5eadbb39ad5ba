//! Updates of what is trained: candle variables within a round, plain data between rounds.

/// How the learning rates change over a run.
mod schedule;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer as _, ParamsAdamW};

use serde::{Deserialize, Serialize};

pub use schedule::{Decay, Schedule};

use crate::{Error, Result};

/// How gradients become updates; the formulas are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Stochastic gradient descent: `v = momentum v + g + decay p`, `p = p - lr v`.
    Sgd {
        /// In [0, 1).
        momentum: f64,
        /// At least 0.
        weight_decay: f64,
    },
    /// AdamW with beta 0.9 and 0.999 and epsilon 1e-8.
    AdamW {
        /// At least 0; each step takes `lr decay p` off `p`.
        weight_decay: f64,
    },
}

impl Optimizer {
    /// SGD without weight decay.
    pub fn sgd(momentum: f64) -> Self {
        let weight_decay = 0.0;
        Self::Sgd {
            momentum,
            weight_decay,
        }
    }

    /// AdamW with PyTorch's weight decay of 0.01.
    pub fn adamw() -> Self {
        Self::AdamW { weight_decay: 0.01 }
    }
}

/// What turns gradients into updates, the same in every step of a round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The optimizer, whose state starts anew with every half.
    pub optimizer: Optimizer,
    /// The largest norm of a half's whole gradient; a longer one is scaled down to it.
    pub clip_norm: Option<f64>,
}

impl OptimizerConfig {
    /// Checks every number against its range.
    pub(crate) fn validate(&self) -> Result<()> {
        let weight_decay = match self.optimizer {
            Optimizer::Sgd {
                momentum,
                weight_decay,
            } => {
                let holds = (0.0..1.0).contains(&momentum);
                Error::require(holds, "momentum", momentum, "in [0, 1)")?;
                weight_decay
            }
            Optimizer::AdamW { weight_decay } => weight_decay,
        };
        let holds = weight_decay.is_finite() && weight_decay >= 0.0;
        Error::require(holds, "weight_decay", weight_decay, "at least 0")?;
        let norm = self.clip_norm.unwrap_or(1.0);
        let holds = norm.is_finite() && norm > 0.0;
        Error::require(holds, "clip_norm", norm, "positive")
    }
}

impl From<Optimizer> for OptimizerConfig {
    fn from(optimizer: Optimizer) -> Self {
        Self {
            optimizer,
            clip_norm: None,
        }
    }
}

/// Values with their optimizer state, which starts anew with them.
#[derive(Debug)]
pub(crate) struct Trainable {
    /// All values, those of length 0 too.
    tensors: Vec<Tensor>,
    /// What changes: the tensors that are not empty.
    vars: Vec<Var>,
    clip_norm: Option<f64>,
    state: State,
}

#[derive(Debug)]
enum State {
    Sgd {
        momentum: f64,
        weight_decay: f64,
        velocity: Vec<Option<Tensor>>,
    },
    AdamW(AdamW),
    /// No step follows.
    Ended,
}

impl Trainable {
    /// A flat variable for every vector that is not empty.
    pub(crate) fn new<'a>(
        vectors: impl Iterator<Item = &'a [f32]>,
        config: OptimizerConfig,
        device: &Device,
    ) -> Result<Self> {
        let (mut tensors, mut vars) = (Vec::new(), Vec::new());
        for vector in vectors {
            if vector.is_empty() {
                tensors.push(Tensor::zeros(0, DType::F32, device)?);
                continue;
            }
            let var = Var::from_slice(vector, vector.len(), device)?;
            tensors.push(var.as_tensor().clone());
            vars.push(var);
        }
        Self::of(tensors, vars, config)
    }

    /// These variables, of any shape.
    pub(crate) fn from_vars(vars: Vec<Var>, config: OptimizerConfig) -> Result<Self> {
        let tensors = vars.iter().map(|var| var.as_tensor().clone()).collect();
        Self::of(tensors, vars, config)
    }

    fn of(tensors: Vec<Tensor>, vars: Vec<Var>, config: OptimizerConfig) -> Result<Self> {
        let state = match config.optimizer {
            Optimizer::Sgd {
                momentum,
                weight_decay,
            } => State::Sgd {
                momentum,
                weight_decay,
                velocity: vec![None; vars.len()],
            },
            Optimizer::AdamW { weight_decay } => {
                let params = ParamsAdamW {
                    weight_decay,
                    ..ParamsAdamW::default()
                };
                State::AdamW(AdamW::new(vars.clone(), params)?)
            }
        };
        let clip_norm = config.clip_norm;
        Ok(Self {
            tensors,
            vars,
            clip_norm,
            state,
        })
    }

    /// One tensor per vector, in their order.
    pub(crate) fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// One update at this learning rate; every variable must have a gradient.
    pub(crate) fn step(&mut self, mut grads: GradStore, learning_rate: f64) -> Result<()> {
        if let Some(i) = self.vars.iter().position(|var| grads.get(var).is_none()) {
            return Err(Error::NoGradient(i));
        }
        if let Some(max) = self.clip_norm {
            clip(&self.vars, &mut grads, max)?;
        }
        match &mut self.state {
            State::AdamW(adamw) => {
                adamw.set_learning_rate(learning_rate);
                adamw.step(&grads)?;
            }
            State::Sgd {
                momentum,
                weight_decay,
                velocity,
            } => {
                for (var, velocity) in self.vars.iter().zip(velocity) {
                    let mut next = grads.get(var).ok_or(Error::NoGradient(0))?.clone();
                    if *weight_decay > 0.0 {
                        next = (next + (var.as_tensor() * *weight_decay)?)?;
                    }
                    if let Some(v) = velocity.take() {
                        next = ((v * *momentum)? + next)?;
                    }
                    var.set(&(var.as_tensor() - (&next * learning_rate)?)?)?;
                    *velocity = Some(next);
                }
            }
            State::Ended => {
                let reason = "must come before what was trained is sent";
                return Err(Error::argument("step", reason));
            }
        }
        Ok(())
    }

    /// Forgets the optimizer's state: no step follows.
    pub(crate) fn end(&mut self) {
        self.state = State::Ended;
    }

    /// The present values, one flat vector per tensor.
    pub(crate) fn values(&self) -> Result<Vec<Vec<f32>>> {
        self.tensors
            .iter()
            .map(|tensor| Ok(tensor.flatten_all()?.to_vec1()?))
            .collect()
    }
}

/// Scales the gradients so that the norm of all of them together is at most `max`.
fn clip(vars: &[Var], grads: &mut GradStore, max: f64) -> Result<()> {
    let mut squares = 0.0;
    for grad in vars.iter().filter_map(|var| grads.get(var)) {
        squares += f64::from(grad.sqr()?.sum_all()?.to_scalar::<f32>()?);
    }
    // As torch.nn.utils.clip_grad_norm_.
    let factor = max / (squares.sqrt() + 1e-6);
    if factor < 1.0 {
        for var in vars {
            if let Some(grad) = grads.remove(var) {
                grads.insert(var, (grad * factor)?);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Five steps on `sum(w (p - t)^2)`, as the script in [`pytorch_steps`] takes them.
    fn five_steps(config: OptimizerConfig) -> Vec<f32> {
        let tensor = |values: [f32; 3]| Tensor::new(&values, &Device::Cpu).unwrap();
        let var = Var::from_tensor(&tensor([0.5, -1.0, 2.0])).unwrap();
        let mut trainable = Trainable::from_vars(vec![var], config).unwrap();
        for _ in 0..5 {
            let p = &trainable.tensors()[0];
            let off = (p - tensor([1.0, 2.0, -0.5])).unwrap().sqr().unwrap();
            let loss = (off * tensor([1.0, 0.5, 2.0])).unwrap().sum_all().unwrap();
            trainable.step(loss.backward().unwrap(), 0.1).unwrap();
        }
        trainable.values().unwrap().remove(0)
    }

    /// PyTorch 2.15, in double precision:
    /// ```python
    /// p = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    /// optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.05)  # and so on
    /// for _ in range(5):
    ///     optimizer.zero_grad()
    ///     t, w = torch.tensor([1.0, 2.0, -0.5]).double(), torch.tensor([1.0, 0.5, 2.0]).double()
    ///     (w * (p - t) ** 2).sum().backward()
    ///     torch.nn.utils.clip_grad_norm_([p], 1.0)  # in the last case
    ///     optimizer.step()
    /// ```
    #[test]
    fn pytorch_steps() {
        let sgd = |momentum, weight_decay| Optimizer::Sgd {
            momentum,
            weight_decay,
        };
        let clipped = OptimizerConfig {
            optimizer: sgd(0.9, 0.0),
            clip_norm: Some(1.0),
        };
        let cases = [
            (sgd(0.0, 0.0).into(), [0.836_16, 0.228_53, -0.305_6]),
            (sgd(0.9, 0.05).into(), [1.259_906, 2.099_269, -2.293_668]),
            (
                Optimizer::AdamW { weight_decay: 0.2 }.into(),
                [0.911_174, -0.425_656, 1.330_73],
            ),
            (clipped, [0.631_233, -0.595_626, 0.756_848]),
        ];
        for (config, want) in cases {
            for (got, want) in five_steps(config).into_iter().zip(want) {
                assert!((got - want).abs() < 1e-5, "{config:?}: {got} {want}");
            }
        }
    }
}
