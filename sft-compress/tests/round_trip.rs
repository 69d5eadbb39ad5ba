//! What a decoded tensor owes its original.

use proptest::prelude::*;
use sft_compress::{Codec, Range, TensorView, decode};

/// Tensors of one to four dimensions, some of them empty, some with every
/// magnitude an `f32` can have.
fn tensors() -> impl Strategy<Value = (Vec<usize>, Vec<f32>)> {
    let shape = prop::collection::vec(0_usize..7, 1..5);
    shape.prop_flat_map(|shape| {
        let elements: usize = shape.iter().product();
        let any = prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO;
        let data = prop_oneof![
            prop::collection::vec(any, elements),
            prop::collection::vec(-1.0_f32..1.0, elements),
            prop::collection::vec((-2_i8..3).prop_map(f32::from), elements),
        ];
        (Just(shape), data)
    })
}

fn codecs() -> impl Strategy<Value = Codec> {
    let keep = prop_oneof![Just(1.0), 1e-6_f64..=1.0];
    (keep, 2_u32..=256, any::<bool>()).prop_map(|(keep, levels, by_row)| {
        let range = if by_row { Range::Row } else { Range::Tensor };
        Codec::paper(keep, levels).unwrap().with_range(range)
    })
}

/// Which elements are kept, by sorting.
fn kept(data: &[f32], keep: f64) -> Vec<bool> {
    let count = ((keep * data.len() as f64).round() as usize).max(1);
    let mut order: Vec<usize> = (0..data.len()).collect();
    order.sort_by(|&a, &b| data[b].abs().total_cmp(&data[a].abs()));
    let mut kept = vec![false; data.len()];
    for &index in order.iter().take(count) {
        kept[index] = data[index] != 0.0;
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn kept_elements_stay_within_a_step((shape, data) in tensors(), codec in codecs(), seed: u64) {
        let frame = codec.encode(TensorView::new(&data, &shape).unwrap(), seed).unwrap();
        let tensor = decode(&frame).unwrap();
        prop_assert_eq!(tensor.shape(), &shape);
        let kept = kept(&data, codec.keep());
        let magnitudes = || data.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(x, _)| f64::from(x.abs()));
        let (lo, hi) = (magnitudes().fold(f64::MAX, f64::min), magnitudes().fold(0.0, f64::max));
        let step = (hi - lo) / f64::from(codec.levels().unwrap() - 1);
        for ((&x, &y), kept) in data.iter().zip(tensor.data()).zip(kept) {
            if kept {
                prop_assert_eq!(x.is_sign_negative(), y.is_sign_negative());
                prop_assert!((lo..=hi).contains(&f64::from(y.abs())));
                prop_assert!((f64::from(x) - f64::from(y)).abs() <= step * 1.000_001 + 1e-45, "{} {}", x, y);
            } else {
                prop_assert_eq!(y.to_bits(), 0);
            }
        }
    }

    #[test]
    fn raw_is_exact_bit_for_bit(bits in prop::collection::vec(any::<u32>(), 0..100), seed: u64) {
        let data: Vec<f32> = bits.iter().copied().map(f32::from_bits).collect();
        let shape = [data.len(), 1];
        let frame = Codec::raw().encode(TensorView::new(&data, &shape).unwrap(), seed).unwrap();
        let decoded = decode(&frame).unwrap().into_data();
        prop_assert_eq!(decoded.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), bits);
    }
}

#[test]
fn the_mean_over_seeds_is_the_kept_element() {
    const DRAWS: u64 = 256;
    // Rows whose scale grows from one to the next.
    let data: Vec<f32> = (0..600_u16)
        .map(|i| (f32::from(i * 31 % 601) - 300.0) * f32::from(i / 60 + 1))
        .collect();
    let shape = [10, 60];
    for (keep, range) in [(0.2, Range::Tensor), (0.2, Range::Row), (1.0, Range::Row)] {
        let codec = Codec::paper(keep, 8).unwrap().with_range(range);
        let mut sums = vec![0.0; data.len()];
        for seed in 0..DRAWS {
            let frame = codec
                .encode(TensorView::new(&data, &shape).unwrap(), seed)
                .unwrap();
            for (sum, &y) in sums.iter_mut().zip(decode(&frame).unwrap().data()) {
                *sum += f64::from(y);
            }
        }
        let largest = data.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        // A draw deviates by at most half a step of the widest range; five
        // standard deviations of the mean leave 600 elements below it.
        let tolerance = 5.0 * f64::from(largest) / 7.0 / 2.0 / (DRAWS as f64).sqrt();
        for ((&x, sum), kept) in data.iter().zip(sums).zip(kept(&data, keep)) {
            let expected = if kept { f64::from(x) } else { 0.0 };
            assert!(
                (sum / DRAWS as f64 - expected).abs() < tolerance,
                "{x} {sum}"
            );
        }
    }
}

#[test]
fn seeds_decide_the_frame() {
    let data: Vec<f32> = (0..100_i16).map(|i| f32::from(i) * 0.37).collect();
    let view = TensorView::new(&data, &[100]).unwrap();
    let codec = Codec::paper(0.5, 4).unwrap();
    assert_eq!(codec.encode(view, 1), codec.encode(view, 1));
    assert_ne!(codec.encode(view, 1), codec.encode(view, 2));
    assert_eq!(Codec::raw().encode(view, 1), Codec::raw().encode(view, 2));
}

#[test]
fn a_small_message_has_a_small_overhead() {
    // One message of a tiny model: 272 rows of 64, eight levels.
    let data: Vec<f32> = (0..17_408_u32)
        .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 8) as f32 - 8e6)
        .collect();
    let frame = Codec::paper(0.2, 8)
        .unwrap()
        .encode(TensorView::new(&data, &[272, 64]).unwrap(), 1)
        .unwrap();
    let kept = 3482.0;
    let share: f64 = kept / 17_408.0;
    let positions = -17_408.0 * (share * share.log2() + (1.0 - share) * (1.0 - share).log2());
    let levels_and_signs = kept * 4.0;
    assert!(frame.len() as f64 <= (positions + levels_and_signs) / 8.0 * 1.02 + 60.0);
}
