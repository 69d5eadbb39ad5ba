//! The exact bandwidth solver: random devices, with and without caps, answers checked.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sft_opt::{Fading, Problem, Regime, allocate_bandwidth, allocate_bandwidth_into};

const DEVICES: [usize; 3] = [8, 1_000, 1_000_000];
const HZ_PER_DEVICE: f64 = 4e6;

/// Demands of the paper's size: minutes of compute, gigabits of payload, fading links.
struct Demands {
    a_s: Vec<f64>,
    c: Vec<f64>,
    caps: Vec<f64>,
}

fn demands(n: usize) -> Demands {
    let gains =
        |round| (0..n).map(move |d| Fading::new(1).gain(d, round, sft_opt::Direction::Uplink));
    Demands {
        a_s: sft_opt::random_clocks_hz(n, 200.0..800.0, 1),
        c: gains(0)
            .map(|gain| 4e9 / sft_opt::spectral_efficiency(17.0, gain))
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
        assert_eq!(check.regime, Regime::Bandwidth);
        assert!((check.used_hz / free.total_hz - 1.0).abs() < 1e-12);
        println!("N = {n}: {} Newton steps", check.iterations);

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

criterion_group!(benches, bandwidth);
criterion_main!(benches);
