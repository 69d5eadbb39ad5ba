//! The step of a dead zone: outliers, wanted errors, and that nothing becomes nothing.

mod common;

use common::view;
use proptest::prelude::*;
use sft_compress::{
    Codec, Compressor, Context, Dtype, Elements, Energy, ErrorFeedback, Tensor, TensorView, decode,
    inspect,
};

/// Normally distributed numbers, nearly.
fn normal(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..len)
        .map(|_| (0..12).map(|_| uniform()).sum::<f32>())
        .collect()
}

/// Tensors of many kinds, with their names.
fn kinds(len: usize) -> Vec<(&'static str, Vec<f32>)> {
    let bell = normal(7, len);
    let each = |f: &dyn Fn(usize, f32) -> f32| -> Vec<f32> {
        bell.iter().enumerate().map(|(i, &x)| f(i, x)).collect()
    };
    vec![
        ("heavy tails", each(&|_, x| x.powi(3))),
        ("even magnitudes", each(&|_, x| 0.25_f32.copysign(x))),
        (
            "uniform",
            each(&|i, _| (i * 37 % 1001) as f32 / 500.0 - 1.0),
        ),
        ("half of them zero", each(&|_, x| x.max(0.0))),
        (
            "uneven rows",
            each(&|i, x| x * ((i / 64 % 16) as f32 - 8.0).exp2()),
        ),
        (
            "dead rows",
            each(&|i, x| if i / 64 % 16 == 3 { x } else { 0.0 }),
        ),
        (
            "massive",
            each(&|i, x| if i % 1000 == 17 { 3e4 * x } else { x }),
        ),
        ("tiny", each(&|_, x| 1e-36 * x)),
        ("huge", each(&|_, x| 5e37 * x)),
        ("bell", bell),
    ]
}

/// The largest magnitude of the bulk, by sorting.
fn bulk(x: &[f32]) -> f32 {
    let mut sorted: Vec<f32> = x.iter().map(|x| x.abs()).collect();
    sorted.sort_by(f32::total_cmp);
    let nonzero = &sorted[sorted.partition_point(|&x| x == 0.0)..];
    let Some(median) = nonzero.get(nonzero.len().saturating_sub(1) / 2) else {
        return 0.0;
    };
    (20.0 * median).max(sorted[sorted.len() - 1 - sorted.len() / 64])
}

/// Squared errors and squares of the elements up to a magnitude.
fn error(x: &[f32], y: &[f32], limit: f32) -> f64 {
    let (mut error, mut energy) = (0.0, 0.0);
    for (&x, &y) in x.iter().zip(y).filter(|(x, _)| x.abs() <= limit) {
        error += (f64::from(x) - f64::from(y)).powi(2);
        energy += f64::from(x).powi(2);
    }
    if energy > 0.0 { error / energy } else { error }
}

fn decoded(codec: Codec, x: &[f32]) -> Vec<f32> {
    let frame = codec.encode(view(x, &[x.len() / 64, 64]), 0).unwrap();
    decode(&frame).unwrap().into_data()
}

#[test]
fn a_wanted_error_is_met() {
    for len in [1 << 12, 1 << 14, 1 << 18] {
        for (kind, x) in kinds(len) {
            for wanted in [0.3, 0.1, 0.02, 0.001] {
                let codec = Codec::for_error(wanted).unwrap();
                let all = error(&x, &decoded(codec.with_energy(Energy::All), &x), f32::MAX);
                let bulk = error(&x, &decoded(codec, &x), bulk(&x));
                // Of even magnitudes all or nothing is kept; of many elements a sample is seen.
                let near = |error: f64| match kind {
                    "even magnitudes" => error < 1e-3,
                    // One row of sixteen has nearly all, and few of them are in the sample.
                    "uneven rows" | "dead rows" => (0.65 * wanted..1.45 * wanted).contains(&error),
                    _ => (0.9 * wanted..1.1 * wanted).contains(&error),
                };
                // Where a few elements have all the energy, one step more or less is much.
                assert!(
                    near(all) || kind == "massive",
                    "{kind}, {len} elements: {all} of all for {wanted}"
                );
                assert!(
                    near(bulk),
                    "{kind}, {len} elements: {bulk} of the bulk for {wanted}"
                );
            }
        }
    }
}

#[test]
fn massive_elements_do_not_widen_the_step_of_the_others() {
    let x = normal(3, 1 << 15);
    let mut massive = x.clone();
    for i in (5..massive.len()).step_by(3000) {
        massive[i] = 2e4;
    }
    for codec in [
        "dead-zone:0.5",
        "dead-zone:1.25",
        "dead-zone:4",
        "error:0.02",
        "error:0.2",
    ] {
        let codec: Codec = codec.parse().unwrap();
        let (plain, found) = (decoded(codec, &x), decoded(codec, &massive));
        let (without, with) = (error(&x, &plain, 10.0), error(&massive, &found, 10.0));
        assert!(
            (with / without - 1.0).abs() < 0.02,
            "{codec}: {without} and {with}"
        );
        let far = massive.iter().zip(&found).filter(|(x, _)| **x > 1e4);
        assert!(
            far.into_iter().all(|(x, y)| (x / y - 1.0).abs() < 1e-3),
            "{codec}"
        );
    }
}

#[test]
fn no_more_than_three_quarters_of_the_energy_are_dropped() {
    for len in [64, 1 << 12, 1 << 17] {
        for (kind, x) in kinds(len) {
            for step in [1.3, 4.0, 20.0, 1000.0] {
                let y = decoded(Codec::dead_zone(step).unwrap(), &x);
                let dropped = error(&x, &y, f32::MAX);
                assert!(
                    dropped < if len > 1 << 14 { 0.9 } else { 0.85 },
                    "{kind}, {len} elements, step {step}: {dropped}"
                );
            }
        }
    }
}

#[test]
fn a_constant_gradient_gets_through_with_error_feedback() {
    let x: Vec<f32> = (0..1024)
        .map(|i| (i * 37 % 1001) as f32 / 500.0 - 1.0)
        .collect();
    for codec in [Codec::default_gradient(), Codec::dead_zone(4.0).unwrap()] {
        let mut feedback = ErrorFeedback::new(codec);
        let (mut sum, mut decoded) = (vec![0.0; x.len()], Tensor::default());
        for seed in 0..200 {
            let context = Context::new(&[16, 64], seed);
            let tensor = view(&x, &[16, 64]);
            feedback
                .compress(tensor, &context, &mut Vec::new(), Some(&mut decoded))
                .unwrap();
            for (sum, y) in sum.iter_mut().zip(decoded.data()) {
                *sum += y / 200.0;
            }
        }
        let off = error(&x, &sum, f32::MAX);
        // What chance leaves of 200 messages, and what is owed after the last.
        assert!(off < 0.05, "{codec}: {off}");
    }
}

/// Any finite number, most of them near to others.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -1.0_f32..1.0,
        2 => Just(0.0_f32),
        1 => any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |x| x.is_finite()),
        1 => (-1.0_f32..1.0).prop_map(|x| x * 1e-42),
    ]
}

proptest! {
    #[test]
    fn what_is_not_zero_does_not_become_zero(
        x in prop::collection::vec(number(), 1..300),
        codec in prop_oneof![
            (-3.0_f64..3.0).prop_map(|x| Codec::dead_zone(10.0_f64.powf(x)).unwrap()),
            (-6.0_f64..-0.13).prop_map(|x| Codec::for_error(10.0_f64.powf(x)).unwrap()),
            (-6.0_f64..-0.13).prop_map(|x| {
                Codec::for_error(10.0_f64.powf(x)).unwrap().with_energy(Energy::All)
            }),
            (-3.0_f64..3.0).prop_map(|x| Codec::unbiased(10.0_f64.powf(x)).unwrap()),
        ],
    ) {
        let frame = codec.encode(view(&x, &[x.len()]), 0).unwrap();
        let nonzero = x.iter().any(|&x| x != 0.0);
        prop_assert_eq!(inspect(&frame).unwrap().kept > 0, nonzero);
        prop_assert_eq!(decode(&frame).unwrap().data().iter().any(|&x| x != 0.0), nonzero);
        let half: Vec<u16> = x.iter().map(|x| (x.to_bits() >> 16) as u16).collect();
        let shape = [x.len()];
        let brain = TensorView::of(Elements::Bf16(&half), &shape).unwrap();
        let frame = codec.encode(brain, 0).unwrap();
        prop_assert_eq!(inspect(&frame).unwrap().dtype, Dtype::Bf16);
        prop_assert_eq!(inspect(&frame).unwrap().kept > 0, half.iter().any(|x| x & 0x7fff != 0));
    }
}

#[test]
fn what_is_rounded_at_random_has_no_bias() {
    const SEEDS: u64 = 2000;
    for (kind, x) in kinds(256) {
        for step in [0.5, 4.0] {
            let codec = Codec::unbiased(step).unwrap();
            let mut mean = vec![0.0_f64; x.len()];
            for seed in 0..SEEDS {
                let frame = codec.encode(view(&x, &[4, 64]), seed).unwrap();
                for (mean, &y) in mean.iter_mut().zip(decode(&frame).unwrap().data()) {
                    *mean += f64::from(y) / SEEDS as f64;
                }
            }
            // What is in the grid is exact; in between the variance is at most a step and the
            // element itself.
            let bulk = bulk(&x);
            let within = || x.iter().filter(|x| x.abs() <= bulk);
            let power: f64 = within().map(|&x| f64::from(x).powi(2)).sum();
            let delta = step * (power / within().count() as f64).sqrt() * 1.1;
            for (x, mean) in x.iter().map(|&x| f64::from(x)).zip(&mean) {
                let deviation = (x.abs().min(0.25 * delta) * delta / SEEDS as f64).sqrt();
                let off = (mean - x).abs();
                assert!(
                    off <= 5.0 * deviation + 1e-6 * x.abs(),
                    "{kind}, step {step}: {x} became {mean}"
                );
            }
        }
    }
}

#[test]
fn a_few_elements_among_zeros_are_found() {
    // Most samples do not show them.
    let mut x = vec![0.0_f32; 1 << 20];
    x[777_777] = -3.5;
    x[900_001] = 1e-3;
    for codec in [
        "dead-zone:0.1",
        "dead-zone:4",
        "error:0.1",
        "error:0.5,of=all",
    ] {
        let codec: Codec = codec.parse().unwrap();
        let y = decoded(codec, &x);
        assert!(
            (y[777_777] / -3.5 - 1.0).abs() < 0.5,
            "{codec}: {}",
            y[777_777]
        );
    }
}
