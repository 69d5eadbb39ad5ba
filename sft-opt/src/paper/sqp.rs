//! Algorithm 3: bandwidths by sequential programming, with a floor and a certificate.

use clarabel::algebra::CscMatrix;
use clarabel::solver::{
    DefaultSettings, DefaultSolver, IPSolver, SolverStatus, SupportedConeT::NonnegativeConeT,
};
use serde::{Deserialize, Serialize};

use crate::bandwidth::{Problem, share};
use crate::error::{Error, Result, check};
use crate::solution::{Constraint, Solution, Status};

/// Settings of [`sqp`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Sqp {
    /// Largest gap between the best delay and the lower bound, of `τ − a_max`, at which the run
    /// ends; above 0. Default 1e-9.
    pub tolerance: f64,
    /// Most linear programs, at least 1. Default 100.
    pub max_iterations: u32,
    /// Least bandwidth of a demanding device in the first step, of `W/N`, above 0 and below 1;
    /// a later step may go on to a tenth of a device's bandwidth. Default 8e-4.
    pub floor: f64,
}

impl Default for Sqp {
    fn default() -> Self {
        Self {
            tolerance: 1e-9,
            max_iterations: 100,
            floor: 8e-4,
        }
    }
}

/// The best allocation that [`sqp`] met.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SqpPoint {
    /// Bandwidth of every device in Hz.
    pub b_hz: Vec<f64>,
    /// `τ − a_max` in seconds, `a_max` the largest `a_n` among devices with demand.
    pub tau_minus_amax_s: f64,
    /// A lower bound of the optimal `τ − a_max`, from the linear programs.
    pub bound_minus_amax_s: f64,
}

/// A step may leave a device this part of its bandwidth.
const LEAST_STEP: f64 = 0.1;

/// Solves P2 by the paper's Algorithm 3, made safe: [`allocate_bandwidth`] gives the same
/// optimum faster.
///
/// Variables, objective, constraints: as [`Problem`]. From the even split, each iteration solves
/// the linear program (34), `min τ` subject to `τ_n + ∇τ_n·Δb_n ≤ τ`, `Σ b_n ≤ W`,
/// `floor_n ≤ b_n ≤ cap_n`, and takes the full step: Newton's method on the equalisation of the
/// delays. As `τ_n` is convex in `b_n`, the program's value bounds the optimum from below as
/// long as no floor is active, which also proves how good the best allocation is. The printed
/// (34b) allows `b_n = 0`, where the delay is infinite; hence the floors.
///
/// One sparse program of `N + 1` variables per iteration, by Clarabel; usually 5 to 15. The run is
/// [`Status::Optimal`] with a gap within the tolerance, [`Status::Stalled`] where a program could not
/// be solved to its own.
///
/// # Errors
/// As [`allocate_bandwidth`]; settings outside their ranges.
///
/// [`allocate_bandwidth`]: crate::allocate_bandwidth
pub fn sqp(problem: &Problem<'_>, settings: &Sqp) -> Result<Solution<SqpPoint>> {
    problem.validate()?;
    settings.validate()?;
    let c = problem.c_bits_per_bps_hz;
    let demanding: Vec<usize> = (0..c.len()).filter(|&n| c[n] > 0.0).collect();
    if demanding.is_empty() || problem.is_infeasible() {
        return Ok(trivial(problem, demanding.is_empty()));
    }
    let mut run = Run::new(problem, settings, demanding);
    let mut status = Status::IterationLimit;
    while run.iterations < settings.max_iterations {
        if !run.step()? {
            status = Status::Stalled;
            break;
        }
        if run.best_u - run.bound_u <= settings.tolerance * run.best_u {
            status = Status::Optimal;
            break;
        }
    }
    Ok(Solution {
        tau_s: run.a_max + run.best_u,
        bound_s: run.a_max + run.bound_u,
        status,
        iterations: run.iterations,
        value: SqpPoint {
            b_hz: run.best_hz,
            tau_minus_amax_s: run.best_u,
            bound_minus_amax_s: run.bound_u,
        },
    })
}

impl Sqp {
    fn validate(&self) -> Result<()> {
        let positive = self.tolerance > 0.0 && self.tolerance.is_finite();
        check(positive, "tolerance", self.tolerance, "finite and positive")?;
        let most = self.max_iterations;
        check(most >= 1, "max_iterations", most.into(), "at least 1")?;
        let legal = self.floor > 0.0 && self.floor < 1.0;
        check(legal, "floor", self.floor, "above 0 and below 1")
    }
}

fn trivial(problem: &Problem<'_>, no_demand: bool) -> Solution<SqpPoint> {
    let latest = problem.a_s.iter().copied().fold(0.0, f64::max);
    let u = if no_demand { 0.0 } else { f64::INFINITY };
    let point = SqpPoint {
        b_hz: vec![0.0; problem.a_s.len()],
        tau_minus_amax_s: u,
        bound_minus_amax_s: u,
    };
    if no_demand {
        Solution::optimal(point, latest, 0)
    } else {
        Solution::infeasible(Constraint::Bandwidth).map(|_: Option<()>| point)
    }
}

struct Run<'a> {
    problem: &'a Problem<'a>,
    /// `floor·W/N` in Hz.
    floor_hz: f64,
    demanding: Vec<usize>,
    a_max: f64,
    /// Largest `a_m − a_max` among devices without demand.
    least_u: f64,
    b_hz: Vec<f64>,
    best_hz: Vec<f64>,
    best_u: f64,
    bound_u: f64,
    iterations: u32,
}

impl<'a> Run<'a> {
    fn new(problem: &'a Problem<'a>, settings: &Sqp, demanding: Vec<usize>) -> Self {
        let c = problem.c_bits_per_bps_hz;
        let weights: Vec<f64> = (c.iter())
            .map(|&c| if c > 0.0 { 1.0 } else { 0.0 })
            .collect();
        let a_max = (demanding.iter())
            .map(|&n| problem.a_s[n])
            .fold(f64::NEG_INFINITY, f64::max);
        let least_u = (problem.a_s.iter().zip(c))
            .filter(|&(_, &c)| c == 0.0)
            .map(|(a, _)| a - a_max)
            .fold(f64::NEG_INFINITY, f64::max);
        let b_hz = share(problem, &weights);
        let mut run = Self {
            floor_hz: settings.floor * problem.total_hz / demanding.len() as f64,
            problem,
            demanding,
            a_max,
            least_u,
            best_hz: b_hz.clone(),
            b_hz,
            best_u: f64::INFINITY,
            bound_u: least_u.max(0.0),
            iterations: 0,
        };
        run.keep_best();
        run
    }

    /// `τ − a_max` of the present allocation.
    fn slowest(&self) -> f64 {
        (self.demanding.iter())
            .map(|&n| self.problem.finish(n, self.b_hz[n], self.a_max))
            .fold(self.least_u, f64::max)
    }

    fn keep_best(&mut self) -> f64 {
        let u = self.slowest();
        if u < self.best_u {
            self.best_u = u;
            self.best_hz.copy_from_slice(&self.b_hz);
        }
        u
    }

    /// One linear program and its full step; whether it could be solved.
    fn step(&mut self) -> Result<bool> {
        let scale = self.slowest();
        let program = Program::new(self, scale);
        self.iterations += 1;
        let Some(x) = program.solve()? else {
            return Ok(false);
        };
        let mut floored = false;
        for (k, &n) in self.demanding.iter().enumerate() {
            let (low, high) = program.limits[k];
            floored |= x[k] <= low * (1.0 + 1e-6) && low * self.b_hz[n] < self.problem.cap(n);
            self.b_hz[n] *= x[k].clamp(low, high);
        }
        let sum: f64 = self.demanding.iter().map(|&n| self.b_hz[n]).sum();
        let over = (self.problem.total_hz / sum).min(1.0);
        self.b_hz.iter_mut().for_each(|b| *b *= over);
        if !floored {
            self.bound_u = self.bound_u.max(scale * x[self.demanding.len()]);
        }
        self.keep_best();
        Ok(true)
    }
}

/// The linear program (34) in `v_n = b_n/b_n^k` and `t = (τ − a_max)/scale`.
struct Program {
    matrix: CscMatrix<f64>,
    right: Vec<f64>,
    /// Least and largest `v_n`.
    limits: Vec<(f64, f64)>,
}

impl Program {
    fn new(run: &Run<'_>, scale: f64) -> Self {
        let (problem, n) = (run.problem, run.demanding.len());
        // Rows: N tangents, N floors, the band, the device without demand, then caps.
        let (band, least) = (2 * n, 2 * n + 1);
        let mut right = vec![0.0; 2 * n + 2];
        let (mut starts, mut rows, mut values) = (vec![0], Vec::new(), Vec::new());
        let mut tangents = Vec::with_capacity(n);
        let mut limits = Vec::with_capacity(n);
        right[band] = 1.0;
        for (k, &device) in run.demanding.iter().enumerate() {
            let b = run.b_hz[device];
            let time = problem.c_bits_per_bps_hz[device] / b / scale;
            let start = (problem.a_s[device] - run.a_max) / scale;
            // Tangent: start + 2·time − time·v ≤ t, over its largest coefficient.
            let unit = time.max(1.0);
            let limit = (run.floor_hz / b).min(LEAST_STEP);
            let high = problem.cap(device) / b;
            limits.push((limit, high));
            tangents.push(-1.0 / unit);
            right[k] = -(start + 2.0 * time) / unit;
            right[n + k] = -limit;
            rows.extend([k, n + k, band]);
            values.extend([-time / unit, -1.0, b / problem.total_hz]);
            if high < f64::INFINITY {
                rows.push(right.len());
                values.push(1.0);
                right.push(high);
            }
            starts.push(rows.len());
        }
        rows.extend(0..n);
        values.extend(tangents);
        rows.push(least);
        values.push(-1.0);
        starts.push(rows.len());
        right[least] = -run.least_u.max(0.0) / scale;
        Self {
            matrix: CscMatrix::new(right.len(), n + 1, starts, rows, values),
            right,
            limits,
        }
    }

    /// The optimal `v` and `t`; `None` if the solver stalls far from them.
    fn solve(&self) -> Result<Option<Vec<f64>>> {
        let columns = self.matrix.n;
        let mut cost = vec![0.0; columns];
        cost[columns - 1] = 1.0;
        let settings = DefaultSettings {
            verbose: false,
            tol_gap_abs: 1e-12,
            tol_gap_rel: 1e-12,
            tol_feas: 1e-12,
            ..DefaultSettings::default()
        };
        let solver = DefaultSolver::new(
            &CscMatrix::zeros((columns, columns)),
            &cost,
            &self.matrix,
            &self.right,
            &[NonnegativeConeT(self.right.len())],
            settings,
        );
        let mut solver = solver.map_err(|_| Error::Range { name: "tau_s" })?;
        solver.solve();
        let usable = matches!(
            solver.solution.status,
            SolverStatus::Solved | SolverStatus::AlmostSolved | SolverStatus::InsufficientProgress
        );
        let x = solver.solution.x;
        Ok((usable && x.iter().all(|v| v.is_finite())).then_some(x))
    }
}
