//! Random instances of P1 and P.

use sft_opt::plan::{CutOption, JointProblem, KeepScale, Rate, Term};
use sft_opt::system::ServerModel;
use sft_opt::{Accuracy, Compression};

/// A small generator of uniform draws (splitmix64).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Logarithmically uniform.
    pub(crate) fn decades(&mut self, low: f64, high: f64) -> f64 {
        10f64.powf(self.range(low, high))
    }

    pub(crate) fn count(&mut self, low: usize, high: usize) -> usize {
        low + (self.uniform() * (high - low + 1) as f64) as usize
    }
}

/// A surface like the measured ones, in `ρ`, perturbed by up to `noise` of every weight.
pub(crate) fn surface(rng: &mut Rng, noise: f64) -> Accuracy {
    let weights = [
        (0, 0, 0.656),
        (0, 1, 0.0605),
        (0, 2, -0.0105),
        (0, 3, 0.0006),
        (1, 0, 0.81),
        (1, 1, -0.0005),
        (1, 2, 0.00006),
        (2, 0, -1.43),
        (2, 1, -0.0003),
        (3, 0, 0.763),
    ];
    let terms: Vec<Term> = weights
        .iter()
        .map(|&(i, j, w)| Term {
            i,
            j,
            w: w * (1.0 + rng.range(-noise, noise)),
        })
        .collect();
    Accuracy::new(KeepScale::Keep, &terms).unwrap()
}

pub(crate) fn compression(rng: &mut Rng) -> Compression {
    let bits_min = rng.count(1, 3) as u32;
    Compression {
        accuracy: surface(rng, 0.03),
        accuracy_min: rng.range(0.80, 0.92),
        keep_min: rng.range(0.02, 0.1),
        keep_max: rng.range(0.5, 1.0),
        bits_min,
        bits_max: bits_min + rng.count(0, 5) as u32,
        rate: Rate::Formula,
    }
}

pub(crate) fn joint_problem(rng: &mut Rng) -> JointProblem {
    let (n, cuts) = (rng.count(1, 6), rng.count(2, 12));
    let server_slope = rng.range(-80.0, 20.0);
    let device: Vec<f64> = (0..n).map(|_| rng.range(10.0, 80.0)).collect();
    let option = |k: usize| CutOption {
        cut: k + 1,
        memory_bytes: 4e8 + 3e8 * k as f64,
        a_s: (device.iter())
            .map(|slope| 1000.0 + (slope + server_slope) * k as f64)
            .collect(),
        c_fixed: vec![1e6 * (k + 1) as f64; n],
        server_flop: Vec::new(),
    };
    JointProblem {
        cuts: (0..cuts).map(option).collect(),
        c_beta: (0..n).map(|_| rng.decades(9.5, 10.5)).collect(),
        memory_max_bytes: vec![rng.range(3e8, 4e9); n],
        total_hz: rng.decades(6.0, 8.0),
        cap_hz: None,
        server_model: ServerModel::Even,
        server_flop_per_s: 0.0,
    }
}
