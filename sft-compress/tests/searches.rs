//! Settings for a wanted size or error, against a scan of many.

use sft_compress::{Code, Codec, ErrorKind, Measure, Result, TensorView, measure};

const SHAPE: [usize; 2] = [64, 64];

/// Bell-shaped elements cubed; the scale of the rows spans `spread` octaves.
fn data(spread: f32) -> Vec<f32> {
    let mut state = 5_u64;
    let mut uniform = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..64 * 64)
        .map(|i| {
            (uniform() + uniform() + uniform()).powi(3) * (spread * (i / 64) as f32 / 64.0).exp2()
        })
        .collect()
}

fn paper_with_context(keep: f64, levels: u32) -> Result<Codec> {
    Codec::new(
        Codec::paper(keep, levels)?
            .config()
            .with_code(Code::Context),
    )
}

type Constructor = fn(f64, u32) -> Result<Codec>;
const CONSTRUCTORS: [Constructor; 4] = [
    Codec::paper,
    Codec::activation,
    Codec::gradient,
    paper_with_context,
];

/// Every setting of a fine grid.
fn scan(codec: Constructor, sample: TensorView<'_>) -> Vec<Measure> {
    let levels = (2..=24).chain([28, 32, 48, 64, 96, 128, 192, 256]);
    let keeps = (0..50).map(|i| 0.87_f64.powi(i));
    levels
        .flat_map(|levels| keeps.clone().map(move |keep| codec(keep, levels).unwrap()))
        .map(|codec| measure(codec, sample, 0).unwrap())
        .collect()
}

#[test]
fn top_k_searches_are_near_the_best_of_a_fine_grid() {
    for spread in [0.0, 8.0] {
        let data = data(spread);
        let sample = TensorView::new(&data, &SHAPE).unwrap();
        for codec in CONSTRUCTORS {
            let all = scan(codec, sample);
            for wanted in [0.2, 1.0, 3.0] {
                let found = Codec::top_k_for_bits(codec, sample, wanted).unwrap();
                let measured = measure(found, sample, 0).unwrap();
                assert!(measured.bits_per_element <= wanted, "{found} for {wanted}");
                let within = all.iter().filter(|m| m.bits_per_element <= wanted);
                let least = within.map(|m| m.relative_mse).fold(f64::INFINITY, f64::min);
                assert!(
                    measured.relative_mse <= 1.05 * least,
                    "{found} for {wanted}: {measured:?} against {least}"
                );
            }
            for wanted in [0.5, 0.1, 0.02] {
                let found = Codec::top_k_for_error(codec, sample, wanted).unwrap();
                let measured = measure(found, sample, 0).unwrap();
                assert!(measured.relative_mse <= wanted, "{found} for {wanted}");
                let within = all.iter().filter(|m| m.relative_mse <= wanted);
                let least = within
                    .map(|m| m.bits_per_element)
                    .fold(f64::INFINITY, f64::min);
                assert!(
                    measured.bits_per_element <= 1.05 * least,
                    "{found} for {wanted}: {measured:?} against {least}"
                );
            }
        }
    }
}

#[test]
fn dead_zone_searches_come_close_to_what_is_wanted() {
    for spread in [0.0, 8.0] {
        let data = data(spread);
        let sample = TensorView::new(&data, &SHAPE).unwrap();
        for wanted in [0.5, 1.0, 3.0] {
            let codec = Codec::dead_zone_for_bits(sample, wanted).unwrap();
            let bits = measure(codec, sample, 0).unwrap().bits_per_element;
            assert!(bits <= wanted && bits > 0.95 * wanted, "{wanted}: {bits}");
        }
    }
}

#[test]
fn what_cannot_be_reached_is_an_error() {
    let data = data(0.0);
    let sample = TensorView::new(&data, &SHAPE).unwrap();
    let activation: Constructor = Codec::activation;
    for (result, name) in [
        (Codec::dead_zone_for_bits(sample, 1e-3), "bits"),
        (
            Codec::top_k_for_error(activation, sample, 1e-9),
            "relative_mse",
        ),
        (Codec::top_k_for_bits(activation, sample, 1e-3), "bits"),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let message = error.to_string();
        assert!(
            message.starts_with(&format!("{name} must be at least ")),
            "{message}"
        );
    }
    for wanted in [0.0, -1.0, f64::NAN] {
        for result in [
            Codec::dead_zone_for_bits(sample, wanted),
            Codec::top_k_for_error(activation, sample, wanted),
            Codec::top_k_for_bits(activation, sample, wanted),
        ] {
            let message = result.unwrap_err().to_string();
            assert!(
                message.ends_with(&format!("must be positive, got {wanted}")),
                "{message}"
            );
        }
    }
}

#[test]
fn samples_without_anything_need_next_to_nothing() {
    for shape in [[64, 64], [0, 64]] {
        let zeros = vec![0.0; shape[0] * shape[1]];
        let sample = TensorView::new(&zeros, &shape).unwrap();
        let codec = Codec::top_k_for_error(Codec::activation, sample, 1e-6).unwrap();
        let error = measure(codec, sample, 0).unwrap().relative_mse;
        assert_eq!(error.to_bits(), 0);
    }
}
