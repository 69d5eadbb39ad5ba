//! P2 by the exact solver beside general solvers, in one run: time and optimum of each.
//!
//! Rust peers run here; with `SFT_PEERS_PYTHON` set to a Python that has scipy, cvxpy and
//! clarabel, `solver_peers.py` is run on the same instances. Results go to standard output as
//! CSV, `devices,solver,seconds,excess`: median time of a solve and `τ/τ* − 1`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark")]

use std::hint::black_box;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use optimization_engine::FunctionCallResult;
use optimization_engine::alm::{
    AlmCache, AlmFactory, AlmOptimizer, AlmProblem, NO_JACOBIAN_MAPPING, NO_MAPPING,
};
use optimization_engine::constraints::Rectangle;
use optimization_engine::panoc::PANOCCache;
use sft_opt::bandwidth::{allocate_bandwidth_into, evaluate_allocation};
use sft_opt::paper::{Sqp, sqp};
use sft_opt::system::{Direction, Fading, random_clocks_hz, spectral_efficiency};
use sft_opt::{Problem, allocate_bandwidth};

struct Instance {
    a_s: Vec<f64>,
    c: Vec<f64>,
    total_hz: f64,
}

impl Instance {
    /// Minutes of compute, gigabits of payload, fading links.
    fn new(n: usize) -> Self {
        let gain = |d| Fading::new(1).gain(d, 0, Direction::Uplink);
        Self {
            a_s: random_clocks_hz(n, 200.0..800.0, 1),
            c: (0..n)
                .map(|d| 4e9 / spectral_efficiency(17.0, gain(d)))
                .collect(),
            total_hz: 4e6 * n as f64,
        }
    }

    fn problem(&self) -> Problem<'_> {
        Problem {
            a_s: &self.a_s,
            c_bits_per_bps_hz: &self.c,
            total_hz: self.total_hz,
            cap_hz: None,
        }
    }

    /// Delay of bandwidths scaled down to the band, so that no peer gains by overdrawing it.
    fn tau_s(&self, shares: &[f64]) -> f64 {
        let sum: f64 = shares.iter().sum::<f64>().max(1.0);
        let b_hz = shares.iter().map(|v| v.max(0.0) / sum * self.total_hz);
        evaluate_allocation(&self.problem(), b_hz.collect()).map_or(f64::NAN, |s| s.tau_s)
    }

    /// Constraint `n` of the epigraph form in shares `v` and `t = τ/scale`: at most 0.
    fn late(&self, n: usize, x: &[f64], scale: f64) -> (f64, f64) {
        let share = x[n].max(1e-12);
        let time = self.c[n] / (share * self.total_hz) / scale;
        let t = x[self.c.len()];
        (self.a_s[n] / scale + time - t, -time / share)
    }
}

fn median_s(repeats: usize, mut solve: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..repeats)
        .map(|_| {
            let start = Instant::now();
            solve();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[repeats / 2]
}

type WithGradient<'a> = Box<dyn Fn(&[f64], Option<&mut [f64]>, &mut ()) -> f64 + 'a>;
type Plain<'a> = Box<dyn Fn(&[f64], &mut ()) -> f64 + 'a>;

fn by_slsqp(instance: &Instance, start: &[f64], scale: f64) -> Vec<f64> {
    let n = instance.c.len();
    let objective = |x: &[f64], gradient: Option<&mut [f64]>, (): &mut ()| {
        if let Some(gradient) = gradient {
            gradient.fill(0.0);
            gradient[n] = 1.0;
        }
        x[n]
    };
    let mut constraints: Vec<WithGradient<'_>> = (0..n)
        .map(|k| -> WithGradient<'_> {
            Box::new(move |x, gradient, ()| {
                let (late, slope) = instance.late(k, x, scale);
                if let Some(gradient) = gradient {
                    gradient.fill(0.0);
                    gradient[k] = slope;
                    gradient[n] = -1.0;
                }
                late
            })
        })
        .collect();
    constraints.push(Box::new(move |x, gradient, ()| {
        if let Some(gradient) = gradient {
            gradient.fill(1.0);
            gradient[n] = 0.0;
        }
        x[..n].iter().sum::<f64>() - 1.0
    }));
    let mut bounds = vec![(1e-9, 1.0); n];
    bounds.push((0.0, 1e3));
    let stop = slsqp::StopTols {
        ftol_rel: 1e-12,
        ..slsqp::StopTols::default()
    };
    match slsqp::minimize(
        objective,
        start,
        &bounds,
        &constraints,
        (),
        2_000,
        Some(stop),
    ) {
        Ok((_, x, _)) | Err((_, x, _)) => x,
    }
}

fn by_cobyla(instance: &Instance, start: &[f64], scale: f64) -> Vec<f64> {
    let n = instance.c.len();
    let mut constraints: Vec<Plain<'_>> = (0..n)
        .map(|k| -> Plain<'_> { Box::new(move |x, ()| instance.late(k, x, scale).0) })
        .collect();
    constraints.push(Box::new(move |x, ()| x[..n].iter().sum::<f64>() - 1.0));
    let mut bounds = vec![(1e-9, 1.0); n];
    bounds.push((0.0, 1e3));
    let stop = cobyla::StopTols {
        ftol_rel: 1e-10,
        ..cobyla::StopTols::default()
    };
    let objective = |x: &[f64], (): &mut ()| x[n];
    let begin = cobyla::RhoBeg::All(0.1 / n as f64);
    match cobyla::minimize(
        objective,
        start,
        &bounds,
        &constraints,
        (),
        20_000,
        begin,
        Some(stop),
    ) {
        Ok((_, x, _)) | Err((_, x, _)) => x,
    }
}

/// Lateness and the band by an augmented Lagrangian, inner problems by PANOC in a box.
///
/// In times on the air, `y_n = c_n/b_n` over `scale`, lateness is linear; in shares, which the
/// projection lets be 0, the solver did not converge.
fn by_optimization_engine(instance: &Instance, start: &[f64], scale: f64) -> Vec<f64> {
    let n = instance.c.len();
    let need = |k: usize| instance.c[k] / (instance.total_hz * scale);
    let objective = |x: &[f64], cost: &mut f64| -> FunctionCallResult {
        *cost = x[n];
        Ok(())
    };
    let gradient = |_: &[f64], gradient: &mut [f64]| -> FunctionCallResult {
        gradient.fill(0.0);
        gradient[n] = 1.0;
        Ok(())
    };
    let constraints = |x: &[f64], values: &mut [f64]| -> FunctionCallResult {
        for k in 0..n {
            values[k] = instance.a_s[k] / scale + x[k] - x[n];
        }
        values[n] = (0..n).map(|k| need(k) / x[k]).sum::<f64>() - 1.0;
        Ok(())
    };
    let transposed = |x: &[f64], d: &[f64], product: &mut [f64]| -> FunctionCallResult {
        for k in 0..n {
            product[k] = d[k] - d[n] * need(k) / (x[k] * x[k]);
        }
        product[n] = -d[..n].iter().sum::<f64>();
        Ok(())
    };
    let (zeros, most) = (vec![0.0; n + 1], vec![1e6; n + 1]);
    let met = || Rectangle::new(None, Some(&zeros));
    let factory = AlmFactory::new(
        objective,
        gradient,
        Some(constraints),
        Some(transposed),
        NO_MAPPING,
        NO_JACOBIAN_MAPPING,
        Some(met()),
        0,
    );
    // Nobody is faster than alone on the whole band, and the start is feasible.
    let low: Vec<f64> = (0..n).map(need).chain([0.0]).collect();
    let high = vec![start[n]; n + 1];
    let problem = AlmProblem::new(
        Rectangle::new(Some(&low), Some(&high)),
        Some(met()),
        Some(Rectangle::new(Some(&zeros), Some(&most))),
        |x: &[f64], xi: &[f64], cost: &mut f64| factory.psi(x, xi, cost),
        |x: &[f64], xi: &[f64], gradient: &mut [f64]| factory.d_psi(x, xi, gradient),
        Some(constraints),
        NO_MAPPING,
        n + 1,
        0,
    );
    let mut cache = AlmCache::new(PANOCCache::new(n + 1, 1e-8, 10), n + 1, 0);
    let mut optimizer = AlmOptimizer::new(&mut cache, problem)
        .with_delta_tolerance(1e-8)
        .with_epsilon_tolerance(1e-8)
        .with_initial_penalty(10.0)
        .with_max_outer_iterations(60)
        .with_max_inner_iterations(5_000)
        .with_max_duration(Duration::from_mins(1));
    let mut x: Vec<f64> = (0..n).map(|k| need(k) / start[k]).collect();
    x.push(start[n]);
    // Where it stops without convergence, the point it reached counts.
    let _ = optimizer.solve(&mut x);
    (0..n).map(|k| need(k) / x[k]).collect()
}

fn compare(n: usize) {
    let instance = Instance::new(n);
    let problem = instance.problem();
    let exact = allocate_bandwidth(&problem).expect("legal problem");
    let row = |solver: &str, seconds: f64, tau_s: f64| {
        println!(
            "{n},{solver},{seconds:.3e},{:.1e}",
            tau_s / exact.tau_s - 1.0
        );
    };
    let mut b_hz = vec![0.0; n];
    let seconds = median_s(1_001, || {
        black_box(allocate_bandwidth_into(black_box(&problem), &mut b_hz).expect("legal"));
    });
    row("sft-opt", seconds, exact.tau_s);
    let repeats = if n > 100 { 5 } else { 25 };
    let settings = Sqp::default();
    let found = sqp(&problem, &settings).expect("legal problem");
    let seconds = median_s(repeats, || {
        black_box(sqp(&problem, &settings).expect("legal"));
    });
    row("sft-opt sqp (Clarabel)", seconds, found.tau_s);

    let mut start = vec![1.0 / n as f64; n];
    let scale = exact.tau_s;
    let even = instance.tau_s(&start);
    start.push(even / scale);
    // Dense methods: cubic in N per step.
    if n <= 100 {
        let x = by_slsqp(&instance, &start, scale);
        let seconds = median_s(3, || {
            black_box(by_slsqp(&instance, &start, scale));
        });
        row("slsqp crate", seconds, instance.tau_s(&x[..n]));
    }
    let mut x = Vec::new();
    let seconds = median_s(if n > 100 { 1 } else { 3 }, || {
        x = by_optimization_engine(&instance, &start, scale);
    });
    row("optimization_engine crate", seconds, instance.tau_s(&x));
    if n <= 8 {
        let x = by_cobyla(&instance, &start, scale);
        let seconds = median_s(3, || {
            black_box(by_cobyla(&instance, &start, scale));
        });
        row("cobyla crate", seconds, instance.tau_s(&x[..n]));
    }
    python(&instance, exact.tau_s);
}

/// Runs the Python peers on an instance, where there is a Python for them.
fn python(instance: &Instance, tau_s: f64) {
    let Some(python) = std::env::var_os("SFT_PEERS_PYTHON") else {
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/solver_peers.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the Python of SFT_PEERS_PYTHON starts");
    let mut input = child.stdin.take().expect("piped");
    write!(
        input,
        "{{\"a_s\": {:?}, \"c\": {:?}, \"total_hz\": {:?}, \"tau_s\": {tau_s:?}}}",
        instance.a_s, instance.c, instance.total_hz
    )
    .expect("the script reads its input");
    drop(input);
    assert!(child.wait().expect("started").success());
}

fn main() {
    println!("devices,solver,seconds,excess");
    [8, 100, 1_000].into_iter().for_each(compare);
}
