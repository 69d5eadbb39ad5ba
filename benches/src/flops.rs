//! Floating-point operations of a split step, counted product by product as an engine needs them.

use crate::shapes::Shape;

/// FLOP of the matrix products of one split step; everything else is left out.
///
/// An `m` x `k` by `k` x `n` product is `2mkn`. With `T = B * S` rows, for a linear layer of
/// `i` inputs and `o` outputs with an adapter of rank `r`:
///
/// | product | FLOP |
/// |---|---|
/// | forward `x W^T` | `2Tio` |
/// | gradient of the input `dy W` | `2Tio` |
/// | adapter, forward: `u = x A^T`, `u B^T` | `2Tir + 2Tro` |
/// | adapter, backward: `du = dy B`, `dB = dy^T u`, `dA = du^T x`, `du A` | `4Tor + 4Tri` |
///
/// Frozen weights have no gradient, and the query, key and value of block 1 pass none on, so the
/// products with `dx` on the left fall away there. Attention is 2 products of `2 S^2 d` for each
/// sample and head forward and 5 backward, one of them the scores again, which are not kept. What
/// block checkpointing computes twice is not counted: it is the same work.
pub fn step_flop(shape: &Shape) -> f64 {
    let (config, batch) = (&shape.config, shape.batch);
    let rows = batch * config.tokens();
    let blocks = (0..config.num_hidden_layers).map(|block| {
        let linears = config.linears();
        let linears = linears.iter().enumerate().map(|(i, linear)| {
            let passes_on = block > 0 || i >= 3;
            linear_flop(rows, linear.inputs, linear.outputs, shape.rank, passes_on)
        });
        linears.sum::<f64>() + attention_flop(shape)
    });
    let (width, patch) = (config.hidden_size, config.patch_size);
    let patches = batch * (config.tokens() - 1);
    let embedding = product(patches, config.num_channels * patch * patch, width);
    // Logits, the gradient of the weight, that of the features.
    let head = 3.0 * product(batch, width, shape.classes);
    blocks.sum::<f64>() + embedding + head
}

/// A frozen linear layer with its adapter, forward and backward.
fn linear_flop(rows: usize, inputs: usize, outputs: usize, rank: usize, passes_on: bool) -> f64 {
    let (down, up) = (product(rows, inputs, rank), product(rows, rank, outputs));
    let always = product(rows, inputs, outputs) + 2.0 * down + 3.0 * up;
    let input_gradient = product(rows, outputs, inputs) + down;
    always + if passes_on { input_gradient } else { 0.0 }
}

/// Attention of one block, forward and backward.
fn attention_flop(shape: &Shape) -> f64 {
    let (tokens, heads) = (shape.config.tokens(), shape.config.num_attention_heads);
    let each = product(tokens, shape.config.hidden_size / heads, tokens);
    7.0 * (shape.batch * heads) as f64 * each
}

fn product(m: usize, k: usize, n: usize) -> f64 {
    2.0 * m as f64 * k as f64 * n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use sft_opt::{Flops, Scheme};

    /// `sft-opt` counts three things otherwise: no scores twice, a row of patches for the class
    /// token, and the input gradient through the adapters of block 1.
    #[test]
    fn the_count_is_that_of_the_cost_model_but_for_three_things() {
        for shape in [Shape::digits(), Shape::tiny(), Shape::vit_base()] {
            let config = &shape.config;
            let model = config.transformer(shape.classes, shape.rank);
            let split = Scheme::Split { cut: shape.cut };
            let counted = Flops::Exact.mini_batch(&model, split, shape.batch);
            let (b, s, d) = (shape.batch, config.tokens(), config.hidden_size);
            let scores = config.num_hidden_layers as f64 * product(b * s, d, s);
            let class_token = product(b, config.num_channels * config.patch_size.pow(2), d);
            let block_1 = 3.0 * product(b * s, shape.rank, d);
            let want =
                counted.device.total() + counted.server.total() + scores - class_token - block_1;
            let gap = step_flop(&shape) / want - 1.0;
            assert!(gap.abs() < 1e-12, "{}: {gap:e}", shape.name);
        }
    }

    #[test]
    fn the_steps_are_as_large_as_is_known() {
        let gflop = |shape: &Shape| step_flop(shape) / 1e9;
        assert!((gflop(&Shape::vit_base()) - 597.0).abs() < 3.0);
        assert!((gflop(&Shape::tiny()) - 57.0).abs() < 1.5);
    }

    #[test]
    fn the_cut_does_not_change_the_work() {
        let shape = Shape::tiny();
        let gap = step_flop(&shape.cut_at(2)) / step_flop(&shape) - 1.0;
        assert!(gap.abs() < 1e-12);
    }
}
