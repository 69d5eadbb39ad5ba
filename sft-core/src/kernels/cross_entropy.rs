//! The cross-entropy over rows of logits, with its gradient.

use super::exp::exp;
use super::kernels;
use super::reduce::{greatest, sum};

kernels! {
    /// The cross-entropy of each row of `width` logits, nat, into `losses`; in place of the logits comes
    /// its gradient, `scale` times the softmax less one at the target.
    pub(crate) fn cross_entropy_rows(
        x: &mut [f32],
        width: usize,
        targets: &[u32],
        scale: f32,
        losses: &mut [f32],
    ) {
        for ((row, &target), loss) in x.chunks_exact_mut(width).zip(targets).zip(losses) {
            let (top, own) = (greatest(row), row[target as usize]);
            for v in row.iter_mut() {
                *v = exp(*v - top);
            }
            let total = sum(row.len(), |i| row[i]);
            *loss = (top - own) + total.ln();
            let factor = scale / total;
            for v in row.iter_mut() {
                *v *= factor;
            }
            row[target as usize] -= scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_logits_have_finite_losses() {
        let mut rows = [1000.0, 0.0, -1000.0, 0.0, 0.0, 0.0];
        let mut losses = [0.0; 2];
        cross_entropy_rows(&mut rows, 3, &[2, 1], 0.5, &mut losses);
        let third = 3.0f32.ln();
        assert!((losses[0] - 2000.0).abs() < 1e-3 && (losses[1] - third).abs() < 1e-6);
        let want = [0.5, 0.0, -0.5, 1.0 / 6.0, -1.0 / 3.0, 1.0 / 6.0];
        assert!(rows.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
