//! Two pools: closed forms, a convex search, agreement with one pool, mistakes.

#![allow(clippy::float_cmp, reason = "limits are exact")]

mod common;

use common::joint::Rng;
use sft_opt::bandwidth::{Regime, TwoPools, allocate_two_pools};
use sft_opt::{Constraint, Problem, Status, allocate_bandwidth};

struct Instance {
    a_s: Vec<f64>,
    demands: [Vec<f64>; 2],
    totals: [f64; 2],
}

impl Instance {
    fn random(rng: &mut Rng, n: usize) -> Self {
        let mut list = |low, high| (0..n).map(|_| rng.decades(low, high)).collect::<Vec<_>>();
        let (a_s, first, second) = (list(0.0, 3.0), list(6.0, 10.0), list(10.0, 15.0));
        Self {
            a_s,
            demands: [first, second],
            totals: [rng.decades(5.0, 8.0), rng.decades(9.0, 13.0)],
        }
    }

    fn problem(&self) -> TwoPools<'_> {
        TwoPools {
            a_s: &self.a_s,
            demands: [&self.demands[0], &self.demands[1]],
            totals: self.totals,
            caps: [None; 2],
        }
    }

    /// Delay minus the largest `a`, when the first pool is shared as `x`: the other then is P2.
    fn with_first(&self, x: &[f64]) -> f64 {
        let a_s: Vec<f64> = (0..x.len())
            .map(|n| self.a_s[n] + self.demands[0][n] / x[n])
            .collect();
        let problem = Problem {
            a_s: &a_s,
            c_bits_per_bps_hz: &self.demands[1],
            total_hz: self.totals[1],
            cap_hz: None,
        };
        allocate_bandwidth(&problem).unwrap().tau_s
    }
}

#[test]
fn one_device_takes_both() {
    let problem = TwoPools {
        a_s: &[3.0],
        demands: [&[8.0], &[6.0]],
        totals: [2.0, 3.0],
        caps: [None; 2],
    };
    let solution = allocate_two_pools(&problem).unwrap();
    assert!((solution.tau_s - 9.0).abs() < 1e-14);
    assert!((solution.value.shares[0][0] - 2.0).abs() < 1e-13);
    assert!((solution.value.shares[1][0] - 3.0).abs() < 1e-13);
}

#[test]
fn agrees_with_a_search_over_the_first_pool() {
    let mut rng = Rng(21);
    for _ in 0..200 {
        let instance = Instance::random(&mut rng, 2);
        let solution = allocate_two_pools(&instance.problem()).unwrap();
        let total = instance.totals[0];
        let tau = |x: f64| instance.with_first(&[x * total, (1.0 - x) * total]);
        // The delay is convex in the first pool's split: ternary search.
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..200 {
            let (left, right) = ((2.0 * low + high) / 3.0, (low + 2.0 * high) / 3.0);
            if tau(left) < tau(right) {
                high = right;
            } else {
                low = left;
            }
        }
        let searched = tau(f64::midpoint(low, high));
        let gap = solution.tau_s / searched - 1.0;
        assert!(gap.abs() < 1e-9, "{gap:e}");
    }
}

#[test]
fn everybody_finishes_together_and_both_pools_are_used_up() {
    let mut rng = Rng(22);
    for case in 0..300 {
        let n = rng.count(1, 40);
        let mut instance = Instance::random(&mut rng, n);
        if case % 3 == 0 {
            // Some devices ask one pool only.
            (0..n)
                .step_by(2)
                .for_each(|k| instance.demands[case % 2][k] = 0.0);
        }
        let solution = allocate_two_pools(&instance.problem()).unwrap();
        let [x, y] = &solution.value.shares;
        for n in 0..n {
            let part = |k: usize, share: f64| match instance.demands[k][n] {
                0.0 => 0.0,
                demand => demand / share,
            };
            let tau = instance.a_s[n] + part(0, x[n]) + part(1, y[n]);
            assert!(tau <= solution.tau_s * (1.0 + 1e-11));
        }
        assert!(x.iter().sum::<f64>() <= instance.totals[0] * (1.0 + 1e-9));
        assert!(y.iter().sum::<f64>() <= instance.totals[1] * (1.0 + 1e-9));
        // Nothing a little better passes the same test: move both pools towards random others.
        let other: Vec<f64> = x
            .iter()
            .map(|x| (x * rng.range(0.9, 1.1)).max(1e-9 * instance.totals[0]))
            .collect();
        let scale = instance.totals[0] / other.iter().sum::<f64>();
        let other: Vec<f64> = other.iter().map(|x| x * scale).collect();
        assert!(instance.with_first(&other) >= solution.tau_s * (1.0 - 1e-11));
    }
}

#[test]
fn one_pool_is_p2() {
    let mut rng = Rng(23);
    for _ in 0..100 {
        let n = rng.count(1, 30);
        let mut instance = Instance::random(&mut rng, n);
        instance.demands[1].fill(0.0);
        let solution = allocate_two_pools(&instance.problem()).unwrap();
        let single = allocate_bandwidth(&Problem {
            a_s: &instance.a_s,
            c_bits_per_bps_hz: &instance.demands[0],
            total_hz: instance.totals[0],
            cap_hz: None,
        });
        let single = single.unwrap();
        let error = solution.value.tau_minus_amax_s / single.value.tau_minus_amax_s - 1.0;
        assert!(error.abs() < 1e-12, "{error:e}");
        for (x, b) in solution.value.shares[0].iter().zip(&single.value.b_hz) {
            assert!((x / b - 1.0).abs() < 1e-10);
        }
    }
}

#[test]
fn floors_empty_pools_and_mistakes() {
    let (a_s, first, second) = ([9.0, 1.0], [0.0, 4.0], [0.0, 2.0]);
    let problem = TwoPools {
        a_s: &a_s,
        demands: [&first, &second],
        totals: [10.0, 10.0],
        caps: [None; 2],
    };
    let solution = allocate_two_pools(&problem).unwrap();
    assert_eq!(
        (solution.value.regime, solution.tau_s),
        (Some(Regime::CapOrFloor), 9.0)
    );
    assert!(4.0 / solution.value.shares[0][1] + 2.0 / solution.value.shares[1][1] <= 8.0);
    let nobody = TwoPools {
        demands: [&[0.0; 2], &[0.0; 2]],
        ..problem
    };
    let solution = allocate_two_pools(&nobody).unwrap();
    assert_eq!(
        (solution.value.regime, solution.tau_s),
        (Some(Regime::NoDemand), 9.0)
    );
    let starved = TwoPools {
        totals: [10.0, 0.0],
        ..problem
    };
    let solution = allocate_two_pools(&starved).unwrap();
    assert_eq!(solution.status, Status::Infeasible(Constraint::Bandwidth));
    let wrong = TwoPools {
        demands: [&first, &[f64::NAN, 1.0]],
        ..problem
    };
    assert_eq!(
        allocate_two_pools(&wrong).unwrap_err().to_string(),
        "demands[1][0] is NaN, expected finite and at least 0"
    );
}
