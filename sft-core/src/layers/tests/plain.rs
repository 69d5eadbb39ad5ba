//! Blocks in candle's operations: their gradients against difference quotients.

use candle_core::{Device, Tensor, Var};

use super::blocks::{WIDTH, adapters, families, random};
use crate::layers::{Activation, Backend, Block, Wanted};

const LENGTHS: [u32; 3] = [5, 1, 3];

/// Along a random direction of hidden state and adapter.
#[test]
fn gradients_are_difference_quotients() {
    for (name, mut weights) in families() {
        if weights.mlp.activation == Activation::Relu {
            // Across its kink a difference quotient is no slope.
            weights.mlp.activation = Activation::Silu;
        }
        let (lora, adapter) = adapters(&weights);
        let block = Block::new(&weights, &Backend::Candle(Device::Cpu)).unwrap();
        let x = Var::from_tensor(&random(&[3, 5, WIDTH], 1.0, 300)).unwrap();
        let direction = random(&[3, 5, WIDTH], 1.0, 301);
        let objective = |x: &Tensor, adapter: &Tensor| {
            let y = block.forward(x, Some(&LENGTHS), Some((adapter, lora)), Wanted::All);
            (y.unwrap() * &direction).unwrap().sum_all().unwrap()
        };
        let grads = objective(&x, &adapter).backward().unwrap();
        for (part, var, shape) in [
            ("x", &x, vec![3, 5, WIDTH]),
            ("adapter", &adapter, vec![adapter.elem_count()]),
        ] {
            let along = random(&shape, 1.0, 302);
            let slope = (grads.get(var).unwrap() * &along)
                .unwrap()
                .sum_all()
                .unwrap();
            let slope = slope.to_scalar::<f32>().unwrap();
            let step = 5e-4;
            let at = |step: f64| {
                let moved = (var.as_tensor() + (&along * step).unwrap()).unwrap();
                let value = if part == "x" {
                    objective(&moved, &adapter)
                } else {
                    objective(&x, &moved)
                };
                value.to_scalar::<f32>().unwrap()
            };
            let quotient = (at(step) - at(-step)) / (2.0 * step as f32);
            let error = (quotient - slope).abs();
            assert!(
                error < 0.02 * (1.0 + slope.abs()),
                "{name}, {part}: {slope} {quotient}"
            );
        }
    }
}
