//! A compression for every device, and the controller on two timescales.

#![allow(clippy::float_cmp, reason = "limits are exact")]

mod common;

use common::joint::{Rng, compression, joint_problem};
use sft_opt::plan::{Assumption, optimize_device_compression, two_timescale};
use sft_opt::system::{Fading, ServerModel, random_clocks_hz};
use sft_opt::{
    Device, Problem, Server, System, Training, Transformer, allocate_bandwidth, optimize,
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
                    // The frontier is sampled: its hull is known to about 1e-5.
                    assert!(tau_s >= answer.bound_s * (1.0 - 1e-4));
                }
            }
        }
    }
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
