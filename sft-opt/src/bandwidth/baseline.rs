//! Allocations the exact one is compared with: given, even, proportional, random.

use super::bandwidths::Bandwidths;
use super::problem::Problem;
use crate::error::{NOT_NEGATIVE, Result, check_entries, check_len};
use crate::numeric::random::{Purpose, exponential, stream};
use crate::solution::{Constraint, Solution, Status};

/// Evaluates a given allocation: its delay and the bandwidth it uses; `O(N)`.
///
/// The status is [`Status::Given`], or [`Status::Infeasible`] where a device with demand has no
/// bandwidth. Limits are not enforced: compare `used_hz` with the band.
///
/// # Errors
/// As [`allocate_bandwidth`](crate::allocate_bandwidth); bandwidths that are not one per
/// device, finite and at least 0.
pub fn evaluate_allocation(problem: &Problem<'_>, b_hz: Vec<f64>) -> Result<Solution<Bandwidths>> {
    problem.validate()?;
    check_len("b_hz", b_hz.len(), problem.a_s.len())?;
    check_entries("b_hz", &b_hz, f64::MAX, NOT_NEGATIVE)?;
    let demanding = |n: &usize| problem.c_bits_per_bps_hz[*n] > 0.0;
    let all = 0..b_hz.len();
    let largest = |a: f64, n: usize| a.max(problem.a_s[n]);
    let mut a_max = all
        .clone()
        .filter(demanding)
        .fold(f64::NEG_INFINITY, largest);
    if a_max == f64::NEG_INFINITY {
        a_max = all.clone().fold(a_max, largest);
    }
    let u = all
        .map(|n| problem.finish(n, b_hz[n], a_max))
        .fold(f64::NEG_INFINITY, f64::max);
    let feasible = u.is_finite();
    Ok(Solution {
        tau_s: a_max + u,
        bound_s: 0.0,
        status: if feasible {
            Status::Given
        } else {
            Status::Infeasible(Constraint::Bandwidth)
        },
        iterations: 0,
        value: Bandwidths {
            tau_minus_amax_s: u,
            used_hz: b_hz.iter().sum(),
            shadow_price_s_per_hz: 0.0,
            equality_feasible: feasible && problem.band_fits_caps(),
            regime: None,
            b_hz,
        },
    })
}

/// The even baseline: the same bandwidth `W/N` for every device, with or without demand;
/// `O(N log N)`.
///
/// What a capped device cannot take is shared evenly among the others.
///
/// # Errors
/// As [`allocate_bandwidth`](crate::allocate_bandwidth).
pub fn allocate_even(problem: &Problem<'_>) -> Result<Solution<Bandwidths>> {
    problem.validate()?;
    let weights = vec![1.0; problem.a_s.len()];
    evaluate_allocation(problem, share(problem, &weights))
}

/// The proportional baseline: bandwidth in proportion to demand, `b_n = W·c_n/Σc`, so that
/// all transfers take the same time; `O(N log N)`.
///
/// What a capped device cannot take is shared among the others in proportion to their demands.
///
/// # Errors
/// As [`allocate_bandwidth`](crate::allocate_bandwidth).
pub fn allocate_proportional(problem: &Problem<'_>) -> Result<Solution<Bandwidths>> {
    problem.validate()?;
    let b_hz = share(problem, problem.c_bits_per_bps_hz);
    evaluate_allocation(problem, b_hz)
}

/// The random baseline: bandwidths uniform on the simplex `Σ b_n = W`, fixed by `seed`;
/// `O(N log N)`.
///
/// What a capped device cannot take is shared among the others in proportion to their draws.
///
/// # Errors
/// As [`allocate_bandwidth`](crate::allocate_bandwidth).
pub fn allocate_random(problem: &Problem<'_>, seed: u64) -> Result<Solution<Bandwidths>> {
    problem.validate()?;
    let mut rng = stream(seed, Purpose::Allocation, 0);
    let weights: Vec<f64> = (problem.a_s.iter())
        .map(|_| exponential(&mut rng))
        .collect();
    evaluate_allocation(problem, share(problem, &weights))
}

/// `b_n = min(cap_n, t·w_n)` with the level `t` at which the band, or every cap, is used up.
pub(crate) fn share(problem: &Problem<'_>, weights: &[f64]) -> Vec<f64> {
    // A device without weight never reaches its cap, not even one of 0.
    let level = |n: usize| match weights[n] {
        0.0 => f64::INFINITY,
        weight => problem.cap(n) / weight,
    };
    let mut order: Vec<usize> = (0..weights.len()).collect();
    // Devices that reach their cap first come first.
    order.sort_by(|&m, &n| level(m).total_cmp(&level(n)));
    let mut weight_left = vec![0.0; weights.len()];
    let mut sum = 0.0;
    for (place, &n) in order.iter().enumerate().rev() {
        sum += weights[n];
        weight_left[place] = sum;
    }
    let mut left_hz = problem.total_hz;
    let mut b_hz = vec![0.0; weights.len()];
    for (&n, weight_left) in order.iter().zip(weight_left) {
        if weights[n] > 0.0 {
            b_hz[n] = problem.cap(n).min(left_hz * (weights[n] / weight_left));
        }
        left_hz -= b_hz[n];
    }
    b_hz
}
