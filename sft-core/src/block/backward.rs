//! The block's backward pass.

use super::linear::{LoraPair, LoraPairGrad};
use super::{BlockWeights, Saved};
use crate::kernels::{Mat, gelu, gelu_backward, layer_norm_backward};

impl BlockWeights {
    /// Writes the adapter's gradient and returns that of `x` if `input_gradient`.
    pub(super) fn backward(
        &self,
        x: &[f32],
        saved: &Saved,
        lora: &[LoraPair<'_>; 6],
        dy: &[f32],
        grads: [LoraPairGrad<'_>; 6],
        input_gradient: bool,
    ) -> Option<Vec<f32>> {
        let width = self.width();
        let tokens = x.len() / width;
        let [q, k, v, o, up, down] = *lora;
        let [gq, gk, gv, go, gup, gdown] = grads;
        let [uq, uk, uv, uo, uup, udown] = &saved.low_rank;

        let mut hidden = vec![0.0; saved.mlp.len()];
        gelu(&saved.mlp, &mut hidden);
        let mut dmlp = vec![0.0; saved.mlp.len()];
        let dy_rows = Mat::new(dy, tokens, width);
        self.fc2
            .backward(&hidden, udown, down, dy_rows, gdown, Some(&mut dmlp));
        gelu_backward(&saved.mlp, &mut dmlp);

        let normed = self.norm2.apply(&saved.middle);
        let mut dnormed = vec![0.0; normed.len()];
        let dmlp = Mat::new(&dmlp, tokens, self.fc1.bias.len());
        self.fc1
            .backward(&normed, uup, up, dmlp, gup, Some(&mut dnormed));
        let mut dmiddle = dy.to_vec();
        let norm2 = &self.norm2;
        layer_norm_backward(
            &saved.middle,
            &norm2.gain,
            norm2.eps,
            &dnormed,
            &mut dmiddle,
        );

        let mut dcontext = vec![0.0; saved.context.len()];
        let dout = Mat::new(&dmiddle, tokens, width);
        self.out
            .backward(&saved.context, uo, o, dout, go, Some(&mut dcontext));
        let dqkv = self
            .attention(saved.samples, tokens)
            .backward(&saved.qkv, &dcontext);

        let normed = self.norm1.apply(x);
        let mut dnormed = input_gradient.then(|| vec![0.0; normed.len()]);
        let parts = [(q, gq, uq), (k, gk, uk), (v, gv, uv)];
        for (i, (linear, (lora, grad, u))) in self.qkv.iter().zip(parts).enumerate() {
            let dy = Mat::strided(&dqkv[i * width..], tokens, width, 3 * width);
            linear.backward(&normed, u, lora, dy, grad, dnormed.as_deref_mut());
        }
        let dnormed = dnormed?;
        let norm1 = &self.norm1;
        layer_norm_backward(x, &norm1.gain, norm1.eps, &dnormed, &mut dmiddle);
        Some(dmiddle)
    }
}
