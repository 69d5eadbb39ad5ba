//! A compression for every device, and the controller on two timescales.

#![allow(clippy::float_cmp, reason = "limits are exact")]

mod common;

use common::joint::{Rng, compression, joint_problem};
use sft_opt::plan::{
    Assumption, KeepScale, Rate, RateGrid, Term, optimize_device_compression, two_timescale,
};
use sft_opt::system::{Fading, ServerModel, random_clocks_hz};
use sft_opt::{
    Accuracy, Constraint, Device, Problem, Server, System, Training, Transformer,
    allocate_bandwidth, optimize,
};

#[test]
fn own_compressions_gain_and_meet_the_mean_accuracy() {
    let mut rng = Rng(71);
    let (mut cases, mut gained, mut widest) = (0, 0.0, 0.0_f64);
    for _ in 0..60 {
        let (problem, compression) = (joint_problem(&mut rng), compression(&mut rng));
        let weights: Vec<f64> = (0..problem.devices())
            .map(|_| rng.range(0.5, 2.0))
            .collect();
        let answer = optimize_device_compression(&problem, &compression, &weights).unwrap();
        let common = optimize(&problem, &compression).unwrap().feasible();
        let (Some(answer), Some(common)) = (answer.feasible(), common) else {
            continue;
        };
        let total: f64 = weights.iter().sum();
        let mean: f64 = (answer.value.settings.iter().zip(&weights))
            .map(|(setting, w)| w / total * setting.accuracy)
            .sum();
        assert!(mean >= compression.accuracy_min - 1e-12, "{mean}");
        assert!(answer.tau_s <= common.tau_s && answer.bound_s <= answer.tau_s);
        cases += 1;
        gained += 1.0 - answer.tau_s / common.tau_s;
        widest = widest.max(answer.tau_s / answer.bound_s - 1.0);
    }
    assert!(cases > 20);
    println!(
        "{cases} instances: {:.2} % faster on average, gap to the bound at most {:.2} %",
        100.0 * gained / f64::from(cases),
        100.0 * widest
    );
    assert!(widest < 0.05, "{widest}");
}

#[test]
fn no_pair_of_grid_settings_beats_the_bound() {
    let mut rng = Rng(72);
    let mut seen = 0;
    while seen < 5 {
        let (problem, compression) = (joint_problem(&mut rng), compression(&mut rng));
        if problem.devices() != 2 {
            continue;
        }
        let answer = optimize_device_compression(&problem, &compression, &[1.0, 3.0]).unwrap();
        let Some(answer) = answer.feasible() else {
            continue;
        };
        seen += 1;
        let settings: Vec<(f64, f64)> = (compression.bits_min..=compression.bits_max)
            .flat_map(|bits| (0..=30).map(move |k| (bits, f64::from(k) / 30.0)))
            .map(|(bits, part)| {
                let width = compression.keep_max - compression.keep_min;
                let keep = compression.keep_min + part * width;
                let beta = compression.rate.at(keep, bits).unwrap();
                (compression.accuracy.at(keep, bits.into()), beta)
            })
            .collect();
        let limit = problem.memory_max_bytes[0];
        for option in problem.cuts.iter().filter(|cut| cut.memory_bytes < limit) {
            for first in &settings {
                for second in &settings {
                    if 0.25 * first.0 + 0.75 * second.0 < compression.accuracy_min {
                        continue;
                    }
                    let c: Vec<f64> = [first.1, second.1]
                        .iter()
                        .enumerate()
                        .map(|(n, beta)| option.c_fixed[n] + beta * problem.c_beta[n])
                        .collect();
                    let p2 = Problem {
                        a_s: &option.a_s,
                        c_bits_per_bps_hz: &c,
                        total_hz: problem.total_hz,
                        cap_hz: None,
                    };
                    let tau_s = allocate_bandwidth(&p2).unwrap().tau_s;
                    assert!(tau_s >= answer.bound_s * (1.0 - 1e-12));
                }
            }
        }
    }
}

/// Two devices and one cut, with rates that are cheap at one kept fraction only.
#[test]
fn the_bound_holds_at_the_kinks_of_a_table() {
    let mut rng = Rng(73);
    for scale in [KeepScale::Keep, KeepScale::Log2Keep] {
        for _ in 0..20 {
            let (knot, weights) = (rng.range(0.3, 0.4), [1.0, rng.range(0.5, 2.0)]);
            let rising = [(0, 0.9), (1, 0.2), (2, -0.01)];
            let terms = rising.map(|(i, w)| Term { i, j: 0, w });
            let mut wanted = compression(&mut rng);
            wanted.accuracy = Accuracy::new(scale, &terms).unwrap();
            let table = (vec![0.1, knot, 1.0], vec![vec![0.5, 0.05, 0.9]]);
            wanted.rate = Rate::Table(RateGrid::new(table.0, vec![4], table.1).unwrap());
            (wanted.keep_min, wanted.keep_max) = (0.01, 1.0);
            (wanted.bits_min, wanted.bits_max) = (3, 5);
            wanted.accuracy_min = wanted.accuracy.at(knot, 4.0) + rng.range(-0.02, 0.0);
            let mut problem = joint_problem(&mut rng);
            problem.cuts.truncate(1);
            (problem.cuts[0].a_s, problem.cuts[0].c_fixed) = (vec![1.0, 2.0], vec![0.0; 2]);
            problem.c_beta = vec![rng.decades(7.0, 8.0), rng.decades(7.0, 8.0)];
            problem.memory_max_bytes = vec![1e12; 2];
            let answer = optimize_device_compression(&problem, &wanted, &weights).unwrap();
            let answer = answer.feasible().unwrap();
            let c: Vec<f64> = problem.c_beta.iter().map(|raw| 0.05 * raw).collect();
            let p2 = Problem {
                a_s: &problem.cuts[0].a_s,
                c_bits_per_bps_hz: &c,
                total_hz: problem.total_hz,
                cap_hz: None,
            };
            // Nothing is cheaper than the knot, which is accurate enough for both.
            let best_s = allocate_bandwidth(&p2).unwrap().tau_s;
            assert!(answer.bound_s <= best_s * (1.0 + 1e-12), "{knot}");
            assert!((answer.tau_s / best_s - 1.0).abs() < 1e-12, "{knot}");
        }
    }
}

#[test]
fn a_table_may_be_narrower_than_the_box() {
    let mut rng = Rng(74);
    let (mut problem, mut wanted) = (joint_problem(&mut rng), compression(&mut rng));
    problem.memory_max_bytes.fill(1e12);
    (wanted.keep_min, wanted.keep_max) = (0.01, 1.0);
    (wanted.bits_min, wanted.bits_max) = (1, 8);
    let weights = vec![1.0; problem.devices()];
    for keep in [vec![0.2], vec![0.2, 0.2005], vec![0.01], vec![1.0]] {
        let beta = (1..=keep.len()).map(|k| 0.01 * k as f64).collect();
        wanted.rate = Rate::Table(RateGrid::new(keep.clone(), vec![3], vec![beta]).unwrap());
        wanted.accuracy_min = wanted.accuracy.at(keep[0], 3.0) - 1e-9;
        let common = optimize(&problem, &wanted).unwrap().feasible().unwrap();
        let answer = optimize_device_compression(&problem, &wanted, &weights).unwrap();
        let answer = answer.feasible().unwrap();
        assert_eq!(answer.value.settings[0], common.value.setting, "{keep:?}");
        assert!(
            (answer.tau_s / common.tau_s - 1.0).abs() < 1e-12,
            "{keep:?}"
        );
        assert!(
            (answer.bound_s / common.tau_s - 1.0).abs() < 1e-9,
            "{keep:?}"
        );
        wanted.accuracy_min = 2.0;
        let answer = optimize_device_compression(&problem, &wanted, &weights).unwrap();
        assert_eq!(answer.status.constraint(), Some(Constraint::Accuracy));
    }
    // Bits that the box does not have, and a box of a single kept fraction.
    wanted.rate =
        Rate::Table(RateGrid::new(vec![0.1, 1.0], vec![9], vec![vec![0.1, 0.2]]).unwrap());
    wanted.accuracy_min = 0.0;
    let answer = optimize_device_compression(&problem, &wanted, &weights).unwrap();
    assert_eq!(answer.status.constraint(), Some(Constraint::Accuracy));
    wanted.rate = Rate::Formula;
    (wanted.keep_min, wanted.keep_max) = (0.2, 0.2);
    let common = optimize(&problem, &wanted).unwrap().feasible().unwrap();
    let answer = optimize_device_compression(&problem, &wanted, &weights).unwrap();
    assert!(answer.feasible().unwrap().tau_s <= common.tau_s);
}

#[test]
fn the_controller_allocates_every_round() {
    let device = |clock_hz| {
        let mut device = Device::default();
        device.clock_hz = clock_hz;
        device
    };
    let run = |model, assumption, fading| {
        let mut server = Server::default();
        server.model = model;
        let devices = random_clocks_hz(8, 0.5e9..1.5e9, 1);
        let system = System::new(
            Transformer::vit_base(100),
            Training::default(),
            server,
            devices.into_iter().map(device).collect(),
            30e6,
        )
        .unwrap();
        let mut compression = compression(&mut Rng(2));
        compression.accuracy_min = 0.85;
        let run = two_timescale(&system, &compression, assumption, fading, 20).unwrap();
        run.feasible().unwrap()
    };
    let still = run(ServerModel::Sequential, Assumption::Joint, None);
    assert_eq!(still.value.rounds_s.len(), 20);
    // The first round carries the model, the others are alike.
    assert!(still.value.rounds_s[0] > still.value.rounds_s[1]);
    assert!(
        still.value.rounds_s[2..]
            .iter()
            .all(|&s| s == still.value.rounds_s[1])
    );
    assert!((still.value.rounds_s[1] / still.tau_s - 1.0).abs() < 1e-12);
    let faded = run(
        ServerModel::Sequential,
        Assumption::Even,
        Some(Fading::new(1)),
    );
    assert!(faded.value.total_s() > still.value.total_s());
    let shared = run(ServerModel::OptimalShare, Assumption::Joint, None);
    assert!(shared.value.total_s() < still.value.total_s());
}
