//! The activations of an MLP and their derivatives, as polynomials that vectorise.
//!
//! Products and sums are fused by name, which gives the same bits on every processor; one
//! without the instruction only takes longer.

use super::exp::exp;
use super::kernels;

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

    /// The GELU with a tanh in place of the error function.
    pub(crate) fn gelu_tanh(x: &[f32], out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = gelu_tanh_with_slope(x).0;
        }
    }

    /// The same, and in place of `x` its derivative.
    pub(crate) fn gelu_tanh_and_slope(x: &mut [f32], out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            (*out, *x) = gelu_tanh_with_slope(*x);
        }
    }

    /// `out = x * sigmoid(x)`
    pub(crate) fn silu(x: &[f32], out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = x * sigmoid(x);
        }
    }

    /// The same, and in place of `x` its derivative.
    pub(crate) fn silu_and_slope(x: &mut [f32], out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            let s = sigmoid(*x);
            *out = *x * s;
            *x = (*x * s).mul_add(1.0 - s, s);
        }
    }

    /// `out = max(x, 0)`
    pub(crate) fn relu(x: &[f32], out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = if x < 0.0 { 0.0 } else { x };
        }
    }

    /// The same, and in place of `x` its derivative, 0 at 0.
    pub(crate) fn relu_and_slope(x: &mut [f32], out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = if *x < 0.0 { 0.0 } else { *x };
            *x = if *x > 0.0 { 1.0 } else { 0.0 };
        }
    }

    /// Of activations, their slopes and the factors on them: the products in place of the
    /// activations, and the products' derivatives by what was activated and by the factors, in place
    /// of slopes and factors.
    pub(crate) fn gate(activations: &mut [f32], slopes: &mut [f32], factors: &mut [f32]) {
        let both = slopes.iter_mut().zip(factors);
        for (activation, (slope, factor)) in activations.iter_mut().zip(both) {
            let value = *activation;
            (*activation, *slope) = (value * *factor, *slope * *factor);
            *factor = value;
        }
    }
}

/// The standard normal distribution function.
#[inline(always)]
fn normal_cdf(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

/// `1 / (1 + e^-x)`
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x sigmoid(2 u)` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`, which is `x (1 + tanh(u)) / 2`, and its
/// derivative.
#[inline(always)]
fn gelu_tanh_with_slope(x: f32) -> (f32, f32) {
    const TWICE: f32 = 1.595_769; // 2 sqrt(2 / pi)
    const CUBE: f32 = 0.044_715;
    // Beyond |x| = 10 the sigmoid is 0 or 1.
    let square = (x * x).min(100.0);
    let s = sigmoid(TWICE * x * square.mul_add(CUBE, 1.0));
    let slope = TWICE * square.mul_add(3.0 * CUBE, 1.0);
    (x * s, (x * s * (1.0 - s)).mul_add(slope, s))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> impl Iterator<Item = f32> {
        (-60_000..=60_000).map(|i| i as f32 * 1e-3)
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

    type Kernel = fn(&[f32], &mut [f32]);
    type WithSlope = fn(&mut [f32], &mut [f32]);

    type Exact = fn(f64) -> f64;

    /// Each with its derivative, and in f64.
    fn activations() -> [(Kernel, WithSlope, Exact); 4] {
        let tanh = |x: f64| {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + u.tanh())
        };
        let cdf = |x: f64| x * f64::from(normal_cdf(x as f32));
        [
            (gelu, gelu_and_slope, cdf),
            (gelu_tanh, gelu_tanh_and_slope, tanh),
            (silu, silu_and_slope, |x| x / (1.0 + (-x).exp())),
            (relu, relu_and_slope, |x| x.max(0.0)),
        ]
    }

    #[test]
    fn values_are_those_in_f64_and_slopes_difference_quotients() {
        for (index, (kernel, with_slope, want)) in activations().into_iter().enumerate() {
            for i in -120..=120 {
                // Off the kink of the ReLU.
                let x = i as f32 * 0.1 + 0.033;
                let (mut value, mut again, mut slope) = ([0.0], [0.0], [x]);
                kernel(&[x], &mut value);
                with_slope(&mut slope, &mut again);
                assert_eq!(value[0].to_bits(), again[0].to_bits());
                let (x, step) = (f64::from(x), 1e-2);
                let error = (f64::from(value[0]) - want(x)).abs();
                assert!(error < 1e-6 * (1.0 + x.abs()), "{index}({x})");
                let quotient = (want(x + step) - want(x - step)) / (2.0 * step);
                assert!(
                    (f64::from(slope[0]) - quotient).abs() < 1e-4,
                    "{index}'({x})"
                );
            }
        }
    }

    #[test]
    fn activations_far_from_zero_are_finite_and_nan_stays() {
        for (index, (kernel, with_slope, _)) in activations().into_iter().enumerate() {
            let mut out = [0.0; 3];
            let mut slope = [-1e4, 1e4, f32::NAN];
            kernel(&slope.clone(), &mut out);
            assert!(
                out[0].abs() < 1e-30 && (out[1] - 1e4).abs() < 1e-2 && out[2].is_nan(),
                "{index}: {out:?}"
            );
            with_slope(&mut slope, &mut out);
            assert!(
                slope[0].abs() < 1e-30 && (slope[1] - 1.0).abs() < 1e-6,
                "{index}: {slope:?}"
            );
        }
    }

    #[test]
    fn a_gate_is_a_product_with_two_derivatives() {
        let (mut value, mut slope, mut factor) = ([2.0], [3.0], [5.0]);
        gate(&mut value, &mut slope, &mut factor);
        assert_eq!((value, slope, factor), ([10.0], [15.0], [2.0]));
    }
}
