//! Encoders and decoders that are used again, error feedback, inspection.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use sft_compress::{
    Code, Codec, Decoder, Dtype, Elements, Encoder, ErrorKind, NonFinite, Tensor, TensorView,
    decode, inspect,
};

/// Counts the allocations of the present thread.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bell-shaped elements whose scale differs by row.
fn data(seed: u32) -> Vec<f32> {
    let mut state = u64::from(seed);
    let mut uniform = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..100 * 64)
        .map(|i| (uniform() + uniform() + uniform()) * (1 + i / 64 % 5) as f32)
        .collect()
}

fn codecs() -> [Codec; 4] {
    [
        Codec::paper(0.2, 8).unwrap(),
        Codec::activation(0.2, 8).unwrap(),
        Codec::gradient(0.2, 8).unwrap(),
        Codec::dead_zone(0.3).unwrap(),
    ]
}

#[test]
fn used_encoders_and_decoders_give_the_same() {
    let (mut frame, mut tensor) = (vec![1, 2, 3], Tensor::default());
    let mut decoder = Decoder::new();
    for codec in codecs() {
        let mut encoder = Encoder::new(codec);
        for (seed, shape) in (0..).zip([[100, 64], [64, 100], [6400, 1], [1, 6400]]) {
            let data = data(seed);
            let view = TensorView::new(&data, &shape).unwrap();
            encoder.encode_into(view, seed.into(), &mut frame).unwrap();
            assert!(frame == codec.encode(view, seed.into()).unwrap());
            decoder.decode_into(&frame, &mut tensor).unwrap();
            assert_eq!(tensor, decode(&frame).unwrap());
            assert!(decoder.decode_into(&frame[1..], &mut tensor).is_err());
        }
    }
}

#[cfg(not(feature = "rayon"))]
#[test]
fn messages_after_the_first_allocate_nothing() {
    for codec in codecs() {
        let (mut encoder, mut decoder) = (Encoder::new(codec), Decoder::new());
        let (mut frame, mut tensor) = (Vec::new(), Tensor::default());
        let data = data(1);
        let view = TensorView::new(&data, &[100, 64]).unwrap();
        let mut counts = [0; 4];
        for count in &mut counts {
            let before = COUNT.get();
            encoder.encode_into(view, 1, &mut frame).unwrap();
            decoder.decode_into(&frame, &mut tensor).unwrap();
            *count = COUNT.get() - before;
        }
        assert_eq!(counts[2..], [0, 0], "{codec}: {counts:?}");
    }
}

#[test]
fn codecs_that_say_so_are_unbiased_given_the_kept_set() {
    const DRAWS: u64 = 64;
    let data = data(3);
    let view = TensorView::new(&data, &[100, 64]).unwrap();
    for codec in [
        Codec::activation(0.2, 8).unwrap(),
        Codec::gradient(0.2, 8).unwrap(),
    ] {
        let (mut sums, mut squares) = (vec![0.0; data.len()], vec![0.0; data.len()]);
        for seed in 0..DRAWS {
            let decoded = decode(&codec.encode(view, seed).unwrap()).unwrap();
            for (i, &y) in decoded.data().iter().enumerate() {
                sums[i] += f64::from(y);
                squares[i] += f64::from(y) * f64::from(y);
            }
        }
        // The sum over all kept elements of the deviation of the mean, against
        // five of its standard deviations.
        let (mut deviation, mut variance) = (0.0, 0.0);
        for ((&x, sum), square) in data.iter().zip(&sums).zip(&squares) {
            if *square > 0.0 {
                let mean = sum / DRAWS as f64;
                deviation += (mean - f64::from(x)) * f64::from(x.signum());
                variance += (square / DRAWS as f64 - mean * mean) / DRAWS as f64;
            }
        }
        assert!(
            variance > 0.0 && deviation.abs() < 5.0 * variance.sqrt(),
            "{codec}: {deviation}"
        );
    }
}

#[test]
fn frames_tell_what_they_hold() {
    let data = data(5);
    let view = TensorView::new(&data, &[10, 10, 64]).unwrap();
    let frame = Codec::activation(0.25, 8).unwrap().encode(view, 1).unwrap();
    let info = inspect(&frame).unwrap();
    assert_eq!(
        (info.shape.as_slice(), info.dtype),
        (&[10, 10, 64][..], Dtype::F32)
    );
    assert_eq!(
        (info.code, info.kept, info.chunks),
        (Code::Context, 1600, 1)
    );
    assert!(info.payload_bytes < frame.len() && info.payload_bytes + 30 > frame.len());
    assert!(inspect(&frame[..frame.len() - 1]).is_err());
    let raw = Codec::raw().encode(view, 0).unwrap();
    assert_eq!(inspect(&raw).unwrap().payload_bytes, 4 * data.len());
}

#[test]
fn halves_decode_to_what_was_given() {
    let bits: Vec<u16> = (0..=u16::MAX).collect();
    for elements in [Elements::F16(&bits), Elements::Bf16(&bits)] {
        let view = TensorView::of(elements, &[256, 256]).unwrap();
        let tensor = decode(&Codec::raw().encode(view, 0).unwrap()).unwrap();
        assert_eq!(tensor.dtype(), elements.dtype());
        let back = match elements.dtype() {
            Dtype::F16 => tensor.to_f16_bits(),
            _ => tensor.to_bf16_bits(),
        };
        assert_eq!(back, bits);
        let codec = Codec::dead_zone(1.0).unwrap();
        assert_eq!(
            codec.encode(view, 0).unwrap_err().kind(),
            ErrorKind::NonFinite
        );
        codec
            .with_non_finite(NonFinite::Saturate)
            .encode(view, 0)
            .unwrap();
    }
}
