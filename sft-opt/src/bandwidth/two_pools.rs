//! Two resources shared at once: uplink and downlink bands, or band and server.

use serde::Serialize;

use super::bandwidths::Regime;
use super::capped_pools::{Device, shares_at};
use super::one_pool::allocate_bandwidth_into;
use super::problem::Problem;
use crate::error::{Error, NOT_NEGATIVE, Result, check_entries, check_len, check_size};
use crate::solution::{Constraint, Solution};

/// The min–max problem with two pools: over `x, y ≥ 0`,
///
/// ```text
/// minimise max_n a_n + u_n/x_n + d_n/y_n
/// subject to Σ x_n ≤ X,  Σ y_n ≤ Y,  x_n ≤ xcap_n,  y_n ≤ ycap_n
/// ```
///
/// with `0/0 = 0`. Uplink and downlink of frequency-division duplex: `u`, `d` in bits over
/// spectral efficiency, `X`, `Y` in Hz. Band and server: `u` as before, `d` in FLOP, `Y` in
/// FLOP/s.
#[derive(Clone, Copy, Debug)]
pub struct TwoPools<'a> {
    /// Delay that neither pool changes, `a_n`, in seconds; finite and at least 0.
    pub a_s: &'a [f64],
    /// Demands `u` and `d`, one entry per device, finite and at least 0.
    pub demands: [&'a [f64]; 2],
    /// Pools `X` and `Y`, finite and at least 0.
    pub totals: [f64; 2],
    /// Most that each device can use of either pool, at least 0, `f64::INFINITY` for a device
    /// without a cap; `None` if nobody has one.
    pub caps: [Option<&'a [f64]>; 2],
}

/// Shares of two pools.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shares {
    /// Every device's share of either pool, in the pool's unit; all 0 if infeasible.
    pub shares: [Vec<f64>; 2],
    /// `τ − a_max` in seconds, `a_max` the largest `a_n` among devices with demand.
    pub tau_minus_amax_s: f64,
    /// [`Regime::Bandwidth`] where more of a pool would shorten the delay,
    /// [`Regime::CapOrFloor`] where a device at its caps or without demand fixes it; `None` if
    /// infeasible.
    pub regime: Option<Regime>,
}

/// Far above what is needed: bisection ends at neighbouring doubles.
const MAX_STEPS: u32 = 2_000;
/// Relative distance at which a delay is that of a device at its caps.
const TIE: f64 = 1e-12;

/// Solves the problem of two pools exactly, see [`TwoPools`].
///
/// With `s_n = τ − a_n`, `p = u/X`, `r = d/Y` and sums over devices, `τ` can be met iff
/// `Σp/s ≤ 1`, `Σr/s ≤ 1` and `(1 − Σp/s)(1 − Σr/s) ≥ (Σ√(pr)/s)²` (Cauchy–Schwarz). Bisection
/// to the last bit between the P2 solutions of `(p + r)/2` and `(√p + √r)²` on a band of 1;
/// then `x_n = X(p_n + κ√(p_n r_n))/s_n`, `y_n = Y(r_n + √(p_n r_n)/κ)/s_n` with
/// `κ = (1 − Σp/s)/(Σ√(pr)/s)`. `O(N)` per step, about 60 steps.
///
/// If these shares break a cap, a second bisection, upwards from the `τ` found: `x_n(κ)` is
/// clamped between what the cap of the second pool demands and the cap of the first, `κ` uses up
/// the first pool (the root of a piecewise linear function), and `τ` can be met iff the second
/// pool then suffices. `O(N)` per step of either search, about 60 times 5 steps.
///
/// # Errors
/// Lists without one entry per device, no device, entries outside the ranges of [`TwoPools`];
/// magnitudes whose results a double cannot hold.
pub fn allocate_two_pools(problem: &TwoPools<'_>) -> Result<Solution<Shares>> {
    validate(problem)?;
    let free = without_caps(problem)?;
    let within = |k: usize| {
        problem.caps[k]
            .is_none_or(|caps| (free.value.shares[k].iter().zip(caps)).all(|(x, cap)| x <= cap))
    };
    if free.status.constraint().is_some() || (within(0) && within(1)) {
        return Ok(free);
    }
    with_caps(problem, &free)
}

/// The problem without its caps.
fn without_caps(problem: &TwoPools<'_>) -> Result<Solution<Shares>> {
    let n = problem.a_s.len();
    if starved(problem, 0) || starved(problem, 1) {
        return Ok(infeasible(n));
    }
    let needs = Needs::new(problem);
    let enough = needs.enough.iter().copied();
    let high = bound(problem, enough)?;
    if high.regime != Some(Regime::Bandwidth) {
        return Ok(needs.finish(problem, high.u, high, 0));
    }
    let half = (0..n).map(|i| 0.5 * (needs.first[i] + needs.second[i]));
    let low = bound(problem, half)?.u;
    let (u, iterations) = needs.bisect(problem, high.a_max, low.min(high.u), high.u);
    Ok(needs.finish(problem, u, high, iterations))
}

fn infeasible(devices: usize) -> Solution<Shares> {
    Solution::infeasible(Constraint::Bandwidth).map(|_: Option<()>| Shares {
        shares: [vec![0.0; devices], vec![0.0; devices]],
        tau_minus_amax_s: f64::INFINITY,
        regime: None,
    })
}

/// The problem whose solution without caps, `free`, breaks one.
fn with_caps(problem: &TwoPools<'_>, free: &Solution<Shares>) -> Result<Solution<Shares>> {
    let n = problem.a_s.len();
    if dead(problem, 0) || dead(problem, 1) {
        return Ok(infeasible(n));
    }
    let demanding: Vec<usize> = (0..n)
        .filter(|&n| problem.demands.iter().any(|demands| demands[n] > 0.0))
        .collect();
    let a_max = (demanding.iter()).fold(0.0, |max: f64, &n| max.max(problem.a_s[n]));
    let devices: Vec<Device> = (demanding.iter())
        .map(|&n| Device {
            delta: a_max - problem.a_s[n],
            demand: [0, 1].map(|k| over(problem.demands[k][n], problem.totals[k])),
            cap: [0, 1].map(|k| {
                let part = |caps: &[f64]| over(caps[n], problem.totals[k]);
                problem.caps[k].map_or(f64::INFINITY, part)
            }),
        })
        .collect();
    let alone = devices.iter().map(Device::alone).fold(0.0, f64::max);
    let (u, parts, iterations) = least_delay(&devices, alone.max(free.value.tau_minus_amax_s))?;
    let mut shares = [vec![0.0; n], vec![0.0; n]];
    for (&n, part) in demanding.iter().zip(parts) {
        for k in 0..2 {
            shares[k][n] = part[k] * problem.totals[k];
        }
    }
    let value = &free.value;
    let fixed = value.regime == Some(Regime::CapOrFloor) && u <= value.tau_minus_amax_s;
    let regime = if fixed || u <= alone * (1.0 + TIE) {
        Regime::CapOrFloor
    } else {
        Regime::Bandwidth
    };
    let value = Shares {
        shares,
        tau_minus_amax_s: u,
        regime: Some(regime),
    };
    Ok(Solution::optimal(value, a_max + u, iterations))
}

/// `x/total`, 0 where there is no pool because nobody asks it.
fn over(x: f64, total: f64) -> f64 {
    if total > 0.0 { x / total } else { 0.0 }
}

/// Whether a device with demand may have nothing.
fn dead(problem: &TwoPools<'_>, pool: usize) -> bool {
    let zero = |caps: &[f64]| {
        (caps.iter().zip(problem.demands[pool])).any(|(&cap, &demand)| cap == 0.0 && demand > 0.0)
    };
    problem.caps[pool].is_some_and(zero)
}

/// Least `u` that can be met, from a bound below, with its shares.
fn least_delay(devices: &[Device], low: f64) -> Result<(f64, Vec<[f64; 2]>, u32)> {
    if let Some(parts) = shares_at(devices, low) {
        return Ok((low, parts, 0));
    }
    let (mut low, mut high, mut parts) = (low, 2.0 * low, None);
    for step in 0..MAX_STEPS {
        let trial = if parts.is_none() {
            high
        } else {
            f64::midpoint(low, high)
        };
        if let Some(best) = parts.take_if(|_| trial <= low || trial >= high) {
            return Ok((high, best, step));
        }
        match shares_at(devices, trial) {
            found @ Some(_) => (high, parts) = (trial, found),
            None if parts.is_none() => (low, high) = (trial, 2.0 * trial),
            None => low = trial,
        }
        if !high.is_finite() {
            break;
        }
    }
    Err(Error::Range { name: "tau_s" })
}

fn validate(problem: &TwoPools<'_>) -> Result<()> {
    let n = problem.a_s.len();
    if n == 0 {
        return Err(Error::NoDevices);
    }
    check_entries("a_s", problem.a_s, f64::MAX, NOT_NEGATIVE)?;
    for (name, demands) in ["demands[0]", "demands[1]"]
        .into_iter()
        .zip(problem.demands)
    {
        check_len(name, demands.len(), n)?;
        check_entries(name, demands, f64::MAX, NOT_NEGATIVE)?;
    }
    for (name, caps) in ["caps[0]", "caps[1]"].into_iter().zip(problem.caps) {
        if let Some(caps) = caps {
            check_len(name, caps.len(), n)?;
            check_entries(name, caps, f64::INFINITY, "at least 0")?;
        }
    }
    check_size("totals[0]", problem.totals[0])?;
    check_size("totals[1]", problem.totals[1])
}

fn starved(problem: &TwoPools<'_>, pool: usize) -> bool {
    problem.totals[pool] == 0.0 && problem.demands[pool].iter().any(|&d| d > 0.0)
}

/// A P2 problem on a band of 1 whose solution bounds the one searched.
#[derive(Clone, Copy)]
struct Bound {
    /// `τ − a_max`.
    u: f64,
    a_max: f64,
    tau_s: f64,
    regime: Option<Regime>,
}

fn bound(problem: &TwoPools<'_>, demands: impl Iterator<Item = f64>) -> Result<Bound> {
    let demands: Vec<f64> = demands.collect();
    let mut shares = vec![0.0; demands.len()];
    let single = Problem {
        a_s: problem.a_s,
        c_bits_per_bps_hz: &demands,
        total_hz: 1.0,
        cap_hz: None,
    };
    if demands.iter().any(|d| !d.is_finite()) {
        return Err(Error::Range { name: "tau_s" });
    }
    let solution = allocate_bandwidth_into(&single, &mut shares)?;
    let latest = |wanted: bool| {
        (problem.a_s.iter().zip(&demands))
            .filter(|&(_, &d)| (d > 0.0) == wanted)
            .fold(f64::NEG_INFINITY, |max, (&a, _)| max.max(a))
    };
    let a_max = latest(true);
    Ok(Bound {
        u: solution.value.tau_minus_amax_s,
        a_max: if a_max.is_finite() {
            a_max
        } else {
            latest(false)
        },
        tau_s: solution.tau_s,
        regime: solution.value.regime,
    })
}

/// Demands over pools.
struct Needs {
    /// `p = u/X`.
    first: Vec<f64>,
    /// `r = d/Y`.
    second: Vec<f64>,
    /// `√(pr)`.
    both: Vec<f64>,
    /// `(√p + √r)²`: with this much, splitting either pool alike is enough.
    enough: Vec<f64>,
}

impl Needs {
    fn new(problem: &TwoPools<'_>) -> Self {
        let parts = |pool: usize| -> Vec<f64> {
            let total = problem.totals[pool];
            problem.demands[pool]
                .iter()
                .map(|&d| over(d, total))
                .collect()
        };
        let (first, second) = (parts(0), parts(1));
        let both: Vec<f64> = (first.iter().zip(&second))
            .map(|(p, r)| p.sqrt() * r.sqrt())
            .collect();
        let enough = (0..both.len())
            .map(|n| first[n] + second[n] + 2.0 * both[n])
            .collect();
        Self {
            first,
            second,
            both,
            enough,
        }
    }

    /// `Σp/s`, `Σr/s`, `Σ√(pr)/s` at `u`.
    fn sums(&self, problem: &TwoPools<'_>, a_max: f64, u: f64) -> [f64; 3] {
        let mut sums = [0.0; 3];
        for (n, &a) in problem.a_s.iter().enumerate() {
            if self.enough[n] > 0.0 {
                let per_s = 1.0 / (u + (a_max - a));
                sums[0] += self.first[n] * per_s;
                sums[1] += self.second[n] * per_s;
                sums[2] += self.both[n] * per_s;
            }
        }
        sums
    }

    /// Least `u` that can be met, between `low` and a `high` that can.
    fn bisect(
        &self,
        problem: &TwoPools<'_>,
        a_max: f64,
        mut low: f64,
        mut high: f64,
    ) -> (f64, u32) {
        for step in 0..MAX_STEPS {
            let middle = f64::midpoint(low, high);
            if middle <= low || middle >= high {
                return (high, step);
            }
            let [first, second, both] = self.sums(problem, a_max, middle);
            let (left, right) = (1.0 - first, 1.0 - second);
            let met = left >= 0.0 && right >= 0.0 && left * right >= both * both;
            *(if met { &mut high } else { &mut low }) = middle;
        }
        (high, MAX_STEPS)
    }

    fn finish(
        &self,
        problem: &TwoPools<'_>,
        u: f64,
        bound: Bound,
        iterations: u32,
    ) -> Solution<Shares> {
        let [first, _, both] = self.sums(problem, bound.a_max, u);
        let kappa = if both > 0.0 {
            (1.0 - first) / both
        } else {
            1.0
        };
        let share = |n: usize, own: &[f64], factor: f64| {
            let needed = own[n] + factor * self.both[n];
            if needed > 0.0 {
                needed / (u + (bound.a_max - problem.a_s[n]))
            } else {
                0.0
            }
        };
        let all = 0..problem.a_s.len();
        let tau_s = if iterations == 0 {
            bound.tau_s
        } else {
            bound.a_max + u
        };
        let value = Shares {
            shares: [
                (all.clone())
                    .map(|n| problem.totals[0] * share(n, &self.first, kappa))
                    .collect(),
                all.map(|n| problem.totals[1] * share(n, &self.second, 1.0 / kappa))
                    .collect(),
            ],
            tau_minus_amax_s: u,
            regime: bound.regime,
        };
        Solution::optimal(value, tau_s, iterations)
    }
}
