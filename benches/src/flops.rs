//! Floating-point operations of a split step, counted product by product as an engine needs them.

use crate::shapes::Shape;

/// FLOP of the matrix products of one split step, as our engine takes it; everything else is left
/// out.
///
/// An `m` x `k` by `k` x `n` product is `2mkn`. With `T` rows, for a linear layer of `i` inputs and
/// `o` outputs with an adapter of rank `r`:
///
/// | product | FLOP |
/// |---|---|
/// | forward `x W'^T` | `2Tio` |
/// | gradient of the input `dy W'` | `2Tio` |
/// | adapter: `u = x A^T`, `du = dy B`, `dB = dy^T u`, `dA = du^T x` | `4Tr(i + o)` |
/// | `W' = W + s B A`, forward and backward | `4oir` |
///
/// Frozen weights have no gradient, and the query, key and value of block 1 pass none on, so that
/// product falls away there. `T` is `B * S`, but after the attention of the last block `B`: the
/// head reads the class token only. Attention is 2 products of `2 Q S d` for each sample and head
/// forward and 6 backward, two of them the scores and the context again, which are not kept, with
/// `Q = S` queries, in the last block 1. What block checkpointing computes twice is not counted: it is the same work.
pub fn step_flop(shape: &Shape) -> f64 {
    let (config, batch) = (&shape.config, shape.batch);
    let (rows, depth) = (batch * config.tokens(), config.num_hidden_layers);
    let blocks = (0..depth).map(|block| {
        let is_last = block + 1 == depth;
        let linears = config.spec().block;
        let linears = linears.iter().enumerate().map(|(i, linear)| {
            let rows = if is_last && i >= 3 { batch } else { rows };
            let passes_on = block > 0 || i >= 3;
            linear_flop(rows, linear.inputs, linear.outputs, shape.rank, passes_on)
        });
        let queries = if is_last { 1 } else { config.tokens() };
        linears.sum::<f64>() + attention_flop(shape, queries)
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
    let adapter = 2.0 * (product(rows, inputs, rank) + product(rows, rank, outputs));
    let merged = 2.0 * product(outputs, rank, inputs);
    let passes = if passes_on { 2.0 } else { 1.0 };
    passes * product(rows, inputs, outputs) + adapter + merged
}

/// Attention of one block, forward and backward.
fn attention_flop(shape: &Shape, queries: usize) -> f64 {
    let (tokens, heads) = (shape.config.tokens(), shape.config.num_attention_heads);
    let each = product(queries, shape.config.hidden_size / heads, tokens);
    8.0 * (shape.batch * heads) as f64 * each
}

fn product(m: usize, k: usize, n: usize) -> f64 {
    2.0 * m as f64 * k as f64 * n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use sft_core::adapter::LinearSpec;
    use sft_opt::Placement;
    use sft_opt::system::Flops;

    /// `sft-opt` counts what an engine without our shortcuts does: no scores and context twice, a row of patches
    /// for the class token, adapters beside the weight, every token of the last block.
    #[test]
    fn the_count_is_that_of_the_cost_model_but_for_what_the_engine_does_otherwise() {
        for shape in [Shape::digits(), Shape::tiny(), Shape::vit_base()] {
            let config = &shape.config;
            let model = config.transformer(shape.classes, shape.rank);
            let split = Placement::Split { cut: shape.cut };
            let counted = Flops::Exact.mini_batch(&model, split, shape.batch);
            let (b, s, d) = (shape.batch, config.tokens(), config.hidden_size);
            let depth = config.num_hidden_layers as f64;
            let again = depth * 2.0 * product(b * s, d, s);
            let class_token = product(b, config.num_channels * config.patch_size.pow(2), d);
            let linears = config.spec().block;
            let beside = |l: &LinearSpec| {
                product(b * s, shape.rank, l.outputs) + product(b * s, shape.rank, l.inputs)
                    - 2.0 * product(l.outputs, shape.rank, l.inputs)
            };
            let beside = depth * linears.iter().map(beside).sum::<f64>();
            let unread = |l: &LinearSpec| {
                let adapter = 2.0 * shape.rank as f64 * (l.inputs + l.outputs) as f64;
                2.0 * (b * (s - 1)) as f64 * (2.0 * (l.inputs * l.outputs) as f64 + adapter)
            };
            let unread =
                linears[3..].iter().map(unread).sum::<f64>() + 8.0 * product(b * (s - 1), d, s);
            let all = counted.device.total() + counted.server.total();
            let want = all + again - class_token - beside - unread;
            let gap = step_flop(&shape) / want - 1.0;
            assert!(gap.abs() < 1e-12, "{}: {gap:e}", shape.name);
        }
    }

    #[test]
    fn the_cut_does_not_change_the_work() {
        let shape = Shape::tiny();
        let gap = step_flop(&shape.cut_at(2)) / step_flop(&shape) - 1.0;
        assert!(gap.abs() < 1e-12);
    }
}
