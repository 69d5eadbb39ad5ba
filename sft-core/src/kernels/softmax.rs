//! The softmax over rows, forward and backward.

use super::exp::exp;
use super::kernels;
use super::reduce::{greatest, sum};

kernels! {
    /// Softmax of `scale * x` over each row of `width` elements, in place.
    pub(crate) fn softmax_rows(x: &mut [f32], width: usize, scale: f32) {
        for row in x.chunks_exact_mut(width) {
            let top = greatest(row);
            for v in row.iter_mut() {
                *v = exp(scale * (*v - top));
            }
            let total = sum(row.len(), |i| row[i]);
            let inverse = 1.0 / total;
            for v in row.iter_mut() {
                *v *= inverse;
            }
        }
    }

    /// `dp = p * (dp - sum(p * dp))` for each row of `width` elements, in place.
    pub(crate) fn softmax_backward(p: &[f32], dp: &mut [f32], width: usize) {
        for (p, dp) in p.chunks_exact(width).zip(dp.chunks_exact_mut(width)) {
            let dot = sum(width, |i| p[i] * dp[i]);
            for (dp, p) in dp.iter_mut().zip(p) {
                *dp = p * (*dp - dot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_survives_large_and_keeps_ratios() {
        let mut row = [1000.0, 999.0, -1e30];
        softmax_rows(&mut row, 3, 1.0);
        let e = 1.0 / (1.0 + (-1.0f32).exp());
        assert!((row[0] - e).abs() < 1e-6 && (row[1] - (1.0 - e)).abs() < 1e-6);
        assert!(row[2] < 1e-30);
    }
}
