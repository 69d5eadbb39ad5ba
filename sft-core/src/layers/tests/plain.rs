//! Blocks in candle's operations: their gradients against difference quotients, and what padding
//! and masks mean.

use candle_core::{Device, Tensor, Var};

use super::blocks::{WIDTH, adapters, families, random, values};
use crate::layers::{Backend, Block, BlockWeights};

const LENGTHS: [u32; 3] = [5, 1, 3];

fn block(weights: &BlockWeights) -> Block {
    Block::new(weights, &Backend::Candle(Device::Cpu)).unwrap()
}

/// Along a random direction of hidden state and adapter.
#[test]
fn gradients_are_difference_quotients() {
    for (name, weights) in families() {
        let (lora, adapter) = adapters(&weights);
        let block = block(&weights);
        let x = Var::from_tensor(&random(&[3, 5, WIDTH], 1.0, 300)).unwrap();
        let direction = random(&[3, 5, WIDTH], 1.0, 301);
        let objective = |x: &Tensor, adapter: &Tensor| {
            let y = block.forward(x, Some(&LENGTHS), Some((adapter, lora)), None);
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

/// A batch with padding, whose content is without meaning, is each sample alone.
#[test]
fn padding_changes_nothing_and_is_zero() {
    for (name, weights) in families() {
        let block = block(&weights);
        let x = random(&[3, 5, WIDTH], 1.0, 300);
        let y = block.forward(&x, Some(&LENGTHS), None, None).unwrap();
        for (sample, length) in LENGTHS.into_iter().enumerate() {
            let length = length as usize;
            let of = |t: &Tensor| t.narrow(0, sample, 1).unwrap();
            let alone = of(&x).narrow(1, 0, length).unwrap();
            let alone = values(&block.forward(&alone, None, None, None).unwrap());
            let y = values(&of(&y));
            let (real, padding) = y.split_at(length * WIDTH);
            for (got, want) in real.iter().zip(&alone) {
                assert!((got - want).abs() < 1e-5 * (1.0 + want.abs()), "{name}");
            }
            assert!(padding.iter().all(|&v| v == 0.0), "{name}");
        }
    }
}
