//! Every method with every type, shape and setting, against obvious oracles.

use proptest::prelude::*;
use sft_compress::{
    Code, Codec, Config, Dtype, Elements, Energy, ErrorKind, NonFinite, Quantize, Range, Rounding,
    Spacing, Sparsify, TensorView, decode, inspect,
};

const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

/// A tensor with the numbers its type can hold.
#[derive(Debug)]
struct Given {
    shape: Vec<usize>,
    dtype: Dtype,
    data: Vec<f32>,
    bits: Vec<u16>,
}

impl Given {
    fn new(shape: &[usize], dtype: Dtype, data: &[f32]) -> Self {
        let view = TensorView::new(data, shape).unwrap();
        let tensor = decode(&Codec::raw().encode(view, 0).unwrap()).unwrap();
        let bits = match dtype {
            Dtype::F32 => Vec::new(),
            Dtype::F16 => tensor.to_f16_bits(),
            Dtype::Bf16 => tensor.to_bf16_bits(),
        };
        let mut given = Self {
            shape: shape.to_vec(),
            dtype,
            data: data.to_vec(),
            bits,
        };
        given.data = given.view().elements().to_f32().into_owned();
        given
    }

    fn view(&self) -> TensorView<'_> {
        let elements = match self.dtype {
            Dtype::F32 => Elements::F32(&self.data),
            Dtype::F16 => Elements::F16(&self.bits),
            Dtype::Bf16 => Elements::Bf16(&self.bits),
        };
        TensorView::of(elements, &self.shape).unwrap()
    }
}

fn levels(count: u32, spacing: Spacing, rounding: Rounding, range: Range) -> Quantize {
    Quantize::Levels {
        count,
        spacing,
        rounding,
        range,
    }
}

/// Every combination of choices that is allowed, with a few values each.
fn configs() -> Vec<Config> {
    let sparsify = [
        Sparsify::None,
        Sparsify::TopK(0.2),
        Sparsify::RowTopK(0.3),
        Sparsify::Threshold(0.4),
    ];
    let mut quantize = vec![
        Quantize::None,
        Quantize::F16,
        Quantize::DeadZone { step: 0.7 },
        Quantize::Unbiased { step: 0.5 },
        Quantize::Error {
            relative_mse: 0.1,
            of: Energy::Bulk,
        },
    ];
    for spacing in [Spacing::Linear, Spacing::Log] {
        for rounding in [Rounding::Stochastic, Rounding::Nearest] {
            for range in [Range::Tensor, Range::Row] {
                let counts = [2, 8, 256];
                quantize.extend(counts.map(|count| levels(count, spacing, rounding, range)));
            }
        }
    }
    let mut all = Vec::new();
    for sparsify in sparsify {
        for &quantize in &quantize {
            for code in [Code::None, Code::Golomb, Code::Context] {
                let mut config = Config::default();
                (config.sparsify, config.quantize, config.code) = (sparsify, quantize, code);
                all.extend(Codec::new(config).is_ok().then_some(config));
            }
        }
    }
    all
}

/// Which elements are kept, by sorting.
fn kept(data: &[f32], row_len: usize, sparsify: Sparsify) -> Vec<bool> {
    let largest = |data: &[f32], keep: f64| {
        let count = ((keep * data.len() as f64).round() as usize).max(1);
        let mut order: Vec<usize> = (0..data.len()).collect();
        order.sort_by(|&a, &b| data[b].abs().total_cmp(&data[a].abs()));
        let mut kept = vec![false; data.len()];
        order
            .iter()
            .take(count)
            .for_each(|&i| kept[i] = data[i] != 0.0);
        kept
    };
    match sparsify {
        Sparsify::None => data.iter().map(|&x| x != 0.0).collect(),
        Sparsify::Threshold(t) => data.iter().map(|x| x.abs() >= t).collect(),
        Sparsify::TopK(keep) => largest(data, keep),
        Sparsify::RowTopK(keep) => {
            let rows = data.chunks(row_len.max(1));
            rows.flat_map(|row| largest(row, keep)).collect()
        }
    }
}

/// Decodes and compares with what the settings promise of each element.
fn check(given: &Given, config: Config, seed: u64) {
    let codec = Codec::new(config).unwrap();
    let context = format!("{codec} of {:?} {:?}", given.dtype, given.shape);
    let frame = codec.encode(given.view(), seed).unwrap();
    let tensor = decode(&frame).unwrap();
    assert_eq!(tensor.shape(), given.shape, "{context}");
    assert_eq!(tensor.dtype(), given.dtype, "{context}");
    if config.code == Code::None {
        let same = |(x, y): (&f32, &f32)| x.to_bits() == y.to_bits();
        assert!(given.data.iter().zip(tensor.data()).all(same), "{context}");
        return;
    }
    let kept = kept(&given.data, *given.shape.last().unwrap(), config.sparsify);
    let magnitudes = || {
        let pairs = given.data.iter().zip(&kept);
        pairs
            .filter(|(_, kept)| **kept)
            .map(|(x, _)| f64::from(x.abs()))
    };
    let (lo, hi) = (
        magnitudes().fold(f64::MAX, f64::min),
        magnitudes().fold(0.0, f64::max),
    );
    let mean_square = given
        .data
        .iter()
        .map(|&x| f64::from(x).powi(2))
        .sum::<f64>();
    let rms = (mean_square / given.data.len().max(1) as f64).sqrt();
    for ((&x, &y), &kept) in given.data.iter().zip(tensor.data()).zip(&kept) {
        let (x, y) = (f64::from(x), f64::from(y));
        let tolerance = match config.quantize {
            _ if !kept => 0.0,
            Quantize::None => 0.0,
            Quantize::F16 => x.abs() / 2048.0 + 3e-8,
            Quantize::Levels {
                count,
                spacing: Spacing::Linear,
                ..
            } => (hi - lo) / f64::from(count - 1) * 1.000_001,
            Quantize::Levels { .. } => (hi - lo) * 1.000_001,
            // Of so few elements none is an outlier.
            Quantize::DeadZone { step } => step * rms * 1.01,
            Quantize::Unbiased { step } => step * rms * 1.000_001,
            Quantize::Error { .. } => hi,
        };
        let expected = if kept { x } else { 0.0 };
        assert!(
            (y - expected).abs() <= tolerance,
            "{context}: {x} became {y}"
        );
        if kept && matches!(config.quantize, Quantize::Levels { .. }) {
            assert!(x.signum() == y.signum(), "{context}: {x} became {y}");
            assert!((lo..=hi).contains(&y.abs()), "{context}: {x} became {y}");
        }
    }
    let zone = matches!(
        config.quantize,
        Quantize::DeadZone { .. } | Quantize::Unbiased { .. } | Quantize::Error { .. }
    );
    if !zone {
        assert_eq!(
            inspect(&frame).unwrap().kept,
            magnitudes().count(),
            "{context}"
        );
    }
}

#[test]
fn every_setting_keeps_its_promise_in_one_to_eight_dimensions() {
    let shapes: [&[usize]; 9] = [
        &[96],
        &[12, 8],
        &[2, 6, 8],
        &[2, 3, 4, 4],
        &[2, 1, 3, 4, 4],
        &[1, 2, 3, 2, 2, 4],
        &[2, 2, 2, 1, 3, 2, 2],
        &[1, 2, 2, 2, 1, 3, 2, 2],
        &[96, 1],
    ];
    let data: Vec<f32> = (0..96_i16)
        .map(|i| f32::from(i * 37 % 97 - 48) / 31.0 * f32::from(i / 24 + 1))
        .collect();
    for config in configs() {
        for shape in shapes {
            for dtype in DTYPES {
                check(&Given::new(shape, dtype, &data), config, 3);
            }
        }
    }
}

#[test]
fn tensors_of_one_kind_of_element_come_back() {
    let empty: (&[usize], &[f32]) = (&[0, 3], &[]);
    for (shape, data) in [
        empty,
        (&[0], &[]),
        (&[3, 0, 2], &[]),
        (&[1], &[-2.5]),
        (&[1; 8], &[1e-3]),
        (&[1], &[0.0]),
        (&[4, 4], &[0.0; 16]),
        (&[4, 4], &[-0.0; 16]),
        (&[4, 4], &[1.5; 16]),
        (&[16], &[-0.75; 16]),
    ] {
        for config in configs() {
            for dtype in DTYPES {
                check(&Given::new(shape, dtype, data), config, 1);
            }
        }
    }
}

#[test]
fn levels_reproduce_a_constant_exactly() {
    for config in configs() {
        if matches!(config.quantize, Quantize::Levels { .. }) {
            let given = Given::new(&[4, 4], Dtype::F32, &[1.37; 16]);
            let frame = Codec::new(config).unwrap().encode(given.view(), 5).unwrap();
            let decoded = decode(&frame).unwrap();
            assert!(
                decoded
                    .data()
                    .iter()
                    .all(|y| [1.37_f32.to_bits(), 0].contains(&y.to_bits()))
            );
        }
    }
}

#[test]
fn non_finite_elements_are_located_or_saturated() {
    let data: Vec<f32> = (0..96_i8).map(|i| f32::from(i) - 47.5).collect();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (index, dtype) in [0, 17, 95].into_iter().flat_map(|i| DTYPES.map(|d| (i, d))) {
            let mut data = data.clone();
            data[index] = bad;
            let given = Given::new(&[12, 8], dtype, &data);
            for config in configs() {
                let codec = Codec::new(config).unwrap();
                if config.code == Code::None {
                    check(&given, config, 0);
                    continue;
                }
                let error = codec.encode(given.view(), 0).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NonFinite);
                let message = error.to_string();
                let start = format!("element {index} is {bad}, ");
                assert!(message.starts_with(&start), "{message}");
                let saturate = codec.with_non_finite(NonFinite::Saturate);
                let decoded = decode(&saturate.encode(given.view(), 0).unwrap()).unwrap();
                assert!(decoded.data().iter().all(|y| y.is_finite()), "{saturate}");
                let y = decoded.data()[index];
                if bad.is_nan() {
                    assert_eq!(y.to_bits(), 0, "{saturate}");
                } else if config.quantize == Quantize::None {
                    let largest = f32::MAX.copysign(bad);
                    assert_eq!(y.to_bits(), largest.to_bits(), "{saturate}");
                }
            }
        }
    }
}

/// Elements of all magnitudes, of one scale, and with many equal.
fn tensors() -> impl Strategy<Value = Given> {
    let shape = prop::collection::vec(0_usize..9, 1..5);
    let dtype = prop::sample::select(&DTYPES[..]);
    (shape, dtype).prop_flat_map(|(shape, dtype)| {
        let elements: usize = shape.iter().product();
        let any = prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO;
        let data = prop_oneof![
            // Within the range of half precision.
            prop::collection::vec(any.prop_map(|x| x.clamp(-6e4, 6e4)), elements),
            prop::collection::vec(-1.0_f32..1.0, elements),
            prop::collection::vec((-2_i8..3).prop_map(f32::from), elements),
        ];
        data.prop_map(move |data| Given::new(&shape, dtype, &data))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_setting_keeps_its_promise(
        given in tensors(),
        config in prop::sample::select(configs()),
        keep in 1e-3_f64..=1.0,
        count in 2_u32..=256,
        step in 0.01_f64..10.0,
        seed: u64,
    ) {
        let mut config = config;
        match &mut config.sparsify {
            Sparsify::TopK(old) | Sparsify::RowTopK(old) => *old = keep,
            _ => {}
        }
        match &mut config.quantize {
            Quantize::Levels { count: old, .. } => *old = count,
            Quantize::DeadZone { step: old } => *old = step,
            _ => {}
        }
        check(&given, config, seed);
    }
}

#[test]
fn stochastic_settings_are_unbiased_given_the_kept_set() {
    const DRAWS: u64 = 64;
    // Bell-shaped rows of unlike scale.
    let mut state = 9_u64;
    let mut uniform = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let data: Vec<f32> = (0..48 * 32)
        .map(|i| (uniform() + uniform() + uniform()) * (1 + i / 32 % 5) as f32)
        .collect();
    for config in configs() {
        let Quantize::Levels {
            rounding: Rounding::Stochastic,
            ..
        } = config.quantize
        else {
            continue;
        };
        let codec = Codec::new(config).unwrap();
        for dtype in DTYPES {
            let given = Given::new(&[48, 32], dtype, &data);
            let (mut sums, mut squares) = (vec![0.0; data.len()], vec![0.0; data.len()]);
            for seed in 0..DRAWS {
                let decoded = decode(&codec.encode(given.view(), seed).unwrap()).unwrap();
                for (i, &y) in decoded.data().iter().enumerate() {
                    sums[i] += f64::from(y);
                    squares[i] += f64::from(y).powi(2);
                }
            }
            // The sum over the kept of the deviation of the mean, outward, against five of its
            // standard deviations.
            let (mut deviation, mut variance) = (0.0, 0.0);
            for ((&x, sum), square) in given.data.iter().zip(&sums).zip(&squares) {
                let mean = sum / DRAWS as f64;
                if *square > 0.0 {
                    deviation += (mean - f64::from(x)) * f64::from(x.signum());
                    variance += (square / DRAWS as f64 - mean * mean).max(0.0) / DRAWS as f64;
                }
            }
            let bound = 5.0 * variance.sqrt() + 1e-6 * given.data.len() as f64;
            assert!(
                deviation.abs() < bound,
                "{codec} {dtype}: {deviation} against {bound}"
            );
        }
    }
}
