//! Sizes that do not fit each other.

use candle_core::Device;

use super::blocks::{WIDTH, families, random, vit};
use crate::layers::{Backend, Block, BlockWeights, Mask, Rotary, Wanted};

fn refused(weights: &BlockWeights) -> String {
    Block::new(weights, &Backend::default())
        .unwrap_err()
        .to_string()
}

fn assert_refused(weights: &BlockWeights, reason: &str) {
    let error = refused(weights);
    assert!(error.starts_with(reason), "{error}");
    // Candle's operations say the same, once they are asked for.
    let block = Block::new(weights, &Backend::Candle(Device::Cpu)).unwrap();
    let x = random(&[1, 2, WIDTH], 1.0, 300);
    let error = block
        .forward(&x, None, None, Wanted::All)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with(reason), "{error}");
}

#[test]
fn heads_that_do_not_fit_are_refused() {
    let reason = "heads of keys and values must divide 4, got 3";
    assert_refused(&vit(4, 3, 3), reason);
    let mut block = vit(4, 4, 3);
    block.attention.heads = 5;
    assert_refused(&block, "5 heads of 3 features do not make 12 of queries");
    let mut block = vit(4, 4, 3);
    block.attention.qkv[2] = vit(4, 2, 3).attention.qkv.remove(2);
    assert_refused(
        &block,
        "heads of 3 features do not make 12 of keys, 6 of values",
    );
    block.attention.qkv.truncate(2);
    assert_refused(
        &block,
        "queries, keys and values are one linear or three, got 2",
    );
    // One of all three, with a feature more.
    block.attention.qkv = vit(37, 4, 1).attention.qkv;
    block.attention.qkv.truncate(1);
    assert_refused(
        &block,
        "heads of 3 features do not make 12 of keys, 13 of values",
    );
}

#[test]
fn rotary_and_window_that_do_not_fit_are_refused() {
    let mut block = vit(4, 4, 3);
    block.attention.rotary = Some(Rotary {
        inverse_frequencies: vec![1.0; 2],
        factor: 1.0,
    });
    assert_refused(
        &block,
        "a rotary embedding of 4 features needs heads of as many, got 3",
    );
    let mut block = vit(4, 4, 3);
    block.attention.mask = Mask::Causal { window: Some(0) };
    assert_refused(&block, "a window must hold at least 1 token, got 0");
}

#[test]
fn gates_and_norms_that_do_not_fit_are_refused() {
    let mut block = vit(4, 4, 3);
    block.mlp.gate = Some(block.attention.qkv[0].clone());
    assert!(refused(&block).starts_with("an MLP of 17 features got 12"));
    let [_, _, _, (_, mut block), ..] = families();
    block.mlp_norm.bias = Some(block.mlp_norm.gain.clone());
    assert!(refused(&block).starts_with("an RMS norm has no bias"));
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let x = random(&[2, 4, WIDTH], 1.0, 300);
    for backend in [Backend::default(), Backend::Candle(Device::Cpu)] {
        let block = Block::new(&vit(4, 4, 3), &backend).unwrap();
        for (lengths, reason) in [
            (vec![4], "lengths must be as many as samples, 2, got 1"),
            (vec![4, 0], "lengths must be 1 to 4, got 0"),
            (vec![5, 1], "lengths must be 1 to 4, got 5"),
        ] {
            let error = block
                .forward(&x, Some(&lengths), None, Wanted::All)
                .unwrap_err();
            assert!(error.to_string().starts_with(reason), "{error}");
        }
    }
}
