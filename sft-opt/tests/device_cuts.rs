//! A cut layer for every device: against every combination and against bisection.

#![allow(clippy::float_cmp, reason = "limits are exact")]

mod common;

use common::joint::{Rng, compression, joint_problem};
use sft_opt::bandwidth::{TwoPools, allocate_two_pools};
use sft_opt::plan::{JointProblem, best_compression, optimize_device_cuts};
use sft_opt::system::{Fading, ServerModel, random_clocks_hz};
use sft_opt::{
    Compression, Constraint, Problem, Round, System, Training, Transformer, allocate_bandwidth,
    optimize,
};

/// An instance whose devices differ in what a block costs them.
fn instance(rng: &mut Rng, n: usize, cuts: usize) -> (JointProblem, Compression) {
    let mut compression = compression(rng);
    compression.accuracy_min = 0.8;
    let mut problem = joint_problem(rng);
    let device: Vec<[f64; 3]> = (0..n)
        .map(|_| {
            [
                rng.range(-60.0, 60.0),
                rng.range(200.0, 900.0),
                rng.range(0.0, 1e9),
            ]
        })
        .collect();
    let template = problem.cuts[0].clone();
    problem.cuts = (1..=cuts)
        .map(|cut| {
            let mut option = template.clone();
            option.cut = cut;
            option.memory_bytes = 1e8 * cut as f64;
            option.a_s = (device.iter())
                .map(|[slope, base, _]| (base + slope * cut as f64).max(0.0))
                .collect();
            option.c_fixed = device.iter().map(|[_, _, c]| c * cut as f64).collect();
            option
        })
        .collect();
    problem.c_beta = (0..n).map(|_| rng.decades(9.5, 10.5)).collect();
    problem.memory_max_bytes = (0..n)
        .map(|_| 1e8 * rng.range(1.5, cuts as f64 + 1.0))
        .collect();
    problem.total_hz = 4e6 * n as f64;
    if rng.uniform() < 0.5 {
        problem.cap_hz = Some((0..n).map(|_| rng.decades(5.5, 8.0)).collect());
    }
    (problem, compression)
}

/// `a` and `c` of device `n` at cut number `k`.
fn entry(problem: &JointProblem, beta: f64, n: usize, k: usize) -> (f64, f64) {
    let option = &problem.cuts[k];
    let c = option.c_fixed[n] + beta * problem.c_beta[n];
    (option.a_s[n], c)
}

fn fits(problem: &JointProblem, n: usize, k: usize) -> bool {
    problem.cuts[k].memory_bytes < problem.memory_max_bytes[n]
}

#[test]
fn no_combination_is_better() {
    let mut rng = Rng(31);
    for _ in 0..60 {
        let (problem, compression) = instance(&mut rng, 4, 5);
        let beta = best_compression(&compression).unwrap().unwrap().beta;
        let answer = optimize_device_cuts(&problem, &compression).unwrap();
        let answer = answer.feasible().unwrap();
        let mut best = f64::INFINITY;
        for code in 0..5usize.pow(4) {
            let choice: Vec<usize> = (0..4u32).map(|n| code / 5usize.pow(n) % 5).collect();
            if !(0..4).all(|n| fits(&problem, n, choice[n])) {
                continue;
            }
            let (a_s, c): (Vec<f64>, Vec<f64>) =
                (0..4).map(|n| entry(&problem, beta, n, choice[n])).unzip();
            let p2 = Problem {
                a_s: &a_s,
                c_bits_per_bps_hz: &c,
                total_hz: problem.total_hz,
                cap_hz: problem.cap_hz.as_deref(),
            };
            best = best.min(allocate_bandwidth(&p2).unwrap().tau_s);
        }
        let gap = answer.tau_s / best - 1.0;
        assert!(gap.abs() < 1e-12, "{gap:e}");
        assert!(
            answer
                .value
                .cuts
                .iter()
                .enumerate()
                .all(|(n, cut)| fits(&problem, n, cut - 1))
        );
    }
}

#[test]
fn agrees_with_bisection_and_beats_a_common_cut() {
    let mut rng = Rng(32);
    for n in [1, 7, 100, 1000] {
        let (problem, compression) = instance(&mut rng, n, 12);
        let beta = best_compression(&compression).unwrap().unwrap().beta;
        let need = |tau: f64, n: usize| {
            let cap = problem.cap_hz.as_ref().map_or(f64::INFINITY, |cap| cap[n]);
            (0..12)
                .filter(|&k| fits(&problem, n, k))
                .map(|k| entry(&problem, beta, n, k))
                .filter(|&(a, c)| a < tau && c / (tau - a) <= cap)
                .map(|(a, c)| c / (tau - a))
                .fold(f64::INFINITY, f64::min)
        };
        let (mut low, mut high) = (0.0, 1e9);
        for _ in 0..200 {
            let tau = f64::midpoint(low, high);
            let met = (0..n).map(|n| need(tau, n)).sum::<f64>() <= problem.total_hz;
            *(if met { &mut high } else { &mut low }) = tau;
        }
        let answer = optimize_device_cuts(&problem, &compression).unwrap();
        let answer = answer.feasible().unwrap();
        let gap = answer.tau_s / high - 1.0;
        assert!(gap.abs() < 1e-12, "{n}: {gap:e}");
        assert!(answer.iterations <= 12, "{} iterations", answer.iterations);
        if let Some(common) = optimize(&problem, &compression).unwrap().feasible() {
            assert!(answer.tau_s <= common.tau_s * (1.0 + 1e-12));
        }
    }
}

#[test]
fn a_device_without_demand_moves_to_a_cut_that_finishes_earlier() {
    // At cut 1 device 0 sends nothing but computes for 9 s; at cut 2 it finishes at 1 + 4/b.
    let mut rng = Rng(33);
    let (mut problem, compression) = instance(&mut rng, 2, 2);
    problem.memory_max_bytes = vec![f64::INFINITY; 2];
    problem.cap_hz = None;
    problem.total_hz = 4.0;
    problem.c_beta = vec![0.0; 2];
    for (option, [a, c]) in problem.cuts.iter_mut().zip([[9.0, 0.0], [1.0, 4.0]]) {
        option.a_s = vec![a, 1.0];
        option.c_fixed = vec![c, 4.0];
    }
    let answer = optimize_device_cuts(&problem, &compression).unwrap();
    let answer = answer.feasible().unwrap();
    assert_eq!((answer.tau_s, answer.value.cuts[0]), (3.0, 2));
}

/// Every device may have any cut that fits and shares of band and server.
fn shared_instance(rng: &mut Rng, n: usize, cuts: usize) -> (JointProblem, Compression) {
    let (mut problem, compression) = instance(rng, n, cuts);
    problem.server_model = ServerModel::OptimalShare;
    problem.server_flop_per_s = rng.decades(11.0, 13.5);
    let work: Vec<f64> = (0..n).map(|_| rng.decades(12.5, 13.5)).collect();
    for option in &mut problem.cuts {
        let left = (cuts + 1 - option.cut) as f64;
        option.server_flop = work.iter().map(|work| work * left).collect();
        // Blocks on the device take its time.
        option.a_s = (work.iter())
            .map(|work| 1.0 + option.cut as f64 * work / 3e11)
            .collect();
    }
    (problem, compression)
}

#[test]
fn shares_of_the_server_against_every_combination() {
    let mut rng = Rng(35);
    let (mut mixed, mut branched) = (0, 0);
    for case in 0..60 {
        let (n, cuts) = (rng.count(1, 4), rng.count(2, 5));
        let (problem, compression) = shared_instance(&mut rng, n, cuts);
        let beta = best_compression(&compression).unwrap().unwrap().beta;
        let mut least = f64::INFINITY;
        for code in 0..cuts.pow(n as u32) {
            let chosen: Vec<usize> = (0..n).map(|k| code / cuts.pow(k as u32) % cuts).collect();
            if !(0..n).all(|k| fits(&problem, k, chosen[k])) {
                continue;
            }
            let entries: Vec<_> = (0..n)
                .map(|k| entry(&problem, beta, k, chosen[k]))
                .collect();
            let (a_s, c): (Vec<f64>, Vec<f64>) = entries.into_iter().unzip();
            let flop: Vec<f64> = (0..n)
                .map(|k| problem.cuts[chosen[k]].server_flop[k])
                .collect();
            let pools = TwoPools {
                a_s: &a_s,
                demands: [&c, &flop],
                totals: [problem.total_hz, problem.server_flop_per_s],
                caps: [problem.cap_hz.as_deref(), None],
            };
            least = least.min(allocate_two_pools(&pools).unwrap().tau_s);
        }
        let answer = optimize_device_cuts(&problem, &compression).unwrap();
        let answer = answer.feasible().unwrap();
        let gap = answer.tau_s / least - 1.0;
        assert!(gap.abs() < 1e-8, "{case}: {gap:e}");
        assert!(answer.bound_s >= answer.tau_s * (1.0 - 1e-8), "{case}");
        assert_eq!(answer.value.server_flop_per_s.unwrap().len(), n);
        branched += usize::from(answer.iterations > 1);
        mixed += usize::from(
            answer
                .value
                .cuts
                .iter()
                .any(|&cut| cut != answer.value.cuts[0]),
        );
    }
    println!("{mixed} answers with different cuts, {branched} needed branches");
    assert!(mixed > 10 && branched > 5);
}

#[test]
fn shares_of_the_server_for_many_devices_come_with_a_bound() {
    let mut rng = Rng(36);
    for n in [8, 40, 200] {
        let (mut problem, compression) = shared_instance(&mut rng, n, 11);
        problem.server_flop_per_s = 2e11 * n as f64;
        problem.memory_max_bytes = vec![1e12; n];
        problem.cap_hz = None;
        let answer = optimize_device_cuts(&problem, &compression).unwrap();
        let answer = answer.feasible().unwrap();
        let common = optimize(&problem, &compression)
            .unwrap()
            .feasible()
            .unwrap();
        assert!(answer.tau_s <= common.tau_s * (1.0 + 1e-12));
        let gap = 1.0 - answer.bound_s / answer.tau_s;
        let gain = 1.0 - answer.tau_s / common.tau_s;
        println!(
            "{n}: gap {gap:.1e}, {gain:.3} faster, {} branches",
            answer.iterations
        );
        assert!((0.0..0.3 / n as f64).contains(&gap), "{n}: {gap:e}");
    }
}

/// A round with the cuts and shares of the answer lasts as long as it claims.
#[test]
fn a_system_times_its_own_answer() {
    let mut clocks = random_clocks_hz(6, 0.5e9..1.5e9, 1);
    clocks[0] = 0.05e9;
    for model in [
        ServerModel::PerDevice,
        ServerModel::Even,
        ServerModel::OptimalShare,
    ] {
        // A server as slow as its devices: some compute more of the model than others.
        let mut server = common::system::server(model);
        server.clock_hz = 0.1e9;
        let system = System::new(
            Transformer::vit_base(100),
            Training::default(),
            server,
            common::system::devices(&clocks),
            30e6,
        )
        .unwrap();
        let mut compression = compression(&mut Rng(2));
        compression.accuracy_min = 0.85;
        let links = system.faded_links(Fading::new(1), 3);
        let problem = system.joint_problem(&links, false).unwrap();
        let answer = optimize_device_cuts(&problem, &compression).unwrap();
        let answer = answer.feasible().unwrap();
        let best = &answer.value;
        assert!(
            best.cuts.iter().any(|&cut| cut != best.cuts[0]),
            "{model:?}"
        );
        let placements = best.placements();
        let payloads = system
            .payloads(&placements, best.setting.beta, false)
            .unwrap();
        let round = Round {
            placements: &placements,
            links: &links,
            payloads: &payloads,
        };
        let delay = match &best.server_flop_per_s {
            Some(shares) => system.shared_delay(&round, &best.b_hz, shares),
            None => system.parallel_delay(&round, &best.b_hz),
        };
        let gap = delay.unwrap().total_s / answer.tau_s - 1.0;
        assert!(gap.abs() < 1e-9, "{model:?}: {gap:e}");
    }
}

#[test]
fn limits_and_mistakes() {
    let mut rng = Rng(34);
    let (mut problem, compression) = instance(&mut rng, 3, 4);
    problem.server_model = ServerModel::Sequential;
    let message = optimize_device_cuts(&problem, &compression)
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("server model is sequential"),
        "{message}"
    );
    problem.server_model = ServerModel::Even;
    problem.memory_max_bytes[1] = problem.cuts[0].memory_bytes;
    let answer = optimize_device_cuts(&problem, &compression).unwrap();
    assert_eq!(answer.status.constraint(), Some(Constraint::Memory));
    problem.memory_max_bytes[1] = 1e12;
    problem.cap_hz = Some(vec![0.0, 1e6, 1e6]);
    let answer = optimize_device_cuts(&problem, &compression).unwrap();
    assert_eq!(answer.status.constraint(), Some(Constraint::Bandwidth));
}
