//! P2 solved exactly: Newton's method on one monotone equation, `O(N)`.
//!
//! With `a_max` the largest `a_n` among devices with demand, `δ_n = a_max − a_n` and
//! `u = τ − a_max`, device `n` needs `c_n/(u + δ_n)`, so the band suffices for `u` iff
//!
//! ```text
//! g(u) = Σ c_n/(u + δ_n) ≤ W.
//! ```
//!
//! `g` falls from infinity to 0. Caps and devices without demand only bound `u` from below:
//! `u ≥ u_lo = max{c_n/cap_n − δ_n; a_m − a_max where c_m = 0}`. Hence `u* = max(u_lo, root)`,
//! where `root` solves `g = W`. `h = 1/g` is concave and increasing: Newton's method on
//! `h = 1/W` rises monotonically from any start left of the root. With weights
//! `p_n = c_n/(u + δ_n)/g` and `x_n = 1/(u + δ_n) ≤ 1/u`, the curvature obeys
//! `u·|h''|/h' = 2u·Var(x)/E(x) ≤ 2`, so a relative step of `s` leaves a relative error of
//! about `s²` at most.

use crate::compensated::{Sum, quotient, two_sum};
use crate::error::{Error, Result, check_len};
use crate::problem::Problem;
use crate::solution::{Regime, Solution};

/// Newton stops when a step is this small against `u`; the error left is its square.
const LAST_STEP: f64 = 1e-8;
/// Far above what is needed: Newton's error times slope falls at least fourfold per step.
const MAX_STEPS: u32 = 200;
/// Above this condition number of the root, the residual is computed with compensation.
const ILL_CONDITIONED: f64 = 1e3;
/// A share of the band below which rounding cannot hide that the band is not used up.
const CLEARLY_LESS: f64 = 1.0 - 1e-9;
/// Loops fold into this many lanes: enough that the compiler turns the loop over lanes into
/// vector instructions instead of unrolling it (measured: 0.7 ns a device and step, 1.9 ns
/// with 4 lanes).
const LANES: usize = 32;

/// Solves P2 exactly: the bandwidths that minimise the delay of the slowest device.
///
/// Equations (29) to (32), see [`Problem`]; `O(N)` time, usually 3 to 8 passes. With
/// `δ_n = a_max − a_n` and `u = τ − a_max` the optimum is the larger of
/// `max{c_n/cap_n − δ_n; a_m − a_max where c_m = 0}` and the root of `Σ c_n/(u + δ_n) = W`.
/// The relative error of `τ − a_max` and of the bandwidths is below 1e-12.
///
/// # Errors
/// Lists without one entry per device, no device, entries outside the ranges of [`Problem`],
/// each named with its position and value; magnitudes whose results a double cannot hold. That
/// no allocation is feasible is not an error but [`Regime::Infeasible`].
///
/// ```
/// use sft_opt::{Problem, Regime, allocate_bandwidth};
///
/// let problem = Problem {
///     a_s: &[10.0, 0.0],
///     c_bits_per_bps_hz: &[2e6, 24e6],
///     total_hz: 3e6,
///     cap_hz: None,
/// };
/// let solution = allocate_bandwidth(&problem)?;
/// assert_eq!(solution.regime, Regime::Bandwidth);
/// assert!((solution.tau_s - 12.0).abs() < 1e-12);
/// assert!((solution.b_hz[0] - 1e6).abs() < 1e-6);
/// # Ok::<(), sft_opt::Error>(())
/// ```
pub fn allocate_bandwidth(problem: &Problem<'_>) -> Result<Solution> {
    let mut b_hz = vec![0.0; problem.a_s.len()];
    Ok(solve(problem, &mut b_hz)?.with(b_hz))
}

/// [`allocate_bandwidth`] without allocation: writes the bandwidths to `b_hz`.
///
/// # Errors
/// As [`allocate_bandwidth`], and if `b_hz` does not have one entry per device. Its content is
/// unspecified after an error.
pub fn allocate_bandwidth_into<'b>(
    problem: &Problem<'_>,
    b_hz: &'b mut [f64],
) -> Result<Solution<&'b mut [f64]>> {
    Ok(solve(problem, b_hz)?.with(b_hz))
}

fn solve(problem: &Problem<'_>, b_hz: &mut [f64]) -> Result<Solution<()>> {
    problem.validate()?;
    check_len("b_hz", b_hz.len(), problem.a_s.len())?;
    let starts = latest_starts(problem);
    let [a_max, _] = starts;
    if a_max == f64::NEG_INFINITY {
        return Ok(no_demand(problem, b_hz));
    }
    if problem.is_infeasible() {
        return Ok(infeasible(b_hz));
    }
    let bounds = lower_bounds(problem, starts, b_hz);
    let root = band_root(problem, a_max, b_hz, &bounds)?;
    // A root that meets the other bounds to rounding is a tie, where more band gains nothing.
    let tie = bounds.fixed * (1.0 + 4.0 * f64::EPSILON);
    let (u, regime) = if root.u <= tie {
        (bounds.fixed, Regime::CapOrFloor)
    } else {
        (root.u, Regime::Bandwidth)
    };
    let Need { hz, slope } = write_need(problem, b_hz, u);
    let tau_s = a_max + u;
    if !(tau_s.is_finite() && hz.is_finite() && slope > 0.0) {
        return Err(Error::Range { name: "tau_s" });
    }
    Ok(Solution {
        b_hz: (),
        tau_s,
        tau_minus_amax_s: u,
        used_hz: hz,
        shadow_price_s_per_hz: match regime {
            Regime::Bandwidth => 1.0 / slope,
            _ => 0.0,
        },
        equality_feasible: problem.band_fits_caps(),
        regime,
        iterations: root.steps,
    })
}

/// Largest `a_n` among devices with demand and among devices without; minus infinity for none.
fn latest_starts(problem: &Problem<'_>) -> [f64; 2] {
    maxima(problem.c_bits_per_bps_hz, problem.a_s, |c, a| {
        let without = f64::NEG_INFINITY;
        [
            if c > 0.0 { a } else { without },
            if c > 0.0 { without } else { a },
        ]
    })
}

/// Lower bounds of `u*`.
struct Bounds {
    /// `u_lo`: caps and devices without demand.
    fixed: f64,
    /// Left of the root of `g = W`, but for rounding.
    root: f64,
    /// Left of the root, positive and free of cancellation: `max c_n/W` where `δ_n = 0`.
    positive: f64,
}

/// Finds all bounds and leaves `δ_n` in `delta`, infinite for devices without demand: their
/// terms of `g` vanish by themselves.
fn lower_bounds(problem: &Problem<'_>, [a_max, idle]: [f64; 2], delta: &mut [f64]) -> Bounds {
    let c = problem.c_bits_per_bps_hz;
    for ((delta, &a), &c) in delta.iter_mut().zip(problem.a_s).zip(c) {
        *delta = if c > 0.0 { a_max - a } else { f64::INFINITY };
    }
    let per_hz = 1.0 / problem.total_hz;
    let [alone, positive] = maxima(c, delta, |c, delta| {
        let time = c * per_hz;
        [time - delta, if delta == 0.0 { time } else { 0.0 }]
    });
    let [c_sum, moment] = sums(c, problem.a_s, |c, a| [c, c * a]);
    let tangent = c_sum * per_hz - (a_max - moment / c_sum);
    Bounds {
        fixed: (idle - a_max).max(cap_bound(problem, a_max)),
        root: alone.max(tangent).max(positive),
        positive,
    }
}

/// `max_n c_n/cap_n − δ_n`, correct to rounding.
fn cap_bound(problem: &Problem<'_>, a_max: f64) -> f64 {
    let Some(caps) = problem.cap_hz else {
        return f64::NEG_INFINITY;
    };
    let mut best = f64::NEG_INFINITY;
    for (n, &cap) in caps.iter().enumerate() {
        let c = problem.c_bits_per_bps_hz[n];
        let (time, delta) = (c / cap, a_max - problem.a_s[n]);
        // Only a candidate for the maximum is worth the correction.
        let rounding = 4.0 * f64::EPSILON * (time + delta);
        if c > 0.0 && cap < f64::INFINITY && time - delta + rounding > best {
            best = best.max(problem.finish(n, cap, a_max));
        }
    }
    best
}

/// Where `g = W`; 0 if that is clearly left of `u_lo`.
struct Root {
    u: f64,
    steps: u32,
}

fn band_root(problem: &Problem<'_>, a_max: f64, delta: &[f64], bounds: &Bounds) -> Result<Root> {
    let c = problem.c_bits_per_bps_hz;
    let total = problem.total_hz;
    if bounds.fixed > bounds.root && need(c, delta, bounds.fixed).hz < CLEARLY_LESS * total {
        return Ok(Root { u: 0.0, steps: 0 });
    }
    let start = bounds.root.max(bounds.fixed);
    let mut slope_at_end = 0.0;
    let mut root = newton(start, bounds.positive, total, |u| {
        let need = need(c, delta, u);
        slope_at_end = need.slope;
        (need, need.hz - total)
    })?;
    if total > ILL_CONDITIONED * slope_at_end * root.u {
        let plain_steps = root.steps;
        root = newton(root.u, bounds.positive, total, |u| {
            (need(c, delta, u), excess(problem, a_max, u))
        })?;
        root.steps += plain_steps;
    }
    Ok(root)
}

/// Newton's method on `1/g = 1/W`, given `g`, `−g'` and `g − W` at `u`.
///
/// From a start right of the root the first step is negative and lands left of it. A later
/// negative step is rounding: the root is found.
fn newton(
    start: f64,
    positive: f64,
    total: f64,
    mut eval: impl FnMut(f64) -> (Need, f64),
) -> Result<Root> {
    let mut u = start;
    for steps in 1..=MAX_STEPS {
        let (Need { hz, slope }, excess) = eval(u);
        let step = hz / total * excess / slope;
        if !(step.is_finite() && slope.is_finite() && hz > 0.0) {
            return Err(Error::Range { name: "tau_s" });
        }
        u = (u + step).max(positive);
        if step.abs() <= LAST_STEP * u || (steps > 1 && step < 0.0) {
            return Ok(Root { u, steps });
        }
    }
    Err(Error::Range { name: "tau_s" })
}

/// Bandwidth that all devices need to finish at `u`: `g(u)` and `−g'(u)`.
#[derive(Clone, Copy)]
struct Need {
    hz: f64,
    slope: f64,
}

fn need(c: &[f64], delta: &[f64], u: f64) -> Need {
    let [hz, slope] = sums(c, delta, |c, delta| {
        let per_time = 1.0 / (u + delta);
        let b = c * per_time;
        [b, b * per_time]
    });
    Need { hz, slope }
}

/// Turns `δ` in place into the bandwidths that finish at `u`.
fn write_need(problem: &Problem<'_>, b_hz: &mut [f64], u: f64) -> Need {
    let c = problem.c_bits_per_bps_hz;
    for b in &mut *b_hz {
        *b = 1.0 / (u + *b);
    }
    let [hz, slope] = sums(c, b_hz, |c, per_time| {
        [c * per_time, c * per_time * per_time]
    });
    for (b, &c) in b_hz.iter_mut().zip(c) {
        *b *= c;
    }
    for (b, &cap) in b_hz.iter_mut().zip(problem.cap_hz.unwrap_or_default()) {
        *b = b.min(cap);
    }
    Need { hz, slope }
}

/// `g(u) − W` with an error far below the rounding of `W`.
fn excess(problem: &Problem<'_>, a_max: f64, u: f64) -> f64 {
    let mut sum = Sum::default();
    sum.add((-problem.total_hz, 0.0));
    for (&a, &c) in problem.a_s.iter().zip(problem.c_bits_per_bps_hz) {
        if c > 0.0 {
            let (delta, delta_err) = two_sum(a_max, -a);
            let (time, time_err) = two_sum(u, delta);
            sum.add(quotient(c, time, time_err + delta_err));
        }
    }
    sum.value()
}

/// Sums of the `K` terms of each pair.
#[inline]
fn sums<const K: usize>(x: &[f64], y: &[f64], terms: impl Fn(f64, f64) -> [f64; K]) -> [f64; K] {
    fold(0.0, x, y, terms, |sum, term| sum + term)
}

/// Maxima of the `K` terms of each pair.
#[inline]
fn maxima<const K: usize>(x: &[f64], y: &[f64], terms: impl Fn(f64, f64) -> [f64; K]) -> [f64; K] {
    // Unlike `f64::max`, the comparison is one instruction.
    let larger = |max, term| if term > max { term } else { max };
    fold(f64::NEG_INFINITY, x, y, terms, larger)
}

/// Folds the `K` terms of each pair, in lanes that are joined at the end.
#[inline]
fn fold<const K: usize>(
    init: f64,
    x: &[f64],
    y: &[f64],
    terms: impl Fn(f64, f64) -> [f64; K],
    join: impl Fn(f64, f64) -> f64,
) -> [f64; K] {
    let mut folded = [[init; LANES]; K];
    let mut step = |lane: usize, x: f64, y: f64| {
        for (folded, term) in folded.iter_mut().zip(terms(x, y)) {
            folded[lane] = join(folded[lane], term);
        }
    };
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (y_chunks, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x_chunks.iter().zip(y_chunks) {
        for lane in 0..LANES {
            step(lane, x[lane], y[lane]);
        }
    }
    for (lane, (&x, &y)) in x_rest.iter().zip(y_rest).enumerate() {
        step(lane, x, y);
    }
    folded.map(|lanes| join_lanes(lanes, &join))
}

/// Joins lanes pairwise, which also runs as vectors.
#[inline]
fn join_lanes(mut lanes: [f64; LANES], join: impl Fn(f64, f64) -> f64) -> f64 {
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        for (low, &high) in low.iter_mut().zip(high.iter()) {
            *low = join(*low, high);
        }
        half /= 2;
    }
    lanes[0]
}

fn no_demand(problem: &Problem<'_>, b_hz: &mut [f64]) -> Solution<()> {
    b_hz.fill(0.0);
    Solution {
        b_hz: (),
        tau_s: problem.a_s.iter().copied().fold(0.0, f64::max),
        tau_minus_amax_s: 0.0,
        used_hz: 0.0,
        shadow_price_s_per_hz: 0.0,
        equality_feasible: problem.band_fits_caps(),
        regime: Regime::NoDemand,
        iterations: 0,
    }
}

fn infeasible(b_hz: &mut [f64]) -> Solution<()> {
    b_hz.fill(0.0);
    Solution {
        b_hz: (),
        tau_s: f64::INFINITY,
        tau_minus_amax_s: f64::INFINITY,
        used_hz: 0.0,
        shadow_price_s_per_hz: 0.0,
        equality_feasible: false,
        regime: Regime::Infeasible,
        iterations: 0,
    }
}
