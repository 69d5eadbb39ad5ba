//! What padding and masks mean, whoever computes the block.

use candle_core::{Device, Tensor, Var};

use super::blocks::{WIDTH, adapters, families, random, values};
use crate::layers::{Backend, Block, BlockWeights, Mask, Wanted};

const LENGTHS: [u32; 3] = [5, 1, 3];

fn each(check: impl Fn(&str, &BlockWeights, &Block)) {
    for (name, weights) in families() {
        for backend in [Backend::default(), Backend::Candle(Device::Cpu)] {
            let block = Block::new(&weights, &backend).unwrap();
            check(&format!("{name}, {backend:?}"), &weights, &block);
        }
    }
}

fn assert_close(name: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{name}");
    for (got, want) in got.iter().zip(want) {
        assert!(
            (got - want).abs() < 2e-5 * (1.0 + want.abs()),
            "{name}: {got} {want}"
        );
    }
}

/// A batch with padding, whose content is without meaning, is each sample alone, and zero in the
/// rows of padding; so is the gradient.
#[test]
fn padding_changes_nothing_and_is_zero() {
    each(|name, weights, block| {
        let (lora, adapter) = adapters(weights);
        let run = |x: &Tensor, lengths: Option<&[u32]>| {
            let x = Var::from_tensor(x).unwrap();
            let y = block.forward(&x, lengths, Some((&adapter, lora)), Wanted::All);
            let y = y.unwrap();
            let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            [y.detach(), grads.get(&x).unwrap().clone()]
        };
        let x = random(&[3, 5, WIDTH], 1.0, 300);
        let results = run(&x, Some(&LENGTHS));
        for (sample, length) in LENGTHS.into_iter().enumerate() {
            let length = length as usize;
            let of = |t: &Tensor| t.narrow(0, sample, 1).unwrap();
            let alone = run(&of(&x).narrow(1, 0, length).unwrap(), None);
            for (got, alone) in results.iter().zip(&alone) {
                let got = values(&of(got));
                let (real, padding) = got.split_at(length * WIDTH);
                assert_close(name, real, &values(alone));
                assert!(padding.iter().all(|&v| v == 0.0), "{name}");
            }
        }
    });
}

/// Of a causal block the first tokens alone give the same, and of a window the tokens that the last
/// one sees.
#[test]
fn tokens_that_are_not_seen_change_nothing() {
    each(|name, weights, block| {
        let Mask::Causal { window } = weights.attention.mask else {
            return;
        };
        let forward = |x: &Tensor| values(&block.forward(x, None, None, Wanted::All).unwrap());
        let x = random(&[1, 6, WIDTH], 1.0, 300);
        let all = forward(&x);
        let prefix = forward(&x.narrow(1, 0, 4).unwrap());
        assert_close(name, &all[..4 * WIDTH], &prefix);
        // Positions by themselves change nothing: only their differences count.
        let last = x.narrow(1, 3, 3).unwrap();
        let last = &forward(&last)[2 * WIDTH..];
        let same = all[5 * WIDTH..].iter().zip(last);
        let same = same.fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs())) < 1e-4;
        assert_eq!(same, window == Some(3), "{name}");
    });
}

/// Lengths that are all S are no padding.
#[test]
fn full_lengths_are_none() {
    each(|name, _, block| {
        let x = random(&[2, 4, WIDTH], 1.0, 300);
        let of = |lengths: Option<&[u32]>| {
            values(&block.forward(&x, lengths, None, Wanted::All).unwrap())
        };
        assert_eq!(of(Some(&[4, 4])), of(None), "{name}");
    });
}
