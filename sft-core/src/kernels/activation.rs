//! The exact GELU and the softmax, as polynomials that vectorise.
//!
//! Products and sums are fused by name, which gives the same bits on every processor; one
//! without the instruction only takes longer.

use super::kernels;
use super::reduce::{greatest, sum};

kernels! {
    /// `out = x * Phi(x)`, the exact (error function) GELU.
    pub(crate) fn gelu(x: &[f32], out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = x * normal_cdf(x);
        }
    }

    /// The GELU, and in place of `x` its derivative, `Phi(x) + x * phi(x)`.
    pub(crate) fn gelu_and_slope(x: &mut [f32], out: &mut [f32]) {
        const INV_SQRT_TAU: f32 = 0.398_942_3;
        for (out, x) in out.iter_mut().zip(x) {
            let cdf = normal_cdf(*x);
            *out = *x * cdf;
            *x = (*x * INV_SQRT_TAU).mul_add(exp(-0.5 * *x * *x), cdf);
        }
    }

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
}

/// The standard normal distribution function.
#[inline(always)]
fn normal_cdf(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

/// The error function as `x * P(x^2) / Q(x^2)`, and 1 where it is within half an ulp of 1.
///
/// The coefficients are the minimax fit that XLA and Eigen use for f32.
#[inline(always)]
fn erf(x: f32) -> f32 {
    const P: [f32; 7] = [
        -2.726_142_3e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_5e-5,
        -7.349_906_3e-4,
        -2.954_598e-3,
        -1.609_603_3e-2,
    ];
    const Q: [f32; 5] = [
        -1.456_607_2e-5,
        -2.133_740_6e-4,
        -1.682_827e-3,
        -7.373_329e-3,
        -1.426_474e-2,
    ];
    const ONE: f32 = 3.925;
    let s = (x * x).min(ONE * ONE);
    // Not fused: that was measured to leave more error where erf is about 1.
    let p = P.iter().fold(0.0, |sum, &c| sum * s + c);
    let q = Q.iter().fold(0.0, |sum, &c| sum * s + c);
    let inner = x * p / q;
    if x.abs() < ONE { inner } else { inner.signum() }
}

/// `e^x` by reduction to `2^k * e^r`, `|r| <= ln 2 / 2`, and a Taylor polynomial of degree 7.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const TAYLOR: [f32; 8] = [
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let k = shifted - ROUND;
    let r = k.mul_add(-LN2_LOW, k.mul_add(-LN2_HIGH, x));
    let power = f32::from_bits(
        shifted
            .to_bits()
            .wrapping_sub(ROUND.to_bits())
            .wrapping_add(127)
            .wrapping_shl(23),
    );
    power * TAYLOR.iter().fold(0.0, |sum: f32, &c| sum.mul_add(r, c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> impl Iterator<Item = f32> {
        (-60_000..=60_000).map(|i| i as f32 * 1e-3)
    }

    #[test]
    fn exp_is_within_two_ulp() {
        for x in grid() {
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) - want).abs() <= 3e-7 * want, "exp({x})");
        }
    }

    /// Candle evaluates its GELU in f64 and rounds once.
    #[test]
    fn gelu_equals_candle() -> candle_core::Result<()> {
        let x: Vec<f32> = grid().collect();
        let mut out = vec![0.0; x.len()];
        gelu(&x, &mut out);
        let want = candle_core::Tensor::new(x.as_slice(), &candle_core::Device::Cpu)?;
        let want = want.gelu_erf()?.to_vec1::<f32>()?;
        for ((&x, &out), &want) in x.iter().zip(&out).zip(&want) {
            assert!(
                (out - want).abs() <= 1e-6 * (1.0 + want.abs()),
                "gelu({x}): {out} {want}"
            );
        }
        Ok(())
    }

    #[test]
    fn gelu_gradient_is_the_difference_quotient() {
        for i in -50..=50 {
            let x = i as f32 * 0.1;
            let (mut y, mut slope) = ([0.0], [x]);
            gelu_and_slope(&mut slope, &mut y);
            let f = |x: f64| {
                let x = x as f32;
                f64::from(x) * f64::from(normal_cdf(x))
            };
            let step = 1e-2;
            let want = (f(f64::from(x) + step) - f(f64::from(x) - step)) / (2.0 * step);
            assert!((f64::from(slope[0]) - want).abs() < 1e-4, "gelu'({x})");
        }
    }

    #[test]
    fn softmax_survives_large_and_keeps_ratios() {
        let mut row = [1000.0, 999.0, -1e30];
        softmax_rows(&mut row, 3, 1.0);
        let e = 1.0 / (1.0 + (-1.0f32).exp());
        assert!((row[0] - e).abs() < 1e-6 && (row[1] - (1.0 - e)).abs() < 1e-6);
        assert!(row[2] < 1e-30);
    }
}
