//! Layer and RMS normalisation over rows, forward and backward, with frozen gain and bias.

use super::kernels;
use super::reduce::sum;

kernels! {
    /// Normalises each row of `x` (rows of `gain.len()` elements) into `out`.
    pub(crate) fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        let width = gain.len();
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let (mean, scale) = moments(x, eps);
            for (((out, &x), &gain), &bias) in out.iter_mut().zip(x).zip(gain).zip(bias) {
                *out = (x - mean) * scale * gain + bias;
            }
        }
    }

    /// Adds to `dx` the gradient of the rows `x` for the gradient `dy` of their normalised form.
    ///
    /// With `xhat = (x - mean) * scale` and `g = dy * gain`:
    /// `dx = scale * (g - mean(g) - xhat * mean(g * xhat))`.
    pub(crate) fn layer_norm_backward(x: &[f32], gain: &[f32], eps: f32, dy: &[f32], dx: &mut [f32]) {
        let width = gain.len();
        let rows = x
            .chunks_exact(width)
            .zip(dy.chunks_exact(width))
            .zip(dx.chunks_exact_mut(width));
        for ((x, dy), dx) in rows {
            let (mean, scale) = moments(x, eps);
            let g = sum(width, |i| dy[i] * gain[i]) / width as f32;
            let gx = sum(width, |i| dy[i] * gain[i] * (x[i] - mean) * scale) / width as f32;
            for (((dx, &x), &dy), &gain) in dx.iter_mut().zip(x).zip(dy).zip(gain) {
                *dx += scale * (dy * gain - g - (x - mean) * scale * gx);
            }
        }
    }

    /// Divides each row of `x` (rows of `gain.len()` elements) by the root of its mean square, into
    /// `out`.
    pub(crate) fn rms_norm(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
        let width = gain.len();
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let scale = inverse_root_mean_square(x, eps);
            for ((out, &x), &gain) in out.iter_mut().zip(x).zip(gain) {
                *out = x * scale * gain;
            }
        }
    }

    /// Adds to `dx` the gradient of the rows `x` for the gradient `dy` of their normalised form.
    ///
    /// With `xhat = x * scale` and `g = dy * gain`: `dx = scale * (g - xhat * mean(g * xhat))`.
    pub(crate) fn rms_norm_backward(x: &[f32], gain: &[f32], eps: f32, dy: &[f32], dx: &mut [f32]) {
        let width = gain.len();
        let rows = x
            .chunks_exact(width)
            .zip(dy.chunks_exact(width))
            .zip(dx.chunks_exact_mut(width));
        for ((x, dy), dx) in rows {
            let scale = inverse_root_mean_square(x, eps);
            let gx = sum(width, |i| dy[i] * gain[i] * x[i] * scale) / width as f32;
            for (((dx, &x), &dy), &gain) in dx.iter_mut().zip(x).zip(dy).zip(gain) {
                *dx += scale * (dy * gain - x * scale * gx);
            }
        }
    }
}

/// Mean and reciprocal standard deviation of a row.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum(x.len(), |i| x[i]) / n;
    let variance = sum(x.len(), |i| (x[i] - mean) * (x[i] - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

#[inline(always)]
fn inverse_root_mean_square(x: &[f32], eps: f32) -> f32 {
    let square = sum(x.len(), |i| x[i] * x[i]) / x.len() as f32;
    1.0 / (square + eps).sqrt()
}
