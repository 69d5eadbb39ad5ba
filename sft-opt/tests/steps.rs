//! One knob: curves, the fit through runs, and the solvers against exhaustive search.

#![allow(clippy::float_cmp, reason = "limits are exact")]

mod common;

use common::joint::{Rng, joint_problem};
use sft_opt::bandwidth::Problem;
use sft_opt::plan::{
    Assumption, CompressionProblem, JointProblem, StepCompression, StepCurve, StepPoint,
    StepSetting, best_step, configure, optimize_device_cuts, two_timescale,
};
use sft_opt::system::ServerModel;
use sft_opt::{Constraint, Device, Server, System, Training, Transformer};
use sft_opt::{allocate_bandwidth, optimize};

/// A curve over `count` random steps that falls from `high`, flat at places.
fn curve(rng: &mut Rng, count: usize, high: f64) -> StepCurve {
    let (mut step, mut value) = (rng.range(0.05, 0.2), high);
    let (mut steps, mut values) = (Vec::new(), Vec::new());
    for _ in 0..count {
        steps.push(step);
        values.push(value);
        step *= rng.range(1.1, 2.0);
        value *= rng.range(0.6, 1.1).min(1.0);
    }
    StepCurve::new(steps, values).unwrap()
}

fn compression(rng: &mut Rng) -> StepCompression {
    let (runs, rates) = (
        2 + (rng.range(0.0, 6.0) as usize),
        1 + (rng.range(0.0, 7.0) as usize),
    );
    StepCompression {
        accuracy: curve(rng, runs, 0.93),
        accuracy_min: rng.range(0.3, 0.95),
        rate: curve(rng, rates, 0.05),
    }
}

/// Steps of both curves, and many between.
fn grid(problem: &StepCompression) -> Vec<f64> {
    let (low, high) = problem.range();
    let between = (0..=20_000).map(|k| low * (high / low).powf(f64::from(k) / 20_000.0));
    let knots = [problem.accuracy.steps(), problem.rate.steps()].concat();
    between.chain(knots).collect()
}

/// Least `β` among the steps of the grid that are accurate enough.
fn on_grid(problem: &StepCompression) -> Option<f64> {
    (grid(problem).into_iter())
        .filter(|&step| {
            problem
                .accuracy
                .at(step)
                .is_some_and(|a| a >= problem.accuracy_min)
        })
        .filter_map(|step| problem.rate.at(step))
        .min_by(f64::total_cmp)
}

#[test]
fn no_step_of_a_grid_is_better() {
    let mut rng = Rng(11);
    let (mut found, mut none) = (0, 0);
    for _ in 0..300 {
        let problem = compression(&mut rng);
        let (low, high) = problem.range();
        if low > high {
            assert!(best_step(&problem).is_err());
            continue;
        }
        let (best, grid) = (best_step(&problem).unwrap(), on_grid(&problem));
        let Some(best) = best else {
            assert_eq!(grid, None);
            none += 1;
            continue;
        };
        found += 1;
        assert!((low..=high).contains(&best.step));
        assert!(best.accuracy >= problem.accuracy_min - 1e-12);
        assert_eq!(problem.rate.at(best.step), Some(best.beta));
        assert_eq!(problem.accuracy.at(best.step), Some(best.accuracy));
        let grid = grid.unwrap();
        assert!(
            best.beta <= grid * (1.0 + 1e-9),
            "{} above {grid}",
            best.beta
        );
        assert!(best.beta >= 0.999 * grid, "{} far below {grid}", best.beta);
    }
    assert!(found > 100 && none > 20, "{found} feasible, {none} not");
}

#[test]
fn of_equal_rates_the_most_accurate_step_is_taken() {
    let curve =
        |step: &[f64], value: &[f64]| StepCurve::new(step.to_vec(), value.to_vec()).unwrap();
    let accuracy = curve(&[0.5, 1.0, 2.0, 4.0], &[0.9, 0.8, 0.7, 0.6]);
    let flat = curve(&[0.25, 1.0, 4.0], &[0.04, 0.02, 0.02]);
    let constant = curve(&[0.25, 4.0], &[0.02, 0.02]);
    let falls = curve(&[0.25, 1.0, 4.0], &[0.04, 0.02, 0.01]);
    for (rate, accuracy_min, step, value) in [
        (&flat, 0.6, 1.0, 0.8),
        (&flat, 0.7, 1.0, 0.8),
        (&flat, 0.8, 1.0, 0.8),
        (&flat, 0.9, 0.5, 0.9),
        // The accuracy is not known below.
        (&constant, 0.6, 0.5, 0.9),
        (&falls, 0.7, 2.0, 0.7),
    ] {
        let problem = StepCompression {
            accuracy: accuracy.clone(),
            accuracy_min,
            rate: rate.clone(),
        };
        let best = best_step(&problem).unwrap().unwrap();
        assert_eq!((best.step, best.accuracy), (step, value), "{problem:?}");
        assert_eq!(Some(best.beta), rate.at(step));
    }
}

/// Least delay over the steps of a grid and the cuts, each with its own bandwidths.
fn exhaustive(problem: &JointProblem, compression: &StepCompression) -> f64 {
    let mut least = f64::INFINITY;
    for step in grid(compression).into_iter().step_by(50) {
        let accuracy = compression.accuracy.at(step);
        if accuracy.is_none_or(|accuracy| accuracy < compression.accuracy_min) {
            continue;
        }
        let Some(beta) = compression.rate.at(step) else {
            continue;
        };
        for option in &problem.cuts {
            if (problem.memory_max_bytes.iter()).any(|&max| option.memory_bytes >= max) {
                continue;
            }
            let c: Vec<f64> = (option.c_fixed.iter().zip(&problem.c_beta))
                .map(|(fixed, raw)| fixed + beta * raw)
                .collect();
            let solution = allocate_bandwidth(&Problem {
                a_s: &option.a_s,
                c_bits_per_bps_hz: &c,
                total_hz: problem.total_hz,
                cap_hz: problem.cap_hz.as_deref(),
            });
            least = least.min(solution.unwrap().tau_s);
        }
    }
    least
}

#[test]
fn the_joint_optimum_is_that_of_exhaustive_search() {
    let mut rng = Rng(12);
    let mut found = 0;
    for _ in 0..60 {
        let (problem, compression) = (joint_problem(&mut rng), compression(&mut rng));
        if compression.validate().is_err() {
            continue;
        }
        let best = optimize(&problem, &compression).unwrap();
        let least = exhaustive(&problem, &compression);
        let Some(best) = best.feasible() else {
            assert!(least.is_infinite());
            continue;
        };
        found += 1;
        assert!(
            best.tau_s <= least * (1.0 + 1e-9),
            "{} above {least}",
            best.tau_s
        );
        assert!(
            best.tau_s >= 0.995 * least,
            "{} far below {least}",
            best.tau_s
        );
        // With the optimal bandwidths given, the same is found again.
        let again = configure(&problem, &compression, &best.value.b_hz).unwrap();
        assert!((again.tau_s - best.tau_s).abs() <= 1e-9 * best.tau_s);
    }
    assert!(found > 20, "{found} feasible");
}

#[test]
fn every_solver_takes_steps() {
    let mut devices = vec![Device::default(); 4];
    devices[1].clock_hz = 2e9;
    let mut server = Server::default();
    server.model = ServerModel::Even;
    let model = Transformer::vit_base(100);
    let system = System::new(model, Training::default(), server, devices, 30e6).unwrap();
    let compression = StepCompression {
        accuracy: StepCurve::new(vec![0.1, 1.0, 10.0], vec![0.9, 0.8, 0.3]).unwrap(),
        accuracy_min: 0.85,
        rate: StepCurve::new(vec![0.1, 10.0], vec![0.2, 0.01]).unwrap(),
    };
    let wanted = compression.best().unwrap().unwrap();
    assert!((wanted.step - 0.1_f64.sqrt()).abs() < 1e-12);
    let problem = system.joint_problem(&system.links(), false).unwrap();
    let common = optimize(&problem, &compression)
        .unwrap()
        .feasible()
        .unwrap();
    assert_eq!(common.value.setting, wanted);
    let cuts = optimize_device_cuts(&problem, &compression)
        .unwrap()
        .feasible()
        .unwrap();
    assert_eq!(cuts.value.setting, wanted);
    assert!(cuts.tau_s <= common.tau_s * (1.0 + 1e-12));
    let steered = two_timescale(&system, &compression, Assumption::Joint, None, 3).unwrap();
    let rounds_s = steered.feasible().unwrap().value.rounds_s;
    assert!((rounds_s[2] - common.tau_s).abs() < 1e-9 * common.tau_s);
}

#[test]
fn an_accuracy_out_of_reach_is_an_answer() {
    let compression = StepCompression {
        accuracy: StepCurve::new(vec![0.1, 1.0], vec![0.9, 0.8]).unwrap(),
        accuracy_min: 0.91,
        rate: StepCurve::new(vec![0.1, 1.0], vec![0.2, 0.1]).unwrap(),
    };
    assert_eq!(best_step(&compression).unwrap(), None);
    let problem = joint_problem(&mut Rng(1));
    let none = optimize(&problem, &compression).unwrap();
    assert_eq!(none.status.constraint(), Some(Constraint::Accuracy));
    // What is accurate enough may lie below the rates.
    let fine = StepCompression {
        accuracy_min: 0.85,
        rate: StepCurve::new(vec![0.9, 2.0], vec![0.2, 0.1]).unwrap(),
        ..compression
    };
    assert_eq!(best_step(&fine).unwrap(), None);
    let last = StepCompression {
        accuracy_min: 0.0,
        ..fine
    };
    let setting = StepSetting {
        step: 1.0,
        beta: last.rate.at(1.0).unwrap(),
        accuracy: 0.8,
    };
    assert_eq!(best_step(&last).unwrap(), Some(setting));
}

fn points(pairs: &[(f64, f64)]) -> Vec<StepPoint> {
    let point = |&(step, value): &(f64, f64)| StepPoint { step, value };
    pairs.iter().map(point).collect()
}

#[test]
fn the_fit_pools_what_noise_has_in_the_wrong_order() {
    let runs = [
        (2.0, 0.5),
        (0.1, 0.9),
        (0.5, 0.92),
        (0.1, 0.94),
        (1.0, 0.95),
        (0.2, 0.9),
    ];
    let fit = StepCurve::fit(&points(&runs)).unwrap();
    assert_eq!(fit.curve.steps(), [0.1, 0.2, 0.5, 1.0, 2.0]);
    // Means 0.92 (two runs), 0.90, 0.92, 0.95, 0.5: the first four are one.
    let pool = (0.9 + 0.94 + 0.9 + 0.92 + 0.95) / 5.0;
    for (value, expected) in fit.curve.values().iter().zip([pool, pool, pool, pool, 0.5]) {
        assert!((value - expected).abs() < 1e-15);
    }
    assert!((fit.max_error - (0.95 - pool)).abs() < 1e-15);
    let falling = points(&[(0.1, 0.9), (1.0, 0.8), (3.0, 0.8)]);
    let fit = StepCurve::fit(&falling).unwrap();
    assert_eq!((fit.curve.values(), fit.rmse), (&[0.9, 0.8, 0.8][..], 0.0));
}

/// Least squares over all falling curves whose values are k/40 with k up to `top`.
fn least_square(points: &[StepPoint], top: u32) -> f64 {
    let Some((first, rest)) = points.split_first() else {
        return 0.0;
    };
    let square = |k: u32| (f64::from(k) / 40.0 - first.value).powi(2);
    (0..=top)
        .map(|k| square(k) + least_square(rest, k))
        .fold(f64::INFINITY, f64::min)
}

#[test]
fn the_fit_has_the_least_squares() {
    let mut rng = Rng(13);
    for _ in 0..20 {
        let noisy: Vec<StepPoint> = (1..=4)
            .map(|k| StepPoint {
                step: f64::from(k),
                value: (rng.range(0.0, 1.0) * 40.0).round() / 40.0,
            })
            .collect();
        let fit = StepCurve::fit(&noisy).unwrap();
        let least = least_square(&noisy, 40);
        let square = 4.0 * fit.rmse.powi(2);
        assert!(square <= least + 1e-12, "{square} above {least}");
        assert!(square >= least - 4.0 / 1600.0, "{square} below {least}");
    }
}

#[test]
fn mistakes_name_the_argument() {
    let new = |step: &[f64], value: &[f64]| {
        let curve = StepCurve::new(step.to_vec(), value.to_vec());
        curve.unwrap_err().to_string()
    };
    for (message, expected) in [
        (new(&[], &[]), "step is empty"),
        (
            new(&[0.0], &[1.0]),
            "step[0] is 0, expected finite, positive and ascending",
        ),
        (new(&[1.0, 0.5], &[1.0, 1.0]), "step[1] is 0.5"),
        (new(&[1.0, 1.0], &[1.0, 1.0]), "step[1] is 1"),
        (new(&[1.0, f64::INFINITY], &[1.0, 1.0]), "step[1] is inf"),
        (
            new(&[1.0, 2.0], &[1.0]),
            "number of values is 1, expected one for each step",
        ),
        (
            new(&[1.0, 2.0], &[1.0, 1.5]),
            "value[1] is 1.5, expected finite and at most the value before",
        ),
        (new(&[1.0], &[f64::NAN]), "value[0] is NaN"),
    ] {
        assert!(message.contains(expected), "{message}");
    }
    let fit = |pairs: &[(f64, f64)]| StepCurve::fit(&points(pairs)).unwrap_err().to_string();
    for (message, expected) in [
        (
            fit(&[]),
            "points do not determine the fit, expected two different steps",
        ),
        (fit(&[(1.0, 0.5), (1.0, 0.6)]), "two different steps"),
        (fit(&[(1.0, 0.5), (-1.0, 0.6)]), "points.step[1] is -1"),
        (fit(&[(1.0, f64::NAN)]), "points.value[0] is NaN"),
    ] {
        assert!(message.contains(expected), "{message}");
    }
    let flat = |step: f64, value: f64| StepCurve::new(vec![step], vec![value]).unwrap();
    let problem = |rate: StepCurve, accuracy_min| StepCompression {
        accuracy: flat(1.0, 0.9),
        accuracy_min,
        rate,
    };
    for (problem, expected) in [
        (
            problem(flat(2.0, 0.1), 0.5),
            "is 2, expected at most the last of both",
        ),
        (problem(flat(1.0, 0.0), 0.5), "rate.value[0] is 0"),
        (problem(flat(1.0, 0.1), f64::NAN), "accuracy_min is NaN"),
    ] {
        let message = best_step(&problem).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    let json = r#"{"step": [1, 2], "value": [0.5, 0.6]}"#;
    let message = serde_json::from_str::<StepCurve>(json)
        .unwrap_err()
        .to_string();
    assert!(message.contains("value[1] is 0.6"), "{message}");
}
