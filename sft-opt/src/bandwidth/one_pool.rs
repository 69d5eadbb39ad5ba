//! P2 solved exactly: one monotone equation, solved to fourth order, `O(N)`.
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
//! where `root` solves `g = W`.
//!
//! The root is found by steps of fourth order, see `moments.rs`.

use super::bandwidths::{Bandwidths, Regime};
use super::moments::{moments, relative_step, share_times};
use super::problem::Problem;
use crate::error::{Error, Result, check_len};
use crate::numeric::compensated::{Sum, quotient, two_sum};
use crate::numeric::vectorized::{larger, maxima, sums};
use crate::solution::{Constraint, Solution};

/// Relative size of the last step but one: `0.15·y⁴` is 5e-4, as large as the last may be.
const LAST_BUT_ONE: f64 = 0.24;
/// Relative size of the last step: `y⁴`, the error left, is 6e-14.
const LAST_STEP: f64 = 5e-4;
/// Far above what is needed: Newton's error times slope falls at least fourfold per step.
const MAX_STEPS: u32 = 200;
/// From this many devices on, a sample of them gives the start.
const WORTH_A_SAMPLE: usize = 256;
/// Devices of the sample.
const SAMPLE: usize = 64;
/// Relative size of the last step on the sample, which is not exact itself.
const SAMPLE_STEP: f64 = 0.5;
/// Above this condition number of the root, the residual is computed with compensation.
const ILL_CONDITIONED: f64 = 1e3;
/// A share of the band below which rounding cannot hide that the band is not used up.
const CLEARLY_LESS: f64 = 1.0 - 1e-9;

/// Solves P2 exactly: the bandwidths that minimise the delay of the slowest device.
///
/// Equations (29) to (32), see [`Problem`]; `O(N)` time, usually 2 to 4 steps. With
/// `δ_n = a_max − a_n` and `u = τ − a_max` the optimum is the larger of
/// `max{c_n/cap_n − δ_n; a_m − a_max where c_m = 0}` and the root of `Σ c_n/(u + δ_n) = W`.
/// The relative error of `τ − a_max` and of the bandwidths is below 1e-12.
///
/// # Errors
/// Lists without one entry per device, no device, entries outside the ranges of [`Problem`],
/// each named with its position and value; magnitudes whose results a double cannot hold. That
/// no allocation is feasible is not an error but [`Infeasible`](crate::Status::Infeasible) with an infinite delay.
///
/// ```
/// use sft_opt::{Problem, Status, allocate_bandwidth};
///
/// let problem = Problem {
///     a_s: &[10.0, 0.0],
///     c_bits_per_bps_hz: &[2e6, 24e6],
///     total_hz: 3e6,
///     cap_hz: None,
/// };
/// let solution = allocate_bandwidth(&problem)?;
/// assert_eq!(solution.status, Status::Optimal);
/// assert!((solution.tau_s - 12.0).abs() < 1e-12);
/// assert!((solution.value.b_hz[0] - 1e6).abs() < 1e-6);
/// # Ok::<(), sft_opt::Error>(())
/// ```
pub fn allocate_bandwidth(problem: &Problem<'_>) -> Result<Solution<Bandwidths>> {
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
) -> Result<Solution<Bandwidths<&'b mut [f64]>>> {
    Ok(solve(problem, b_hz)?.with(b_hz))
}

fn solve(problem: &Problem<'_>, b_hz: &mut [f64]) -> Result<Solution<Bandwidths<()>>> {
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
    let steps = root.as_ref().map_or(0, |(root, _)| root.steps);
    let (u, Need { hz, slope }, regime) = match root {
        Some((root, exact)) => finish(problem, a_max, b_hz, &bounds, root.u, exact),
        None => cap_or_floor(problem, b_hz, bounds.fixed),
    };
    let tau_s = a_max + u;
    if !(tau_s.is_finite() && hz.is_finite() && slope > 0.0) {
        return Err(Error::Range { name: "tau_s" });
    }
    let scalars = Bandwidths {
        b_hz: (),
        tau_minus_amax_s: u,
        used_hz: hz,
        shadow_price_s_per_hz: match regime {
            Regime::Bandwidth => 1.0 / slope,
            _ => 0.0,
        },
        equality_feasible: problem.band_fits_caps(),
        regime: Some(regime),
    };
    Ok(Solution::optimal(scalars, tau_s, steps))
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
    /// Left of the root, positive and free of cancellation: `max c_n/W` where `δ_n = 0`.
    positive: f64,
}

/// Finds the bounds and leaves `δ_n` in `delta`.
fn lower_bounds(problem: &Problem<'_>, [a_max, idle]: [f64; 2], delta: &mut [f64]) -> Bounds {
    let c = problem.c_bits_per_bps_hz;
    write_delta(c, problem.a_s, a_max, delta);
    let [latest] = maxima(c, delta, |c, delta| [if delta == 0.0 { c } else { 0.0 }]);
    Bounds {
        fixed: (idle - a_max).max(cap_bound(problem, a_max)),
        positive: latest / problem.total_hz,
    }
}

/// Where to start: left of the root but for rounding, or near it on either side.
fn start(problem: &Problem<'_>, a_max: f64, delta: &[f64], positive: f64) -> f64 {
    let (c, a_s, total) = (problem.c_bits_per_bps_hz, problem.a_s, problem.total_hz);
    let all = c.len();
    if all < WORTH_A_SAMPLE {
        return left_of_root(c, a_s, total, a_max).max(positive);
    }
    // The root for some of the devices on their share of the band.
    let take = |list: &[f64]| -> [f64; SAMPLE] { std::array::from_fn(|k| list[k * all / SAMPLE]) };
    let (c, a_s, delta) = (take(c), take(a_s), take(delta));
    let total = total * (SAMPLE as f64 / all as f64);
    let start = left_of_root(&c, &a_s, total, a_max).max(positive);
    let sampled = search(start, positive, SAMPLE_STEP, |u| {
        let moments = moments(&c, &delta, u);
        (moments, moments[0] / total - 1.0)
    });
    sampled.map_or(start, |root| root.u)
}

/// The root is at least `c_n/W − δ_n`, device by device, and, as `1/(u + δ)` is convex in `δ`, at
/// least `Σc/W − Σcδ/Σc`.
fn left_of_root(c: &[f64], a_s: &[f64], total: f64, a_max: f64) -> f64 {
    let per_hz = 1.0 / total;
    let [alone] = maxima(c, a_s, |c, a| [if c > 0.0 { c * per_hz + a } else { 0.0 }]);
    let [c_sum, moment] = sums(c, a_s, |c, a| [c, c * a]);
    larger(alone - a_max, c_sum * per_hz + (moment / c_sum - a_max))
}

/// `δ_n`, infinite for devices without demand: their terms of `g` vanish by themselves.
fn write_delta(c: &[f64], a_s: &[f64], a_max: f64, delta: &mut [f64]) {
    for (delta, (&a, &c)) in delta.iter_mut().zip(a_s.iter().zip(c)) {
        *delta = if c > 0.0 { a_max - a } else { f64::INFINITY };
    }
}

/// `max_n c_n/cap_n − δ_n`, correct to rounding.
fn cap_bound(problem: &Problem<'_>, a_max: f64) -> f64 {
    let Some(caps) = problem.cap_hz else {
        return f64::NEG_INFINITY;
    };
    let mut best = f64::NEG_INFINITY;
    let pairs = problem.a_s.iter().zip(problem.c_bits_per_bps_hz);
    for (n, (&cap, (&a, &c))) in caps.iter().zip(pairs).enumerate() {
        let delta = a_max - a;
        // Only a candidate for the maximum, `c/cap − δ > best` but for rounding, is worth a
        // division.
        let rounding = 4.0 * f64::EPSILON * (best.abs() + delta);
        if c > (best + delta - rounding) * cap && c > 0.0 && cap < f64::INFINITY {
            best = best.max(problem.finish(n, cap, a_max));
        }
    }
    best
}

/// Where `g = W`, or left of it by at most about `0.15·y⁴`, if not clearly left of `u_lo`.
struct Root {
    u: f64,
    steps: u32,
}

/// Finds the root up to a last step, or exactly where sums without compensation are too coarse
/// for it: then `true`.
fn band_root(
    problem: &Problem<'_>,
    a_max: f64,
    delta: &[f64],
    bounds: &Bounds,
) -> Result<Option<(Root, bool)>> {
    let c = problem.c_bits_per_bps_hz;
    let total = problem.total_hz;
    let start = start(problem, a_max, delta, bounds.positive);
    if bounds.fixed > start && moments(c, delta, bounds.fixed)[0] < CLEARLY_LESS * total {
        return Ok(None);
    }
    let start = larger(start, bounds.fixed);
    let mut last = [0.0; 4];
    let root = search(start, bounds.positive, LAST_BUT_ONE, |u| {
        last = moments(c, delta, u);
        (last, last[0] / total - 1.0)
    })?;
    if total <= ILL_CONDITIONED * last[1] {
        return Ok(Some((root, false)));
    }
    let mut exact = search(root.u, bounds.positive, LAST_STEP, |u| {
        (moments(c, delta, u), excess(problem, a_max, u) / total)
    })?;
    exact.steps += root.steps;
    Ok(Some((exact, true)))
}

/// Steps to the root of `g = W`, given the moments of `t` and `g/W − 1` at `u`.
///
/// From a start right of the root the first step is negative and lands left of it. A later
/// negative step is rounding: the root is found.
fn search(
    start: f64,
    positive: f64,
    last_step: f64,
    mut eval: impl FnMut(f64) -> ([f64; 4], f64),
) -> Result<Root> {
    let mut u = start;
    for steps in 1..=MAX_STEPS {
        let (moments, excess) = eval(u);
        let y = relative_step(&moments, excess);
        if !(y.is_finite() && moments[0] > 0.0) {
            return Err(Error::Range { name: "tau_s" });
        }
        u = (u + u * y).max(positive);
        if y.abs() <= last_step || (steps > 1 && y < 0.0) {
            return Ok(Root { u, steps });
        }
    }
    Err(Error::Range { name: "tau_s" })
}

/// Bandwidth that all devices need together: `g(u)` and `−g'(u)`.
struct Need {
    hz: f64,
    slope: f64,
}

/// Takes the last step from `u` unless it is exact, chooses between the root and the other
/// bounds, and turns `δ` in place into the bandwidths.
fn finish(
    problem: &Problem<'_>,
    a_max: f64,
    b_hz: &mut [f64],
    bounds: &Bounds,
    mut u: f64,
    exact: bool,
) -> (f64, Need, Regime) {
    // A root that meets the other bounds to rounding is a tie, where more band gains nothing.
    let tie = bounds.fixed * (1.0 + 4.0 * f64::EPSILON);
    for _ in 0..MAX_STEPS {
        let moments = share_times(problem.c_bits_per_bps_hz, b_hz, u);
        let y = if exact {
            0.0
        } else {
            relative_step(&moments, moments[0] / problem.total_hz - 1.0)
        };
        let root = u + u * y;
        let found = root > tie && y.abs() <= LAST_STEP;
        // Not a number: `solve` says that no result can be represented.
        if found || y.is_nan() {
            let need = write_need(problem, b_hz, &moments, u, y);
            return (root, need, Regime::Bandwidth);
        }
        write_delta(problem.c_bits_per_bps_hz, problem.a_s, a_max, b_hz);
        if root <= tie {
            break;
        }
        u = root.max(bounds.positive);
    }
    cap_or_floor(problem, b_hz, bounds.fixed)
}

/// Turns `δ` in place into the bandwidths at `u`, which caps or devices without demand fix.
fn cap_or_floor(problem: &Problem<'_>, b_hz: &mut [f64], u: f64) -> (f64, Need, Regime) {
    let moments = share_times(problem.c_bits_per_bps_hz, b_hz, u);
    let need = write_need(problem, b_hz, &moments, u, 0.0);
    (u, need, Regime::CapOrFloor)
}

/// Turns `t` at `u` in place into the bandwidths at `u(1 + y)`, `y` at most [`LAST_STEP`]: all
/// series end before `y⁴`.
fn write_need(
    problem: &Problem<'_>,
    t: &mut [f64],
    &[m0, m1, m2, m3, m4]: &[f64; 5],
    u: f64,
    y: f64,
) -> Need {
    let [k0, k1, k2, k3] = [1.0, -y, y * y, -y * y * y].map(|k| k / u);
    for (b, &c) in t.iter_mut().zip(problem.c_bits_per_bps_hz) {
        let t = *b;
        *b = (c * t) * (k0 + t * (k1 + t * (k2 + t * k3)));
    }
    for (b, &cap) in t.iter_mut().zip(problem.cap_hz.unwrap_or_default()) {
        *b = b.min(cap);
    }
    Need {
        hz: m0 - y * (m1 - y * (m2 - y * m3)),
        slope: (m1 - y * (2.0 * m2 - y * (3.0 * m3 - y * 4.0 * m4))) / u,
    }
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

fn no_demand(problem: &Problem<'_>, b_hz: &mut [f64]) -> Solution<Bandwidths<()>> {
    b_hz.fill(0.0);
    let scalars = Bandwidths {
        b_hz: (),
        tau_minus_amax_s: 0.0,
        used_hz: 0.0,
        shadow_price_s_per_hz: 0.0,
        equality_feasible: problem.band_fits_caps(),
        regime: Some(Regime::NoDemand),
    };
    let last = problem.a_s.iter().copied().fold(0.0, f64::max);
    Solution::optimal(scalars, last, 0)
}

fn infeasible(b_hz: &mut [f64]) -> Solution<Bandwidths<()>> {
    b_hz.fill(0.0);
    Solution::infeasible(Constraint::Bandwidth).map(|_: Option<()>| Bandwidths {
        b_hz: (),
        tau_minus_amax_s: f64::INFINITY,
        used_hz: 0.0,
        shadow_price_s_per_hz: 0.0,
        equality_feasible: false,
        regime: None,
    })
}
