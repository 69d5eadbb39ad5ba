//! P1 and P against exhaustive search, and what a system asks for.

#![allow(clippy::float_cmp, reason = "limits are exact")]

mod common;

use common::joint::{Rng, compression, joint_problem, surface};
use sft_opt::bandwidth::{TwoPools, allocate_two_pools};
use sft_opt::plan::{KeepScale, Rate, RateGrid, Term, best_compression, configure};
use sft_opt::system::{LabelSide, ServerModel};
use sft_opt::{
    Accuracy, Compression, Constraint, Device, Problem, Server, System, Training, Transformer,
    allocate_bandwidth, optimize,
};

/// Least `β` on a fine grid that is accurate enough.
fn on_grid(problem: &Compression, steps: u32) -> Option<f64> {
    let keep = |k: u32| {
        problem.keep_min + (problem.keep_max - problem.keep_min) * f64::from(k) / f64::from(steps)
    };
    (problem.bits_min..=problem.bits_max)
        .flat_map(|bits| (0..=steps).map(move |k| (keep(k), bits)))
        .filter(|&(keep, bits)| problem.accuracy.at(keep, bits.into()) >= problem.accuracy_min)
        .filter_map(|(keep, bits)| problem.rate.at(keep, bits))
        .min_by(f64::total_cmp)
}

#[test]
fn no_grid_point_is_better() {
    let mut rng = Rng(5);
    let mut found = 0;
    for case in 0..300 {
        let mut problem = compression(&mut rng);
        if case % 3 == 0 {
            problem.rate = Rate::Table(measured(&mut rng));
        }
        let best = best_compression(&problem).unwrap();
        let grid = on_grid(&problem, 4_000);
        let Some(best) = best else {
            assert_eq!(grid, None);
            continue;
        };
        found += 1;
        assert!(best.accuracy >= problem.accuracy_min - 1e-14);
        assert!((problem.keep_min..=problem.keep_max).contains(&best.keep));
        assert_eq!(problem.rate.at(best.keep, best.bits), Some(best.beta));
        if let Some(grid) = grid {
            assert!(
                best.beta <= grid * (1.0 + 1e-12),
                "{} above {grid}",
                best.beta
            );
            // Narrow feasible intervals may hold no grid point.
            assert!(best.beta >= 0.9 * grid, "{} far below {grid}", best.beta);
        }
    }
    assert!(found > 200, "{found} feasible");
}

/// Rates that a formula would give, with noise.
fn measured(rng: &mut Rng) -> RateGrid {
    let keep = vec![0.02, 0.1, 0.2, 0.5, 1.0];
    let bits: Vec<u32> = (1..=8).collect();
    let row = |&q: &u32| {
        let beta = |&keep: &f64| keep * (1.4 + f64::from(q)) / 32.0 * rng.range(0.9, 1.1);
        keep.iter().map(beta).collect()
    };
    let beta = bits.iter().map(row).collect();
    RateGrid::new(keep, bits, beta).unwrap()
}

#[test]
fn dense_is_a_candidate() {
    // Everything must be kept but for a sliver, and dense needs no positions.
    let terms = [Term { i: 1, j: 0, w: 1.0 }];
    let problem = Compression {
        accuracy: Accuracy::new(KeepScale::Keep, &terms).unwrap(),
        accuracy_min: 0.97,
        keep_min: 0.1,
        keep_max: 1.0,
        bits_min: 1,
        bits_max: 1,
        rate: Rate::Formula,
    };
    let best = best_compression(&problem).unwrap().unwrap();
    assert_eq!((best.keep, best.beta), (1.0, 2.0 / 32.0));
    assert!(problem.rate.at(0.97, 1).unwrap() > best.beta);
}

#[test]
fn non_monotone_surface_takes_the_better_interval() {
    // Accurate enough near 0.2 and from 0.8 on: fewer bits near 0.2.
    let k = [-0.16 * 0.8, 0.16 + 0.8 * 0.8, -1.6, 1.0];
    let terms: Vec<Term> = (0..4).map(|i| Term { i, j: 0, w: k[i] }).collect();
    let problem = Compression {
        accuracy: Accuracy::new(KeepScale::Keep, &terms).unwrap(),
        accuracy_min: 0.0,
        keep_min: 0.05,
        keep_max: 1.0,
        bits_min: 3,
        bits_max: 3,
        rate: Rate::Formula,
    };
    let best = best_compression(&problem).unwrap().unwrap();
    // (x - 0.4)²(x - 0.8) + 0.032·… is checked by value, not by hand.
    assert!(best.accuracy >= -1e-15);
    assert!(best.beta <= on_grid(&problem, 100_000).unwrap() * (1.0 + 1e-12));
}

#[test]
fn configuration_is_the_best_of_all() {
    let mut rng = Rng(11);
    for _ in 0..200 {
        let (problem, compression) = (joint_problem(&mut rng), compression(&mut rng));
        let b_hz: Vec<f64> = (problem.c_beta.iter())
            .map(|_| problem.total_hz * rng.range(0.01, 0.3))
            .collect();
        let answer = configure(&problem, &compression, &b_hz).unwrap();
        let delay = |a: &[f64], c_fixed: &[f64], beta: f64| {
            (0..a.len())
                .map(|n| a[n] + (c_fixed[n] + beta * problem.c_beta[n]) / b_hz[n])
                .fold(0.0, f64::max)
        };
        let Some(beta) = on_grid(&compression, 4_000) else {
            continue;
        };
        let limit = problem.memory_max_bytes[0];
        let grid = (problem.cuts.iter().filter(|cut| cut.memory_bytes < limit))
            .map(|cut| delay(&cut.a_s, &cut.c_fixed, beta))
            .min_by(f64::total_cmp);
        let Some(grid) = grid else {
            assert_eq!(answer.status.constraint(), Some(Constraint::Memory));
            continue;
        };
        let answer = answer.feasible().unwrap();
        assert!(answer.tau_s <= grid * (1.0 + 1e-12));
        let cut = problem.cuts.iter().find(|cut| cut.cut == answer.value.cut);
        let cut = cut.unwrap();
        assert!(cut.memory_bytes < limit);
        let expected = delay(&cut.a_s, &cut.c_fixed, answer.value.setting.beta);
        assert!((answer.tau_s / expected - 1.0).abs() < 1e-14);
    }
}

#[test]
fn joint_optimum_is_the_best_p2_over_grid_and_cuts() {
    let mut rng = Rng(12);
    for _ in 0..60 {
        let (problem, compression) = (joint_problem(&mut rng), compression(&mut rng));
        let answer = optimize(&problem, &compression).unwrap();
        let Some(answer) = answer.feasible() else {
            continue;
        };
        let limit = problem.memory_max_bytes[0];
        for cut in problem.cuts.iter().filter(|cut| cut.memory_bytes < limit) {
            for bits in compression.bits_min..=compression.bits_max {
                for k in 0..=40 {
                    let keep = compression.keep_min
                        + (compression.keep_max - compression.keep_min) * f64::from(k) / 40.0;
                    let reached = compression.accuracy.at(keep, bits.into());
                    if reached < compression.accuracy_min {
                        continue;
                    }
                    let beta = compression.rate.at(keep, bits).unwrap();
                    let c: Vec<f64> = (cut.c_fixed.iter().zip(&problem.c_beta))
                        .map(|(fixed, raw)| fixed + beta * raw)
                        .collect();
                    let p2 = Problem {
                        a_s: &cut.a_s,
                        c_bits_per_bps_hz: &c,
                        total_hz: problem.total_hz,
                        cap_hz: None,
                    };
                    let tau_s = allocate_bandwidth(&p2).unwrap().tau_s;
                    assert!(answer.tau_s <= tau_s * (1.0 + 1e-12));
                }
            }
        }
        // What it claims is what its bandwidths achieve.
        let given = configure(&problem, &compression, &answer.value.b_hz).unwrap();
        let given = given.feasible().unwrap();
        assert!((given.tau_s / answer.tau_s - 1.0).abs() < 1e-12);
    }
}

#[test]
fn infeasible_names_the_constraint() {
    let mut rng = Rng(9);
    let (mut problem, mut compression) = (joint_problem(&mut rng), compression(&mut rng));
    assert!(problem.devices() > 1);
    problem.memory_max_bytes = vec![problem.cuts[0].memory_bytes; problem.devices()];
    compression.accuracy_min = 0.5;
    let solve =
        |problem: &_, compression: &_| optimize(problem, compression).unwrap().status.constraint();
    // Strict: memory equal to the limit does not fit.
    assert_eq!(solve(&problem, &compression), Some(Constraint::Memory));
    problem.memory_max_bytes[0] = f64::INFINITY;
    assert_eq!(solve(&problem, &compression), Some(Constraint::Memory));
    problem.memory_max_bytes.fill(f64::INFINITY);
    assert_eq!(solve(&problem, &compression), None);
    problem.total_hz = 0.0;
    assert_eq!(solve(&problem, &compression), Some(Constraint::Bandwidth));
    compression.accuracy_min = 2.0;
    assert_eq!(solve(&problem, &compression), Some(Constraint::Accuracy));
}

#[test]
fn mistakes_are_named() {
    let mut rng = Rng(4);
    let (good, box_) = (joint_problem(&mut rng), compression(&mut rng));
    let message = |change: &dyn Fn(&mut sft_opt::plan::JointProblem, &mut Compression)| {
        let (mut problem, mut compression) = (good.clone(), box_.clone());
        change(&mut problem, &mut compression);
        optimize(&problem, &compression).unwrap_err().to_string()
    };
    let cases = [
        (
            message(&|p, _| p.cuts[1].a_s[0] = f64::NAN),
            "a_s[0] is NaN, expected finite and at least 0",
        ),
        (
            message(&|p, _| p.c_beta[0] = -1.0),
            "c_beta[0] is -1, expected finite and at least 0",
        ),
        (
            message(&|p, _| p.cuts.clear()),
            "cuts is empty: at least one is needed",
        ),
        (
            message(&|_, c| c.keep_min = 0.0),
            "keep_min is 0, expected above 0 and at most 1",
        ),
        (
            message(&|_, c| c.keep_max = 1.5),
            "keep_max is 1.5, expected from keep_min to 1",
        ),
        (
            message(&|_, c| c.bits_max = 33),
            "bits_max is 33, expected from bits_min to 32",
        ),
        (
            message(&|_, c| c.accuracy_min = f64::NAN),
            "accuracy_min is NaN, expected finite",
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
    let short = configure(&good, &box_, &[1.0]).unwrap_err().to_string();
    assert!(short.starts_with("b_hz has 1 entries"), "{short}");
    let degree = Accuracy::new(KeepScale::Keep, &[Term { i: 2, j: 2, w: 1.0 }]);
    assert_eq!(
        degree.unwrap_err().to_string(),
        "terms.i + j[0] is 4, expected at most 3"
    );
}

fn paper_system(server_hz: f64, model: ServerModel) -> System {
    let device = |clock_hz| {
        let mut device = Device::default();
        device.clock_hz = clock_hz;
        device
    };
    let devices = sft_opt::system::random_clocks_hz(8, 0.5e9..1.5e9, 1);
    let mut server = Server::default();
    server.clock_hz = server_hz;
    server.model = model;
    System::new(
        Transformer::vit_base(100),
        Training::default(),
        server,
        devices.into_iter().map(device).collect(),
        30e6,
    )
    .unwrap()
}

#[test]
fn a_system_asks_what_its_rounds_ask() {
    let above = paper_system(3e9, ServerModel::Sequential);
    let mut training = *above.training();
    (training.labels, training.bits_per_feature) = (LabelSide::Device, Some(4.0));
    let (model, server, devices) = (*above.model(), *above.server(), above.devices().to_vec());
    let below = System::new(model, training, server, devices, above.total_hz()).unwrap();
    for (system, first) in [
        (&above, true),
        (&above, false),
        (&below, true),
        (&below, false),
    ] {
        let links = system.links();
        let problem = system.joint_problem(&links, first).unwrap();
        assert_eq!(problem.cuts.len(), 11);
        for option in &problem.cuts {
            let placement = sft_opt::Placement::Split { cut: option.cut };
            let payloads = system
                .payloads(&system.everywhere(placement), 0.07, first)
                .unwrap();
            let round = sft_opt::Round {
                placements: &system.everywhere(placement),
                links: &links,
                payloads: &payloads,
            };
            let demands = system.demands(&round).unwrap();
            assert_eq!(option.a_s, demands.a_s);
            for (n, expected) in demands.c_bits_per_bps_hz.iter().enumerate() {
                let found = option.c_fixed[n] + 0.07 * problem.c_beta[n];
                assert!((found / expected - 1.0).abs() < 1e-14);
            }
        }
    }
}

#[test]
fn papers_own_numbers_want_cut_one() {
    let compression = Compression {
        accuracy: surface(&mut Rng(1), 0.0),
        accuracy_min: 0.86,
        keep_min: 0.05,
        keep_max: 1.0,
        bits_min: 1,
        bits_max: 8,
        rate: Rate::Formula,
    };
    let cut = |server_hz, model| {
        let system = paper_system(server_hz, model);
        let problem = system.joint_problem(&system.links(), false).unwrap();
        let answer = optimize(&problem, &compression).unwrap().feasible();
        answer.unwrap().value.cut
    };
    assert_eq!(cut(3e9, ServerModel::Sequential), 1);
    assert!((2..11).contains(&cut(1.16e9, ServerModel::Sequential)));
    // Eleven blocks do not fit into 8192 MiB.
    assert_eq!(cut(0.5e9, ServerModel::Sequential), 10);
}

#[test]
fn shared_server_is_never_slower_than_an_even_one() {
    let compression = compression(&mut Rng(2));
    for server_hz in [0.5e9, 1e9, 3e9] {
        let tau = |model| {
            let system = paper_system(server_hz, model);
            let links = system.faded_links(sft_opt::system::Fading::new(3), 1);
            let problem = system.joint_problem(&links, false).unwrap();
            let best = optimize(&problem, &compression)
                .unwrap()
                .feasible()
                .unwrap();
            // Given its bandwidths, the server's best shares are the same.
            let given = configure(&problem, &compression, &best.value.b_hz).unwrap();
            assert!((given.feasible().unwrap().tau_s / best.tau_s - 1.0).abs() < 1e-9);
            best
        };
        let (even, shared) = (tau(ServerModel::Even), tau(ServerModel::OptimalShare));
        assert!(shared.tau_s < even.tau_s);
        assert!(even.value.server_flop_per_s.is_none());
        let shares = shared.value.server_flop_per_s.unwrap();
        let used: f64 = shares.iter().sum();
        assert!((used / (server_hz * 2048.0 * 4.0) - 1.0).abs() < 1e-9);
    }
}

#[test]
fn shared_round_finishes_together() {
    let system = paper_system(1e9, ServerModel::OptimalShare);
    let placement = sft_opt::Placement::Split { cut: 5 };
    let payloads = system
        .payloads(&system.everywhere(placement), 0.068, true)
        .unwrap();
    let links = system.links();
    let round = sft_opt::Round {
        placements: &system.everywhere(placement),
        links: &links,
        payloads: &payloads,
    };
    assert!(
        system
            .demands(&round)
            .unwrap_err()
            .to_string()
            .starts_with("server model is optimal_share")
    );
    let pools = system.server_pools(&round).unwrap();
    let best = allocate_two_pools(&pools.problem()).unwrap();
    let delay = system
        .shared_delay(&round, &best.value.shares[0], &best.value.shares[1])
        .unwrap();
    for phases in &delay.devices {
        assert!((phases.total_s() / best.tau_s - 1.0).abs() < 1e-12);
    }
    // Both directions after each other, each in half the band: twice the time on the air.
    let system = paper_system(1e9, ServerModel::Even);
    let duplex = system.duplex_pools(&round, 15e6, 15e6).unwrap();
    let split = allocate_two_pools(&TwoPools {
        a_s: &system.demands(&round).unwrap().a_s,
        ..duplex.problem()
    });
    let one = system.demands(&round).unwrap();
    let one = allocate_bandwidth(&one.problem()).unwrap();
    let split = split.unwrap();
    assert!(split.tau_s > one.tau_s && split.tau_s < 2.0 * one.tau_s);
}
