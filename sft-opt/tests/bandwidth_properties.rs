//! Random instances of P2 over ten decades: optimality conditions on every answer, agreement
//! with bisection, and no allocation that does better.

mod common;

use common::{bisect, condition, kkt_residual};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sft_opt::bandwidth::{
    Bandwidths, Regime, allocate_bandwidth_into, allocate_even, allocate_random,
};
use sft_opt::{Problem, Solution, allocate_bandwidth};

#[derive(Clone, Debug)]
struct Instance {
    a_s: Vec<f64>,
    c: Vec<f64>,
    total_hz: f64,
    cap_hz: Option<Vec<f64>>,
}

impl Instance {
    fn problem(&self) -> Problem<'_> {
        Problem {
            a_s: &self.a_s,
            c_bits_per_bps_hz: &self.c,
            total_hz: self.total_hz,
            cap_hz: self.cap_hz.as_deref(),
        }
    }

    fn solve(&self) -> Solution<Bandwidths> {
        allocate_bandwidth(&self.problem()).unwrap()
    }
}

fn decades(low: f64, high: f64) -> impl Strategy<Value = f64> {
    (low..high).prop_map(|exponent| 10f64.powf(exponent))
}

/// Starting times all over ten decades, close together, or equal.
fn starts(n: usize) -> impl Strategy<Value = Vec<f64>> {
    prop_oneof![
        prop::collection::vec(decades(-5.0, 5.0), n),
        prop::collection::vec(400.0..800.0, n),
        prop::collection::vec(prop_oneof![Just(0.0), Just(400.0)], n),
        (decades(-5.0, 5.0), prop::collection::vec(0.0..1e-6, n))
            .prop_map(|(base, offsets)| offsets.iter().map(|x| base * (1.0 + x)).collect()),
    ]
}

fn demands(n: usize) -> impl Strategy<Value = Vec<f64>> {
    let one = prop_oneof![1 => Just(0.0), 8 => decades(0.0, 10.0)];
    prop_oneof![
        prop::collection::vec(one, n),
        prop::collection::vec(decades(9.0, 10.0), n),
        decades(0.0, 10.0).prop_map(move |c| vec![c; n]),
    ]
}

fn caps(n: usize) -> impl Strategy<Value = Option<Vec<f64>>> {
    let one = prop_oneof![1 => Just(f64::INFINITY), 1 => decades(-2.0, 9.0)];
    prop_oneof![1 => Just(None), 2 => prop::collection::vec(one, n).prop_map(Some)]
}

fn instances() -> impl Strategy<Value = Instance> {
    // From 256 devices on the solver starts from a sample of them.
    prop_oneof![5 => 1usize..70, 1 => 250usize..600].prop_flat_map(|n| {
        (starts(n), demands(n), decades(-2.0, 8.0), caps(n)).prop_map(
            |(a_s, c, total_hz, cap_hz)| Instance {
                a_s,
                c,
                total_hz,
                cap_hz,
            },
        )
    })
}

/// The same cases on every run.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 500,
        rng_seed: RngSeed::Fixed(27),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn optimality_conditions_hold(instance in instances()) {
        let residual = kkt_residual(&instance.problem(), &instance.solve());
        prop_assert!(residual <= 1e-11, "residual {residual:e}");
    }

    #[test]
    fn agrees_with_bisection(instance in instances()) {
        let (problem, solution) = (instance.problem(), instance.solve());
        prop_assume!(solution.value.regime != Some(Regime::NoDemand));
        let expected = bisect(&problem);
        let error = (solution.value.tau_minus_amax_s / expected - 1.0).abs();
        // Bisection knows its sum, and the time left, to a few ulp only.
        let reference_error = 32.0 * f64::EPSILON * condition(&problem, expected);
        prop_assert!(error <= 1e-12 + reference_error, "{error:e} against {reference_error:e}");
    }

    #[test]
    fn baselines_are_never_better(instance in instances(), seed: u64) {
        let problem = instance.problem();
        let best = instance.solve();
        for other in [allocate_even(&problem).unwrap(), allocate_random(&problem, seed).unwrap()] {
            prop_assert!(other.value.tau_minus_amax_s >= best.value.tau_minus_amax_s * (1.0 - 1e-12));
            prop_assert!(other.value.used_hz <= instance.total_hz * (1.0 + 1e-12));
            prop_assert!((0..other.value.b_hz.len()).all(|n| other.value.b_hz[n] <= common::cap(&problem, n)));
        }
    }

    #[test]
    fn price_is_the_slope(capped in instances()) {
        let instance = Instance { cap_hz: None, ..capped };
        let solution = instance.solve();
        prop_assume!(solution.value.regime == Some(Regime::Bandwidth));
        // The delay is convex in the band: its slope lies between the two difference quotients.
        let step = 1e-3 * instance.total_hz;
        let delay = |step: f64| {
            let moved = Instance { total_hz: instance.total_hz + step, ..instance.clone() };
            moved.solve().value.tau_minus_amax_s
        };
        let (less, more) = (delay(-step), delay(step));
        let here = solution.value.tau_minus_amax_s;
        let price = solution.value.shadow_price_s_per_hz * step;
        let rounding = 1e-12 * less;
        prop_assert!(price <= less - here + rounding, "{price:e} above {:e}", less - here);
        prop_assert!(price >= here - more - rounding, "{price:e} below {:e}", here - more);
    }

    #[test]
    fn order_and_units_do_not_matter(instance in instances()) {
        let solution = instance.solve();
        prop_assume!(solution.value.regime != Some(Regime::NoDemand));
        let reversed = |xs: &[f64]| xs.iter().rev().copied().collect::<Vec<_>>();
        let other = Instance {
            a_s: reversed(&instance.a_s),
            // Powers of two change units without rounding.
            c: reversed(&instance.c).iter().map(|c| c * 1024.0).collect(),
            total_hz: instance.total_hz * 1024.0,
            cap_hz: instance.cap_hz.as_deref().map(|caps| reversed(caps).iter().map(|b| b * 1024.0).collect()),
        };
        let other = other.solve();
        prop_assert_eq!(other.value.regime, solution.value.regime);
        let close = |x: f64, y: f64| (x / y - 1.0).abs() <= 1e-12;
        prop_assert!(close(other.value.tau_minus_amax_s, solution.value.tau_minus_amax_s));
        for (&x, &y) in solution.value.b_hz.iter().zip(reversed(&other.value.b_hz).iter()) {
            prop_assert!(x == 0.0 && y == 0.0 || close(1024.0 * x, y), "{} {}", x, y);
        }
    }

    #[test]
    fn slice_variant_gives_the_same_bits(instance in instances()) {
        let solution = instance.solve();
        let mut b_hz = vec![f64::NAN; instance.a_s.len()];
        let into = allocate_bandwidth_into(&instance.problem(), &mut b_hz).unwrap();
        prop_assert_eq!(into.tau_s.to_bits(), solution.tau_s.to_bits());
        prop_assert_eq!(&*into.value.b_hz, &solution.value.b_hz[..]);
    }
}

#[test]
fn ties_of_band_and_caps_are_caps() {
    for n in [1, 2, 5, 40] {
        for total_hz in sft_opt::system::random_clocks_hz(200, 1e6..1e8, n) {
            let count = n as usize;
            let c = vec![total_hz * 37.0; count];
            let problem = Problem {
                a_s: &vec![11.0; count],
                c_bits_per_bps_hz: &c,
                total_hz,
                cap_hz: Some(&vec![total_hz / count as f64; count]),
            };
            let solution = allocate_bandwidth(&problem).unwrap();
            assert_eq!(
                solution.value.regime,
                Some(Regime::CapOrFloor),
                "{problem:?}"
            );
            assert!(solution.value.equality_feasible, "{problem:?}");
        }
    }
}

#[test]
fn many_devices() {
    for (n, seed) in [(1_000, 1), (200_000, 2)] {
        let c: Vec<f64> = sft_opt::system::random_clocks_hz(n, 1e9..5e9, seed);
        let a_s = sft_opt::system::random_clocks_hz(n, 100.0..900.0, seed + 1);
        for total_hz in [1e6, 1e9, 1e12] {
            let problem = Problem {
                a_s: &a_s,
                c_bits_per_bps_hz: &c,
                total_hz,
                cap_hz: None,
            };
            let solution = allocate_bandwidth(&problem).unwrap();
            let residual = kkt_residual(&problem, &solution);
            assert!(
                residual <= 1e-12,
                "{n} devices, {total_hz:e} Hz: {residual:e}"
            );
            assert!(solution.iterations <= 10, "{} steps", solution.iterations);
        }
    }
}
