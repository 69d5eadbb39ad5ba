//! Slow, obvious references that tests compare the solver with.

#![allow(dead_code, reason = "every test file uses its own part")]

pub(crate) mod joint;
pub(crate) mod system;

use sft_opt::bandwidth::{Bandwidths, Regime};
use sft_opt::{Problem, Solution, Status};

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
fn need_hz(problem: &Problem<'_>, a_max: f64, n: usize, u: f64) -> f64 {
    let time = u + (a_max - problem.a_s[n]);
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
    let a_max = latest_start(problem);
    let met = |u: f64| {
        careful_sum(all.clone().map(|n| need_hz(problem, a_max, n, u))) <= problem.total_hz
    };
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
pub(crate) fn kkt_residual(problem: &Problem<'_>, solution: &Solution<Bandwidths>) -> f64 {
    let answer = Answer {
        problem,
        solution,
        a_max: latest_start(problem),
    };
    match (solution.status, solution.value.regime) {
        (Status::Infeasible(_), None) => unless(answer.is_infeasible()),
        (Status::Optimal, Some(Regime::NoDemand)) => unless(answer.has_no_demand()),
        (Status::Optimal, Some(Regime::Bandwidth)) => worse(answer.primal(), answer.band_binds()),
        (Status::Optimal, Some(Regime::CapOrFloor)) => {
            let free = unless(solution.value.shadow_price_s_per_hz == 0.0);
            worse(worse(answer.primal(), answer.something_binds()), free)
        }
        _ => f64::NAN,
    }
}

fn unless(ok: bool) -> f64 {
    if ok { 0.0 } else { f64::INFINITY }
}

/// The larger one; a NaN is worst.
fn worse(x: f64, y: f64) -> f64 {
    if y > x || y.is_nan() { y } else { x }
}

struct Answer<'a> {
    problem: &'a Problem<'a>,
    solution: &'a Solution<Bandwidths>,
    a_max: f64,
}

impl Answer<'_> {
    fn is_infeasible(&self) -> bool {
        let starved = self.problem.total_hz == 0.0
            || demanding(self.problem).any(|n| cap(self.problem, n) == 0.0);
        let reported = self.solution.tau_s == f64::INFINITY && self.solution.value.used_hz == 0.0;
        starved && reported && self.a_max > f64::NEG_INFINITY
    }

    fn has_no_demand(&self) -> bool {
        let last = self.problem.a_s.iter().copied().fold(0.0, f64::max);
        let nothing = self.a_max == f64::NEG_INFINITY && self.solution.value.used_hz == 0.0;
        nothing && self.solution.tau_s.to_bits() == last.to_bits()
    }

    /// `τ − a_n`.
    fn time(&self, n: usize) -> f64 {
        self.solution.value.tau_minus_amax_s + (self.a_max - self.problem.a_s[n])
    }

    /// Relative gap between the time device `n` takes and the time it has.
    fn lateness(&self, n: usize) -> f64 {
        self.problem.c_bits_per_bps_hz[n] / self.solution.value.b_hz[n] / self.time(n) - 1.0
    }

    fn sum_hz(&self) -> f64 {
        careful_sum(self.solution.value.b_hz.iter().copied())
    }

    /// Nobody late, nobody above a cap, the band not exceeded, the sum as reported.
    fn primal(&self) -> f64 {
        let sum = self.sum_hz();
        let used = (self.solution.value.used_hz / sum - 1.0).abs();
        let device = |n: usize| {
            let over_cap = self.solution.value.b_hz[n] / cap(self.problem, n) - 1.0;
            if self.problem.c_bits_per_bps_hz[n] > 0.0 {
                worse(self.lateness(n), over_cap)
            } else {
                let late = -self.time(n) / self.solution.value.tau_minus_amax_s;
                worse(late, unless(self.solution.value.b_hz[n] == 0.0))
            }
        };
        let band = worse(used, sum / self.problem.total_hz - 1.0);
        (0..self.problem.a_s.len()).map(device).fold(band, worse)
    }

    /// All of the band is used, all demanding devices finish together, multipliers sum to 1.
    fn band_binds(&self) -> f64 {
        let b = &self.solution.value.b_hz;
        let share = |n: usize| b[n].powi(2) / self.problem.c_bits_per_bps_hz[n];
        let lambda = self.solution.value.shadow_price_s_per_hz
            * careful_sum(demanding(self.problem).map(share));
        let band = (self.sum_hz() / self.problem.total_hz - 1.0).abs();
        demanding(self.problem)
            .map(|n| self.lateness(n).abs())
            .fold(worse((lambda - 1.0).abs(), band), worse)
    }

    /// Some device cannot finish earlier at any band: at its cap, or without demand.
    fn something_binds(&self) -> f64 {
        let distance = |n: usize| {
            if self.problem.c_bits_per_bps_hz[n] == 0.0 {
                return (self.time(n) / self.solution.value.tau_minus_amax_s).abs();
            }
            let at_cap = (self.solution.value.b_hz[n] / cap(self.problem, n) - 1.0).abs();
            worse(at_cap, self.lateness(n).abs())
        };
        (0..self.problem.a_s.len())
            .map(distance)
            .fold(f64::INFINITY, f64::min)
    }
}
