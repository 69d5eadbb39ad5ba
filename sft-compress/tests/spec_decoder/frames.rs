//! Frames of methods 0 to 2.

use proptest::prelude::*;
use sft_compress::{
    Code, Codec, Config, Decoder, Quantize, Range, Rounding, Spacing, Sparsify, TensorView, decode,
    inspect,
};

use crate::bits;
use crate::common;
use crate::frame::decode_by_the_book;

#[test]
fn golden_frames() {
    for case in common::cases() {
        let (shape, data) = decode_by_the_book(&case.frame());
        assert_eq!(shape, case.shape, "{}", case.name);
        assert_eq!(bits(&data), bits(&case.output()), "{}", case.name);
    }
}

/// Every kind of codec.
fn any_codec() -> impl Strategy<Value = Codec> {
    let keep = 0.001_f64..=1.0;
    let sparsify = prop_oneof![
        Just(Sparsify::None),
        keep.clone().prop_map(Sparsify::TopK),
        keep.prop_map(Sparsify::RowTopK),
        (0.001_f32..10.0).prop_map(Sparsify::Threshold),
    ];
    let spacing = prop::sample::select(vec![Spacing::Linear, Spacing::Log]);
    let rounding = prop::sample::select(vec![Rounding::Stochastic, Rounding::Nearest]);
    let range = prop::sample::select(vec![Range::Tensor, Range::Row]);
    let levels =
        (2_u32..=256, spacing, rounding, range).prop_map(|(count, spacing, rounding, range)| {
            Quantize::Levels {
                count,
                spacing,
                rounding,
                range,
            }
        });
    let quantize = prop_oneof![
        Just(Quantize::None),
        Just(Quantize::F16),
        levels,
        (0.001_f64..20.0).prop_map(|step| Quantize::DeadZone { step }),
        (0.001_f64..20.0).prop_map(|step| Quantize::Unbiased { step }),
    ];
    let code = prop::sample::select(vec![Code::Golomb, Code::Context]);
    let config = (sparsify, quantize, code).prop_map(|(sparsify, quantize, code)| {
        let mut config = Config::default();
        (config.sparsify, config.quantize, config.code) = (sparsify, quantize, code);
        config
    });
    config.prop_filter_map("not a combination", |config| Codec::new(config).ok())
}

fn agree(data: &[f32], shape: &[usize], codec: Codec, seed: u64) {
    let frame = codec
        .encode(TensorView::new(data, shape).unwrap(), seed)
        .unwrap();
    let tensor = decode(&frame).unwrap();
    let (book_shape, book_data) = decode_by_the_book(&frame);
    assert_eq!(tensor.shape(), book_shape);
    assert!(bits(tensor.data()) == bits(&book_data), "{codec}");
    let info = inspect(&frame).unwrap();
    assert_eq!(info.shape, shape);
    let mut parts = Vec::new();
    for index in 0..info.chunks {
        let mut part = Vec::new();
        let range = Decoder::new()
            .decode_chunk(&frame, index, &mut part)
            .unwrap();
        assert_eq!(range, parts.len()..parts.len() + part.len());
        parts.extend(part);
    }
    assert!(bits(&parts) == bits(&book_data), "{codec}");
}

#[test]
fn frames_of_many_chunks() {
    let noise = |i: u32| i.wrapping_mul(0x9e37_79b9) ^ i.wrapping_mul(0x85eb_ca6b) >> 13;
    let data: Vec<f32> = (0..600_000_u32)
        .map(|i| (noise(i) % 2001) as f32 - 1000.0)
        .map(|x| x * x * x)
        .collect();
    for shape in [&[750, 4, 200][..], &[12, 50_000]] {
        for codec in [
            Codec::gradient(0.1, 8).unwrap(),
            Codec::dead_zone(0.1).unwrap(),
        ] {
            agree(&data, shape, codec, 1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_frame(
        data in prop::collection::vec(-100.0_f32..100.0, 60),
        exponents in prop::collection::vec(-30_i32..30, 10),
        row_len in prop::sample::select(vec![1_usize, 2, 6, 20, 60]),
        codec in any_codec(),
        seed: u64,
    ) {
        let scale = |i: usize| 2.0_f32.powi(exponents[i / 6]);
        let data: Vec<f32> = data.iter().enumerate().map(|(i, x)| x * scale(i)).collect();
        let shape = [60 / row_len, row_len];
        agree(&data, &shape, codec, seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_large_frame(
        row_len in prop::sample::select(vec![3_usize, 16, 33, 64, 5000]),
        sparsity in 1_u32..40,
        codec in any_codec(),
        seed: u64,
    ) {
        let mut state = seed;
        let mut draw = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 40) as u32
        };
        let data: Vec<f32> = (0..20_000)
            .map(|_| if draw() % sparsity == 0 { draw() as f32 - 8e6 } else { 0.0 })
            .collect();
        let rows = data.len() / row_len;
        agree(&data[..rows * row_len], &[rows, row_len], codec, seed);
    }
}
