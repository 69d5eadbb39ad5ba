//! Algorithm 3 against the exact optimum.
#![allow(clippy::print_stdout, reason = "what was measured")]

mod common;

use common::joint::Rng;
use sft_opt::paper::{Sqp, sqp};
use sft_opt::system::spectral_efficiency;
use sft_opt::{Problem, Status, allocate_bandwidth};

/// `N` log-uniform up to `most`, `a` and `c` log-uniform over three decades, half with Rayleigh
/// fading.
fn instance(rng: &mut Rng, case: usize, most: f64) -> (Vec<f64>, Vec<f64>) {
    let n = rng.decades(0.0, most.log10()).round() as usize;
    let a_s = (0..n).map(|_| rng.decades(0.0, 3.0)).collect();
    let c = (0..n)
        .map(|_| {
            let bits = rng.decades(8.0, 11.0);
            let gain = if case.is_multiple_of(2) {
                1.0
            } else {
                -(1.0 - rng.uniform()).ln()
            };
            bits / spectral_efficiency(17.0, gain)
        })
        .collect();
    (a_s, c)
}

/// Compares `cases` instances; returns the largest gap and the largest number of iterations.
fn compare(cases: usize, most: f64) -> (f64, u32) {
    let mut rng = Rng(34);
    let mut worst = (0.0_f64, 0, 0);
    let mut unfinished = 0;
    for case in 0..cases {
        let (a_s, c) = instance(&mut rng, case, most);
        let problem = Problem {
            a_s: &a_s,
            c_bits_per_bps_hz: &c,
            total_hz: rng.decades(6.0, 8.0),
            cap_hz: None,
        };
        let exact = allocate_bandwidth(&problem).unwrap();
        let found = sqp(&problem, &Sqp::default()).unwrap();
        let gap = found.tau_s / exact.tau_s - 1.0;
        assert!(gap > -1e-12, "better than the optimum: {gap:e}");
        assert!(found.value.b_hz.iter().sum::<f64>() <= problem.total_hz * (1.0 + 1e-12));
        assert!(
            found.value.bound_minus_amax_s <= exact.value.tau_minus_amax_s * (1.0 + 1e-6),
            "bound {} above {}",
            found.value.bound_minus_amax_s,
            exact.value.tau_minus_amax_s
        );
        unfinished += usize::from(found.status != Status::Optimal);
        worst = (
            worst.0.max(gap),
            worst.1.max(found.iterations),
            worst.2 + found.iterations,
        );
    }
    println!(
        "{cases} instances: largest gap {:e}, {} iterations at most, {:.1} on average, \
         {unfinished} stopped before the tolerance",
        worst.0,
        worst.1,
        f64::from(worst.2) / cases as f64
    );
    (worst.0, worst.1)
}

#[test]
fn reaches_the_optimum() {
    let (gap, _) = compare(100, 60.0);
    assert!(gap <= 1e-6, "{gap:e}");
}

/// Minutes without optimisation: `cargo test --release -- --ignored`.
#[test]
#[ignore = "long without optimisation"]
fn reaches_the_optimum_on_a_thousand_instances() {
    let (gap, _) = compare(1_000, 1_000.0);
    assert!(gap <= 1e-6, "{gap:e}");
}
