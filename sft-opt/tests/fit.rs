//! The fit of the accuracy surface: recovery, residual, warnings, mistakes.

mod common;

use common::joint::{Rng, surface};
use sft_opt::Accuracy;
use sft_opt::plan::{AccuracyPoint, Axis, KeepScale, Term};

fn points(accuracy: impl Fn(f64, f64) -> f64) -> Vec<AccuracyPoint> {
    let keeps = [0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0];
    let bits = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0];
    let pairs = keeps
        .iter()
        .flat_map(|&k| bits.iter().map(move |&q| (k, q)));
    pairs
        .map(|(keep, bits)| AccuracyPoint {
            keep,
            bits,
            accuracy: accuracy(keep, bits),
        })
        .collect()
}

#[test]
fn recovers_a_cubic() {
    let truth = surface(&mut Rng(1), 0.05);
    let fit = Accuracy::fit(KeepScale::Keep, &points(|k, q| truth.at(k, q))).unwrap();
    assert!(fit.rmse < 1e-14 && fit.max_error < 1e-13);
    for (found, expected) in fit.accuracy.terms().iter().zip(truth.terms()) {
        assert_eq!((found.i, found.j), (expected.i, expected.j));
        let error = (found.w - expected.w).abs();
        assert!(error < 1e-12, "{found:?}, {expected:?}");
    }
}

#[test]
fn residual_is_the_least() {
    let mut rng = Rng(2);
    let measured =
        points(|k, q| 0.9 - 0.4 * (-3.0 * (k * q).sqrt()).exp() + 0.002 * (k * 7919.0 + q).sin());
    for scale in [KeepScale::Keep, KeepScale::Log2Keep] {
        let fit = Accuracy::fit(scale, &measured).unwrap();
        let square = |accuracy: &Accuracy| -> f64 {
            (measured.iter())
                .map(|p| (accuracy.at(p.keep, p.bits) - p.accuracy).powi(2))
                .sum()
        };
        let least = square(&fit.accuracy);
        assert!((least / measured.len() as f64 - fit.rmse.powi(2)).abs() < 1e-15);
        for _ in 0..200 {
            let moved: Vec<Term> = (fit.accuracy.terms().into_iter())
                .map(|term| Term {
                    w: term.w + 1e-4 * rng.range(-1.0, 1.0),
                    ..term
                })
                .collect();
            assert!(square(&Accuracy::new(scale, &moved).unwrap()) > least);
        }
    }
}

#[test]
fn says_where_it_is_not_monotone() {
    let rising = Accuracy::fit(
        KeepScale::Log2Keep,
        &points(|k, q| 0.9 + 0.02 * k.log2() + 0.01 * q),
    );
    assert_eq!(rising.unwrap().warnings, []);
    // Falls in ρ above 1/2, most steeply at 1; falls in q above 4.5.
    let hump = |k: f64, q: f64| 0.8 + k * (1.0 - k) - 0.01 * (q - 4.5).powi(2);
    let warnings = Accuracy::fit(KeepScale::Keep, &points(hump))
        .unwrap()
        .warnings;
    let [keep, bits] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    assert_eq!((keep.axis, bits.axis), (Axis::Keep, Axis::Bits));
    assert!((keep.keep - 1.0).abs() < 1e-12 && (keep.change + 1.0).abs() < 1e-9);
    assert!((bits.bits - 7.0).abs() < 1e-12 && (bits.change + 0.06).abs() < 1e-9);
}

#[test]
fn too_few_points_and_mistakes() {
    let all = points(|k, q| k + q);
    let undetermined = "points do not determine the fit, expected four different keeps and four \
                        different bits, spread over both";
    let message = |points: &[AccuracyPoint]| {
        let result = Accuracy::fit(KeepScale::Log2Keep, points);
        result.unwrap_err().to_string()
    };
    assert_eq!(message(&all[..9]), undetermined);
    let three_bits: Vec<_> = all.iter().copied().filter(|p| p.bits < 3.5).collect();
    assert_eq!(message(&three_bits), undetermined);
    let mut wrong = all.clone();
    wrong[7].keep = 0.0;
    assert_eq!(
        message(&wrong),
        "points.keep[7] is 0, expected above 0 and at most 1"
    );
    wrong[7].keep = 0.5;
    wrong[3].accuracy = f64::NAN;
    assert_eq!(
        message(&wrong),
        "points.accuracy[3] is NaN, expected finite"
    );
}

#[test]
fn surfaces_survive_files() {
    let truth = surface(&mut Rng(3), 0.05);
    let text = serde_json::to_string(&truth).unwrap();
    assert_eq!(serde_json::from_str::<Accuracy>(&text).unwrap(), truth);
    let wrong = r#"{"scale": "keep", "terms": [{"i": 4, "j": 0, "w": 1}]}"#;
    assert!(serde_json::from_str::<Accuracy>(wrong).is_err());
}
