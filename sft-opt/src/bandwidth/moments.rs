//! One step to the root of `g(u) = Σ c_n/(u + δ_n) = W`, of fourth order.
//!
//! With `t_n = u/(u + δ_n)`, which lies in (0, 1], and moments `m_k = Σ c_n·t_nᵏ⁺¹/u`,
//! `g(u(1 + y)) = Σ_k m_k(−y)ᵏ`. A step puts two devices in the place of all, such that `m_0` to
//! `m_3` stay, and solves for them: a quadratic. That is Gauss's quadrature of `1/(1 + yt)` with
//! two nodes; its error has the sign of the fourth derivative in `t`, so the two devices never
//! need more than all, and the steps rise to the root from the left, as Newton's on `1/g` do
//! (one node). With the bound `Σ p(t)²·c·t/u ≤ (4/27)·m_1` on the monic polynomial `p` of the nodes,
//! a step of `y` leaves a relative error of at most about `0.15·y⁴`.

use crate::numeric::vectorized::{map_sums, sums};

/// Below this share of the mean square, the variance of `t` is rounding.
const ALL_ALIKE: f64 = 1e-12;

/// `y` with `Σ_k m_k(−y)ᵏ = W` for two devices of the moments `m`, given `w = m_0/W − 1`.
///
/// As a continued fraction: `w = q_1·y/(1 + q_2·y/(1 + q_3·y))`. One device, `w = q_1·y`, is
/// enough where all `t` are alike but for rounding.
pub(crate) fn relative_step(m: &[f64], w: f64) -> f64 {
    let [q1, r2, r3] = [m[1], m[2], m[3]].map(|moment| moment / m[0]);
    let one_device = w / q1;
    let variance = r2 - q1 * q1;
    if variance <= ALL_ALIKE * r2 {
        return one_device;
    }
    let (q2, q3) = (variance / q1, (q1 * r3 - r2 * r2) / (q1 * variance));
    let q3 = q3.max(0.0);
    let linear = q1 - w * (q2 + q3);
    let root = (linear * linear + 4.0 * q1 * q3 * w).max(0.0).sqrt();
    if linear > 0.0 {
        2.0 * w / (linear + root)
    } else if q3 > 0.0 {
        (root - linear) / (2.0 * q1 * q3)
    } else {
        one_device
    }
}

/// `m_0` to `m_3` at `u`; `m_0 = g(u)` and `m_1 = −u·g'(u)`.
pub(crate) fn moments(c: &[f64], delta: &[f64], u: f64) -> [f64; 4] {
    sums(c, delta, |c, delta| powers(c, u / (u + delta))).map(|m| m / u)
}

/// `c·t` to `c·tᴷ`.
#[inline]
fn powers<const K: usize>(c: f64, t: f64) -> [f64; K] {
    let mut power = c;
    std::array::from_fn(|_| {
        power *= t;
        power
    })
}

/// Turns `δ` in place into `t` at `u`; `m_0` to `m_4`.
pub(crate) fn share_times(c: &[f64], delta: &mut [f64], u: f64) -> [f64; 5] {
    let moments = map_sums(c, delta, |c, delta| {
        let t = u / (u + delta);
        (t, powers(c, t))
    });
    moments.map(|m| m / u)
}
