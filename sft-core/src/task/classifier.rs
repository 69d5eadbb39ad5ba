//! The classification head on the device that computes it.

use candle_core::Tensor;

use crate::Result;
use crate::adapter::{Head, Lora, Place};
use crate::layers::{Backend, LowRank};

/// A head on the device that computes it, without what is trained.
#[derive(Debug)]
pub(crate) struct Classifier {
    classes: usize,
    width: usize,
    backend: Backend,
    /// Weight `[K, D]` and bias `[K]`, or an empty one, under an adapter.
    frozen: Option<[Tensor; 2]>,
}

impl Classifier {
    pub(crate) fn new(head: &Head, backend: &Backend) -> Result<Self> {
        let (device, classes) = (backend.device(), head.classes);
        let width = head.weight.len() / classes;
        let frozen = match head.adapter.as_slice() {
            [] => None,
            _ => Some([
                Tensor::from_slice(&head.weight, (classes, width), device)?,
                Tensor::from_slice(&head.bias, head.bias.len(), device)?,
            ]),
        };
        Ok(Self {
            classes,
            width,
            backend: backend.clone(),
            frozen,
        })
    }

    /// How many vectors [`Head::trained`] has.
    pub(crate) fn trained(&self) -> usize {
        if self.frozen.is_some() { 1 } else { 2 }
    }

    /// The logits `[B, K]` for features `[B, D]` and [`Head::trained`] as tensors.
    pub(crate) fn logits(
        &self,
        features: &Tensor,
        trained: &[Tensor],
        lora: Lora,
    ) -> Result<Tensor> {
        match (&self.frozen, trained) {
            (None, [weight, bias]) => {
                let weight = weight.reshape((self.classes, self.width))?;
                Ok(linear(features, &weight, bias)?)
            }
            (Some(frozen), [adapter]) => self.adapted(features, frozen, adapter, lora),
            _ => unreachable!("weight and bias, or an adapter, are trained"),
        }
    }

    /// The logits of the frozen head with its adapter.
    fn adapted(
        &self,
        features: &Tensor,
        [weight, bias]: &[Tensor; 2],
        adapter: &Tensor,
        lora: Lora,
    ) -> Result<Tensor> {
        let sizes = [self.width, self.classes];
        let pair = |vector: &Tensor| LowRank::new(lora, Place::Head, sizes, vector, 0);
        let value = |x: &Tensor, vector: &Tensor| {
            let logits = linear(x, weight, bias)?;
            match pair(vector)? {
                Some(pair) => logits + pair.change(x)?,
                None => Ok(logits),
            }
        };
        let Some(detached) = pair(&adapter.detach())? else {
            return Ok(value(features, adapter)?);
        };
        let (weight, x) = (weight.clone(), features.detach());
        let tracked = features.track_op();
        let logits = self.backend.adapted([features, adapter], value, move |dy| {
            let (dx, dadapter) = detached.gradients(&x, dy)?;
            let dx = tracked.then(|| dx + dy.matmul(&weight)?).transpose()?;
            Ok((dx, dadapter))
        });
        Ok(logits?)
    }
}

/// The outputs `[B, K]` of a linear layer for `[B, D]`, of an empty bias without one.
fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> candle_core::Result<Tensor> {
    let product = x.matmul(&weight.t()?)?;
    match bias.elem_count() {
        0 => Ok(product),
        _ => product.broadcast_add(bias),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::adapter::{Targets, normal};
    use crate::seed;

    /// Numbers around zero.
    fn some(count: usize, seed: u64) -> Vec<f32> {
        let mut rng = seed::rng(seed, &[]);
        (0..count).map(|_| normal(&mut rng) as f32).collect()
    }

    /// Logits and gradients equal those of a graph in which every operation is candle's; of frozen
    /// tensors there is no gradient.
    #[test]
    fn an_adapted_head_agrees_with_plain_candle() {
        let (device, width, classes) = (&Device::Cpu, 5, 3);
        let lora = Lora::new(2, 3.0).unwrap();
        let lora = lora.with_targets(Targets::NONE.with(Place::Head));
        for dropout in [0.0, 0.3] {
            let lora = lora.with_dropout(dropout).unwrap().training(4);
            let head = Head {
                adapter: some(2 * (width + classes), 1),
                ..Head::new(classes, width, 7)
            };
            let x = Var::from_slice(&some(4 * width, 2), (4, width), device).unwrap();
            let adapter = Var::from_slice(&head.adapter, head.adapter.len(), device).unwrap();
            let gradients = |logits: &Tensor| {
                let grads = logits.sqr().unwrap().sum_all().unwrap();
                let grads = grads.backward().unwrap();
                let of = |var: &Var| grads.get(var).unwrap().flatten_all().unwrap();
                let [dx, dadapter] = [&x, &adapter].map(|var| of(var).to_vec1::<f32>().unwrap());
                (dx, dadapter, grads.get_ids().count())
            };
            let classifier = Classifier::new(&head, &Backend::default()).unwrap();
            let trained = [adapter.as_tensor().clone()];
            let got = classifier.logits(&x, &trained, lora).unwrap();

            let weight = Tensor::from_slice(&head.weight, (classes, width), device).unwrap();
            let bias = Tensor::from_slice(&head.bias, classes, device).unwrap();
            let pair = LowRank::new(lora, Place::Head, [width, classes], &adapter, 0);
            let change = pair.unwrap().unwrap().change(&x).unwrap();
            let want = (linear(&x, &weight, &bias).unwrap() + change).unwrap();
            assert_eq!(
                got.to_vec2::<f32>().unwrap(),
                want.to_vec2::<f32>().unwrap()
            );
            let ((dx, dadapter, count), want) = (gradients(&got), gradients(&want));
            assert_eq!(count, 2, "gradients beside those of features and adapter");
            let pairs = dx.iter().zip(&want.0).chain(dadapter.iter().zip(&want.1));
            for (got, want) in pairs {
                assert!(
                    (got - want).abs() < 1e-5 * (1.0 + want.abs()),
                    "{got} {want}"
                );
            }
        }
    }
}
