//! The block's forward pass.

use super::attention::Attention;
use super::linear::LoraPair;
use super::{BlockWeights, Saved};
use crate::kernels::{gelu, vectorized};

impl BlockWeights {
    /// The block's output for `x` `[T, D]`, and what backward needs.
    pub(super) fn forward(
        &self,
        x: &[f32],
        samples: usize,
        lora: &[LoraPair<'_>; 6],
    ) -> (Vec<f32>, Saved) {
        let width = self.width();
        let tokens = x.len() / width;
        let [q, k, v, o, up, down] = *lora;

        let normed = self.norm1.apply(x);
        let mut qkv = vec![0.0; tokens * 3 * width];
        let mut project =
            |i: usize, lora| self.qkv[i].forward(&normed, lora, &mut qkv[i * width..], 3 * width);
        let low_rank_qkv = [project(0, q), project(1, k), project(2, v)];
        let context = self.attention(samples, tokens).forward(&qkv);
        let mut middle = vec![0.0; x.len()];
        let low_rank_out = self.out.forward(&context, o, &mut middle, width);
        add(&mut middle, x);

        let normed = self.norm2.apply(&middle);
        let mut mlp = vec![0.0; tokens * self.fc1.bias.len()];
        let low_rank_up = self.fc1.forward(&normed, up, &mut mlp, self.fc1.bias.len());
        let mut hidden = vec![0.0; mlp.len()];
        gelu(&mlp, &mut hidden);
        let mut y = vec![0.0; x.len()];
        let low_rank_down = self.fc2.forward(&hidden, down, &mut y, width);
        add(&mut y, &middle);

        let [uq, uk, uv] = low_rank_qkv;
        let low_rank = [uq, uk, uv, low_rank_out, low_rank_up, low_rank_down];
        (
            y,
            Saved {
                samples,
                qkv,
                context,
                middle,
                mlp,
                low_rank,
            },
        )
    }

    pub(super) fn attention(&self, samples: usize, tokens: usize) -> Attention {
        Attention {
            samples,
            tokens: tokens / samples,
            width: self.width(),
            heads: self.heads,
        }
    }
}

fn add(total: &mut [f32], term: &[f32]) {
    vectorized(|| {
        for (total, term) in total.iter_mut().zip(term) {
            *total += term;
        }
    });
}
