//! Slow, obvious references that tests compare the solver with.

#![allow(dead_code, reason = "every test file uses its own part")]

use sft_opt::{Problem, Regime, Solution};

/// `Σ xs` without accumulated rounding (Neumaier).
pub(crate) fn careful_sum(xs: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut low) = (0.0_f64, 0.0);
    for x in xs {
        let next = sum + x;
        low += if sum.abs() >= x.abs() {
            (sum - next) + x
        } else {
            (x - next) + sum
        };
        sum = next;
    }
    sum + low
}

pub(crate) fn cap(problem: &Problem<'_>, n: usize) -> f64 {
    problem.cap_hz.map_or(f64::INFINITY, |caps| caps[n])
}

pub(crate) fn demanding(problem: &Problem<'_>) -> impl Iterator<Item = usize> + Clone {
    let c = problem.c_bits_per_bps_hz;
    (0..c.len()).filter(|&n| c[n] > 0.0)
}

/// Largest `a_n` among devices with demand.
pub(crate) fn latest_start(problem: &Problem<'_>) -> f64 {
    demanding(problem)
        .map(|n| problem.a_s[n])
        .fold(f64::NEG_INFINITY, f64::max)
}

/// Bandwidth of device `n` that finishes at `a_max + u`, infinite if that is impossible.
fn need_hz(problem: &Problem<'_>, n: usize, u: f64) -> f64 {
    let time = u + (latest_start(problem) - problem.a_s[n]);
    let c = problem.c_bits_per_bps_hz[n];
    let hz = match (c > 0.0, time > 0.0) {
        (false, _) => return if time >= 0.0 { 0.0 } else { f64::INFINITY },
        (true, false) => f64::INFINITY,
        (true, true) => c / time,
    };
    if hz <= cap(problem, n) {
        hz
    } else {
        f64::INFINITY
    }
}

/// `u* = τ* − a_max` by bisection on whether `u` can be met, for problems that are feasible and
/// have demand.
pub(crate) fn bisect(problem: &Problem<'_>) -> f64 {
    let all = 0..problem.a_s.len();
    let met = |u: f64| careful_sum(all.clone().map(|n| need_hz(problem, n, u))) <= problem.total_hz;
    let (mut low, mut high) = (1e-200_f64, 1e200_f64);
    assert!(met(high) && !met(low));
    while high / low > 1.0 + 4.0 * f64::EPSILON {
        // Geometric: u may lie in any decade.
        let middle = low.sqrt() * high.sqrt();
        if middle <= low || middle >= high {
            break;
        }
        *(if met(middle) { &mut high } else { &mut low }) = middle;
    }
    high
}

/// How strongly a relative error of `Σ b` changes `u`, at the solution.
pub(crate) fn condition(problem: &Problem<'_>, u: f64) -> f64 {
    let a_max = latest_start(problem);
    let slope = careful_sum(
        demanding(problem)
            .map(|n| problem.c_bits_per_bps_hz[n] / (u + (a_max - problem.a_s[n])).powi(2)),
    );
    (problem.total_hz / (slope * u)).max(1.0)
}

/// Largest relative violation of the optimality conditions of P2: primal feasibility, equal
/// finishing times or a tight bound, multipliers `λ_n = ν·b_n²/c_n` that sum to 1.
///
/// The problem is convex, so 0 proves that the solution is optimal.
pub(crate) fn kkt_residual(problem: &Problem<'_>, solution: &Solution) -> f64 {
    let worst = |x: f64, y: f64| if y > x || y.is_nan() { y } else { x };
    match solution.regime {
        Regime::Infeasible => infeasible_residual(problem, solution),
        Regime::NoDemand => {
            let last = problem.a_s.iter().copied().fold(0.0, f64::max);
            let nothing = demanding(problem).next().is_none() && solution.used_hz == 0.0;
            if nothing && solution.tau_s.to_bits() == last.to_bits() {
                0.0
            } else {
                f64::INFINITY
            }
        }
        Regime::Bandwidth => worst(
            primal_residual(problem, solution),
            bandwidth_residual(problem, solution),
        ),
        Regime::CapOrFloor => {
            let tight = (0..problem.a_s.len())
                .map(|n| distance_to_tight(problem, solution, n))
                .fold(f64::INFINITY, f64::min);
            let free = if solution.shadow_price_s_per_hz == 0.0 {
                0.0
            } else {
                f64::INFINITY
            };
            worst(worst(primal_residual(problem, solution), tight), free)
        }
        _ => f64::NAN,
    }
}

fn infeasible_residual(problem: &Problem<'_>, solution: &Solution) -> f64 {
    let starved = problem.total_hz == 0.0 || demanding(problem).any(|n| cap(problem, n) == 0.0);
    let reported = solution.tau_s == f64::INFINITY && solution.used_hz == 0.0;
    let demand = demanding(problem).next().is_some();
    if starved && reported && demand {
        0.0
    } else {
        f64::INFINITY
    }
}

/// `τ − a_n`.
fn time_left(problem: &Problem<'_>, solution: &Solution, n: usize) -> f64 {
    solution.tau_minus_amax_s + (latest_start(problem) - problem.a_s[n])
}

/// Relative gap between the time device `n` takes and the time it has.
fn lateness(problem: &Problem<'_>, solution: &Solution, n: usize) -> f64 {
    problem.c_bits_per_bps_hz[n] / solution.b_hz[n] / time_left(problem, solution, n) - 1.0
}

fn primal_residual(problem: &Problem<'_>, solution: &Solution) -> f64 {
    let sum = careful_sum(solution.b_hz.iter().copied());
    let devices = (0..problem.a_s.len()).map(|n| {
        let over_cap = solution.b_hz[n] / cap(problem, n) - 1.0;
        if problem.c_bits_per_bps_hz[n] > 0.0 {
            lateness(problem, solution, n).max(over_cap)
        } else if solution.b_hz[n] == 0.0 {
            -time_left(problem, solution, n) / solution.tau_minus_amax_s
        } else {
            f64::INFINITY
        }
    });
    let used = (solution.used_hz / sum - 1.0).abs();
    devices.fold(used.max(sum / problem.total_hz - 1.0), f64::max)
}

fn bandwidth_residual(problem: &Problem<'_>, solution: &Solution) -> f64 {
    let price = solution.shadow_price_s_per_hz;
    let lambda = careful_sum(
        demanding(problem).map(|n| price * solution.b_hz[n].powi(2) / problem.c_bits_per_bps_hz[n]),
    );
    let sum = careful_sum(solution.b_hz.iter().copied());
    demanding(problem)
        .map(|n| lateness(problem, solution, n).abs())
        .fold(
            (lambda - 1.0)
                .abs()
                .max((sum / problem.total_hz - 1.0).abs()),
            f64::max,
        )
}

fn distance_to_tight(problem: &Problem<'_>, solution: &Solution, n: usize) -> f64 {
    if problem.c_bits_per_bps_hz[n] == 0.0 {
        return (time_left(problem, solution, n) / solution.tau_minus_amax_s).abs();
    }
    let at_cap = (solution.b_hz[n] / cap(problem, n) - 1.0).abs();
    at_cap.max(lateness(problem, solution, n).abs())
}
