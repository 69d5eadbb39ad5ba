//! The exact solvers: bandwidths of random devices with and without caps, two pools, the joint
//! problem of the paper's setting, a cut for every device; answers checked.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sft_opt::bandwidth::{Regime, allocate_bandwidth_into};
use sft_opt::plan::{KeepScale, Rate, Term, optimize_device_cuts};
use sft_opt::system::{Fading, ServerModel, random_clocks_hz};
use sft_opt::{
    Accuracy, Compression, Device, Problem, Server, System, Training, Transformer,
    allocate_bandwidth, optimize,
};

const DEVICES: [usize; 3] = [8, 1_000, 1_000_000];
const HZ_PER_DEVICE: f64 = 4e6;

/// Demands of the paper's size: minutes of compute, gigabits of payload, fading links.
struct Demands {
    a_s: Vec<f64>,
    c: Vec<f64>,
    caps: Vec<f64>,
}

fn demands(n: usize) -> Demands {
    let gains = |round| {
        (0..n).map(move |d| Fading::new(1).gain(d, round, sft_opt::system::Direction::Uplink))
    };
    Demands {
        a_s: sft_opt::system::random_clocks_hz(n, 200.0..800.0, 1),
        c: gains(0)
            .map(|gain| 4e9 / sft_opt::system::spectral_efficiency(17.0, gain))
            .collect(),
        caps: gains(1).map(|gain| HZ_PER_DEVICE * (4.0 + gain)).collect(),
    }
}

fn bandwidth(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bandwidth");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(3));
    for n in DEVICES {
        let demands = demands(n);
        let problem = |cap_hz| Problem {
            a_s: &demands.a_s,
            c_bits_per_bps_hz: &demands.c,
            total_hz: HZ_PER_DEVICE * n as f64,
            cap_hz,
        };
        let (free, capped) = (problem(None), problem(Some(&demands.caps)));
        let check = allocate_bandwidth(&free).expect("legal problem");
        assert_eq!(check.value.regime, Some(Regime::Bandwidth));
        assert!((check.value.used_hz / free.total_hz - 1.0).abs() < 1e-12);
        println!("N = {n}: {} steps", check.iterations);

        let mut b_hz = vec![0.0; n];
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(BenchmarkId::new("free", n), |bench| {
            bench.iter(|| allocate_bandwidth(black_box(&free)).expect("legal").tau_s);
        });
        group.bench_function(BenchmarkId::new("free_into", n), |bench| {
            bench.iter(|| {
                allocate_bandwidth_into(black_box(&free), &mut b_hz)
                    .expect("legal")
                    .tau_s
            });
        });
        group.bench_function(BenchmarkId::new("capped_into", n), |bench| {
            bench.iter(|| {
                allocate_bandwidth_into(black_box(&capped), &mut b_hz)
                    .expect("legal")
                    .tau_s
            });
        });
    }
    group.finish();
}

/// The paper's model and devices, with links that fade.
fn system(devices: usize, model: ServerModel) -> System {
    let with_clock = |clock_hz| {
        let mut device = Device::default();
        device.clock_hz = clock_hz;
        device
    };
    let clocks_hz = random_clocks_hz(devices, 0.5e9..1.5e9, 1);
    let mut server = Server::default();
    server.model = model;
    System::new(
        Transformer::vit_base(100),
        Training::default(),
        server,
        clocks_hz.into_iter().map(with_clock).collect(),
        4e6 * devices as f64,
    )
    .expect("legal system")
}

/// 0.9 at full size, 2 % less allowed, 8 choices of bits.
fn compression() -> Compression {
    let terms = [(0, 0, 0.84), (1, 0, 0.012), (0, 1, 0.012), (0, 2, -0.0006)];
    let terms = terms.map(|(i, j, w)| Term { i, j, w });
    Compression {
        accuracy: Accuracy::new(KeepScale::Log2Keep, &terms).expect("legal terms"),
        accuracy_min: 0.85,
        keep_min: 0.01,
        keep_max: 1.0,
        bits_min: 1,
        bits_max: 8,
        rate: Rate::Formula,
    }
}

fn joint(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("joint");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(3));
    let compression = compression();
    for model in [ServerModel::Sequential, ServerModel::OptimalShare] {
        let system = system(8, model);
        let links = system.faded_links(Fading::new(1), 0);
        let problem = system.joint_problem(&links, false).expect("legal");
        let best = optimize(&problem, &compression).expect("legal").feasible();
        assert!(best.is_some());
        group.bench_function(BenchmarkId::new("optimize", model.as_str()), |bench| {
            bench.iter(|| optimize(black_box(&problem), &compression).expect("legal"));
        });
        group.bench_function(BenchmarkId::new("with_system", model.as_str()), |bench| {
            bench.iter(|| {
                let problem = system.joint_problem(black_box(&links), false);
                optimize(&problem.expect("legal"), &compression).expect("legal")
            });
        });
    }
    let system = system(1_000, ServerModel::Even);
    let links = system.faded_links(Fading::new(1), 0);
    let problem = system.joint_problem(&links, false).expect("legal");
    group.bench_function("device_cuts/1000", |bench| {
        bench.iter(|| optimize_device_cuts(black_box(&problem), &compression).expect("legal"));
    });
    group.finish();
}

criterion_group!(benches, bandwidth, joint);
criterion_main!(benches);
