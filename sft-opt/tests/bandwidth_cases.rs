//! Small instances of P2 solved by hand, one of every kind, and mistakes in the input.

#![allow(clippy::float_cmp, reason = "counts and limits are exact")]

mod common;

use sft_opt::bandwidth::{
    Regime, allocate_bandwidth_into, allocate_even, allocate_random, evaluate_allocation,
};
use sft_opt::{Constraint, Error, Problem, Status, allocate_bandwidth};

fn problem<'a>(a_s: &'a [f64], c: &'a [f64], total_hz: f64) -> Problem<'a> {
    Problem {
        a_s,
        c_bits_per_bps_hz: c,
        total_hz,
        cap_hz: None,
    }
}

fn assert_close(found: f64, expected: f64) {
    let error = (found - expected).abs();
    assert!(
        error <= 4e-15 * expected.abs(),
        "{found:?} is not {expected:?}"
    );
}

#[test]
fn equal_devices_share_the_band() {
    // 4 devices, 2e6 Hz each: 6e6/2e6 = 3 s after 5 s.
    let solution = allocate_bandwidth(&problem(&[5.0; 4], &[6e6; 4], 8e6)).unwrap();
    assert_eq!(solution.value.regime, Some(Regime::Bandwidth));
    assert_close(solution.tau_s, 8.0);
    solution
        .value
        .b_hz
        .iter()
        .for_each(|&b| assert_close(b, 2e6));
    // With one c, tau = a + Nc/W, so -dtau/dW = Nc/W^2.
    assert_close(solution.value.shadow_price_s_per_hz, 24e6 / 64e12);
    assert!(solution.value.equality_feasible);
}

#[test]
fn late_device_gets_more() {
    // u + 2/(u+1)... g(u) = 1/u + 2/(u+1) = 2: 2u^2 - u - 1 = 0, u = 1.
    let solution = allocate_bandwidth(&problem(&[4.0, 3.0], &[1.0, 2.0], 2.0)).unwrap();
    assert_close(solution.value.tau_minus_amax_s, 1.0);
    assert_close(solution.tau_s, 5.0);
    assert_close(solution.value.b_hz[0], 1.0);
    assert_close(solution.value.b_hz[1], 1.0);
    assert_close(
        solution.value.shadow_price_s_per_hz,
        1.0 / (1.0 + 2.0 / 4.0),
    );
}

#[test]
fn one_device_takes_all() {
    let solution = allocate_bandwidth(&problem(&[3.0], &[8e6], 2e6)).unwrap();
    assert_eq!((solution.tau_s, solution.value.b_hz[0]), (7.0, 2e6));
}

#[test]
fn capped_device_fixes_the_delay() {
    // Device 0 needs 6/2 = 3 s at its cap; device 1 then needs only 4/(1 + 3) = 1 Hz of 8.
    let caps = [2.0, f64::INFINITY];
    let problem = Problem {
        cap_hz: Some(&caps),
        ..problem(&[1.0, 0.0], &[6.0, 4.0], 10.0)
    };
    let solution = allocate_bandwidth(&problem).unwrap();
    assert_eq!(solution.value.regime, Some(Regime::CapOrFloor));
    assert_eq!(solution.value.b_hz, [2.0, 1.0]);
    assert_eq!((solution.tau_s, solution.value.used_hz), (4.0, 3.0));
    assert_eq!(solution.value.shadow_price_s_per_hz.to_bits(), 0);
    assert!(solution.value.equality_feasible);
}

#[test]
fn all_devices_capped() {
    let caps = [2.0, 3.0];
    let problem = Problem {
        cap_hz: Some(&caps),
        ..problem(&[1.0, 1.0], &[6.0, 4.0], 10.0)
    };
    let solution = allocate_bandwidth(&problem).unwrap();
    assert_eq!(solution.value.regime, Some(Regime::CapOrFloor));
    assert_eq!(solution.tau_s.to_bits(), 4f64.to_bits());
    assert!(!solution.value.equality_feasible, "caps sum to 5 of 10");
}

#[test]
fn caps_that_share_out_the_band_are_no_bottleneck_of_the_band() {
    let caps = [1.0, 2.0];
    let problem = Problem {
        cap_hz: Some(&caps),
        ..problem(&[1.0, 1.0], &[3.0, 6.0], 3.0)
    };
    let solution = allocate_bandwidth(&problem).unwrap();
    assert_eq!(solution.value.regime, Some(Regime::CapOrFloor));
    assert_eq!(solution.value.b_hz, caps);
    assert!(solution.value.equality_feasible);
}

#[test]
fn device_without_demand_is_a_floor() {
    let solution = allocate_bandwidth(&problem(&[9.0, 1.0], &[0.0, 4.0], 10.0)).unwrap();
    assert_eq!(solution.value.regime, Some(Regime::CapOrFloor));
    assert_eq!(solution.value.b_hz, [0.0, 0.5]);
    assert_eq!(
        (solution.tau_s, solution.value.tau_minus_amax_s),
        (9.0, 8.0)
    );
}

#[test]
fn nobody_asks() {
    let solution = allocate_bandwidth(&problem(&[9.0, 1.0], &[0.0, 0.0], 10.0)).unwrap();
    assert_eq!(solution.value.regime, Some(Regime::NoDemand));
    assert_eq!(solution.value.b_hz, [0.0, 0.0]);
    assert_eq!(
        (solution.tau_s, solution.value.tau_minus_amax_s),
        (9.0, 0.0)
    );
}

#[test]
fn no_band_is_infeasible() {
    let solution = allocate_bandwidth(&problem(&[9.0, 1.0], &[0.0, 1.0], 0.0)).unwrap();
    assert_eq!(solution.status, Status::Infeasible(Constraint::Bandwidth));
    assert_eq!(solution.tau_s, f64::INFINITY);
    assert_eq!(solution.value.b_hz, [0.0, 0.0]);
    assert!(!solution.value.equality_feasible);
}

#[test]
fn cap_of_zero_is_infeasible_with_demand_only() {
    let caps = [0.0, 5.0];
    for (c, regime) in [(1.0, None), (0.0, Some(Regime::Bandwidth))] {
        let demands = [c, 8.0];
        let problem = Problem {
            cap_hz: Some(&caps),
            ..problem(&[0.0, 0.0], &demands, 4.0)
        };
        assert_eq!(allocate_bandwidth(&problem).unwrap().value.regime, regime);
    }
}

#[test]
fn caller_gives_the_slice() {
    let problem = problem(&[4.0, 3.0], &[1.0, 2.0], 2.0);
    let mut b_hz = [f64::NAN; 2];
    let into = allocate_bandwidth_into(&problem, &mut b_hz).unwrap();
    let owned = allocate_bandwidth(&problem).unwrap();
    assert_eq!(into.value.b_hz, owned.value.b_hz);
    assert_eq!(into.tau_s.to_bits(), owned.tau_s.to_bits());
    let error = allocate_bandwidth_into(&problem, &mut [0.0; 3]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "b_hz has 3 entries, expected 2: one per device"
    );
}

#[test]
fn mistakes_are_named() {
    let solve = |a: &[f64], c: &[f64], total, cap_hz| {
        let problem = Problem {
            cap_hz,
            ..problem(a, c, total)
        };
        allocate_bandwidth(&problem).unwrap_err().to_string()
    };
    assert_eq!(
        allocate_bandwidth(&problem(&[], &[], 1.0)),
        Err(Error::NoDevices)
    );
    assert_eq!(
        solve(&[1.0, f64::NAN], &[1.0, 1.0], 1.0, None),
        "a_s[1] is NaN, expected finite and at least 0"
    );
    assert_eq!(
        solve(&[1.0], &[-2.0], 1.0, None),
        "c_bits_per_bps_hz[0] is -2, expected finite and at least 0"
    );
    assert_eq!(
        solve(&[1.0], &[f64::INFINITY], 1.0, None),
        "c_bits_per_bps_hz[0] is inf, expected finite and at least 0"
    );
    assert_eq!(
        solve(&[1.0], &[1.0, 2.0], 1.0, None),
        "c_bits_per_bps_hz has 2 entries, expected 1: one per device"
    );
    assert_eq!(
        solve(&[1.0], &[1.0], f64::INFINITY, None),
        "total_hz is inf, expected finite and at least 0"
    );
    assert_eq!(
        solve(&[1.0], &[1.0], 1.0, Some(&[-0.5])),
        "cap_hz[0] is -0.5, expected at least 0"
    );
    assert_eq!(
        solve(&[1.0], &[1.0], 1.0, Some(&[])),
        "cap_hz has 0 entries, expected 1: one per device"
    );
}

#[test]
fn results_beyond_doubles_are_an_error() {
    for (c, total) in [(1e300, 1e-300), (1e-300, 1e300), (f64::MAX, 1.0)] {
        let result = allocate_bandwidth(&problem(&[1.0, 1.0], &[c, c], total));
        assert_eq!(result, Err(Error::Range { name: "tau_s" }));
    }
}

#[test]
fn even_split_respects_caps() {
    // 12/3 = 4 each; the cap of 1 leaves 11/2 for the others.
    let caps = [1.0, f64::INFINITY, 100.0];
    let problem = Problem {
        cap_hz: Some(&caps),
        ..problem(&[0.0; 3], &[1.0, 0.0, 11.0], 12.0)
    };
    let solution = allocate_even(&problem).unwrap();
    assert_eq!(solution.value.b_hz, [1.0, 5.5, 5.5]);
    assert_eq!((solution.tau_s, solution.value.used_hz), (2.0, 12.0));
    assert_eq!(solution.status, Status::Given);
}

#[test]
fn random_split_is_seeded_and_uniform() {
    let (a, c) = ([0.0; 4], [1.0; 4]);
    let problem = problem(&a, &c, 1.0);
    let split = |seed| allocate_random(&problem, seed).unwrap().value.b_hz;
    assert_eq!(split(3), split(3));
    assert_ne!(split(3), split(4));
    // On the simplex of 4, E(b) = 1/4 and E(b^2) = 2/(4·5); 4 000 draws give ±3 %.
    let draws: Vec<f64> = (0..4_000).map(|seed| split(seed)[1]).collect();
    let mean = draws.iter().sum::<f64>() / 4e3;
    let square = draws.iter().map(|b| b * b).sum::<f64>() / 4e3;
    assert!((mean / 0.25 - 1.0).abs() < 0.04, "mean {mean}");
    assert!((square / 0.1 - 1.0).abs() < 0.08, "second moment {square}");
}

#[test]
fn random_split_respects_caps() {
    let caps = [0.1, 0.2, f64::INFINITY];
    let problem = Problem {
        cap_hz: Some(&caps),
        ..problem(&[0.0; 3], &[1.0; 3], 1.0)
    };
    for seed in 0..100 {
        let solution = allocate_random(&problem, seed).unwrap();
        assert!((solution.value.used_hz - 1.0).abs() < 1e-15);
        assert!(
            solution
                .value
                .b_hz
                .iter()
                .zip(caps)
                .all(|(&b, cap)| b > 0.0 && b <= cap)
        );
    }
}

#[test]
fn given_allocation_is_evaluated() {
    let problem = problem(&[4.0, 3.0, 1.0], &[1.0, 2.0, 0.0], 2.0);
    let solution = evaluate_allocation(&problem, vec![0.5, 0.25, 0.0]).unwrap();
    assert_eq!(
        (solution.tau_s, solution.value.tau_minus_amax_s),
        (11.0, 7.0)
    );
    let starved = evaluate_allocation(&problem, vec![0.5, 0.0, 0.0]).unwrap();
    assert_eq!(
        (starved.status.constraint(), starved.tau_s),
        (Some(Constraint::Bandwidth), f64::INFINITY)
    );
    assert!(evaluate_allocation(&problem, vec![0.5, f64::NAN, 0.0]).is_err());
}
