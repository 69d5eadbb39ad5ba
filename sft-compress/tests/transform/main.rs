//! The transform codec: a basis learnt from samples, messages by it, and the memory of samples.
#![cfg(feature = "learn")]

/// Messages and bases that were changed on the way.
mod damaged;

use std::sync::Arc;

use sft_compress::{
    Basis, Compressor, Context, Decompressor, ErrorKind, SampleId, Stateful, Tensor, TensorView,
    Tokens, TransformDecoder, TransformEncoder,
};

fn noise(i: u64) -> f32 {
    let mut z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^= z >> 27;
    (z >> 40) as f32 / (1 << 23) as f32 - 1.0
}

const SHAPE: [usize; 3] = [12, 26, 24];

/// Smooth pictures of three patterns in 24 channels, with a class token.
fn samples(seed: u64) -> Vec<f32> {
    let [count, rows, width] = SHAPE;
    let value = |i: usize| {
        let (n, row, channel) = (i / (rows * width), i / width % rows, i % width);
        let pattern =
            |p: u64| noise(seed + 7 * n as u64 + p) * noise(100 + 31 * p + channel as u64);
        let small = 0.02 * noise(seed * 1000 + i as u64);
        if row == 0 {
            return 2.0 + pattern(4) + small;
        }
        let (y, x) = ((row - 1) as f32 / 25.0, ((row - 1) % 5) as f32 / 5.0);
        0.5 * noise(channel as u64) + pattern(1) + pattern(2) * x + pattern(3) * y + small
    };
    (0..count * rows * width).map(value).collect()
}

fn tokens() -> Tokens {
    Tokens::grid(1, 5, 5).unwrap()
}

fn basis(step: f64) -> Arc<Basis> {
    let samples = samples(1);
    let view = TensorView::new(&samples, &SHAPE).unwrap();
    Arc::new(Basis::of_activations(view, &[], tokens(), step, None).unwrap())
}

fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    let (error, energy) = a.iter().zip(b).fold((0.0, 0.0), |(error, energy), (a, b)| {
        (
            error + f64::from(a - b).powi(2),
            energy + f64::from(*a).powi(2),
        )
    });
    error / energy
}

/// Sends samples, and tells what came and the length of the message.
fn send(
    (encoder, decoder): (&mut TransformEncoder, &mut TransformDecoder),
    data: &[f32],
    ids: &[SampleId],
) -> (Vec<f32>, usize) {
    let (mut message, mut here, mut there) = (Vec::new(), Tensor::default(), Tensor::default());
    let context = Context::new(&SHAPE, 0).with_samples(ids);
    let view = TensorView::new(data, &SHAPE).unwrap();
    encoder
        .compress(view, &context, &mut message, Some(&mut here))
        .unwrap();
    decoder.decompress(&message, &context, &mut there).unwrap();
    let at = here
        .data()
        .iter()
        .zip(there.data())
        .position(|(a, b)| a.to_bits() != b.to_bits());
    assert_eq!(at, None, "both sides decode the same");
    assert!(here.shape() == there.shape() && here.dtype() == there.dtype());
    assert!(here.data().len() == data.len() && there.data().len() == data.len());
    assert_eq!(encoder.save().unwrap(), decoder.save().unwrap());
    (there.into_data(), message.len())
}

fn pair(basis: &Arc<Basis>, memory: usize) -> (TransformEncoder, TransformDecoder) {
    (
        TransformEncoder::new(Arc::clone(basis)).with_memory(memory),
        TransformDecoder::new(Arc::clone(basis)).with_memory(memory),
    )
}

#[test]
fn a_finer_step_has_a_smaller_error_and_a_longer_message() {
    let data = samples(2);
    let mut last = (f64::INFINITY, 0);
    for step in [0.4, 0.1, 0.02, 0.002] {
        let (mut encoder, mut decoder) = pair(&basis(step), 0);
        let (there, bytes) = send((&mut encoder, &mut decoder), &data, &[]);
        let error = relative_error(&data, &there);
        assert!(error < last.0 && bytes > last.1, "{step}: {error}, {bytes}");
        last = (error, bytes);
    }
    assert!(last.0 < 1e-4);
    // A tenth of what the plain codec needs for the same error.
    let (mut encoder, mut decoder) = pair(&basis(0.1), 0);
    let (there, bytes) = send((&mut encoder, &mut decoder), &data, &[]);
    let error = relative_error(&data, &there).max(1e-6);
    let plain = sft_compress::Codec::for_error(error).unwrap();
    let plain = plain
        .encode(TensorView::new(&data, &SHAPE).unwrap(), 0)
        .unwrap();
    assert!(3 * bytes < plain.len(), "{bytes} against {}", plain.len());
}

#[test]
fn a_basis_is_its_bytes() {
    let basis = basis(0.4);
    let again = Basis::from_bytes(basis.to_bytes()).unwrap();
    assert!(*basis == again);
    assert_eq!(again.name(), basis.name());
    assert!(basis.channels() < 24 && basis.width() == 24 && basis.tokens() == tokens());
    let bytes = basis.to_bytes();
    for end in 0..bytes.len() {
        assert!(Basis::from_bytes(&bytes[..end]).is_err());
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1 << (at % 8);
        let kind = Basis::from_bytes(&damaged).unwrap_err().kind();
        let expected = match at {
            0..4 => ErrorKind::Corrupt,
            4 => ErrorKind::UnsupportedVersion,
            _ => ErrorKind::Checksum,
        };
        assert_eq!(kind, expected, "byte {at}");
    }
}

/// What messages are made in is lent by the thread: it carries nothing from one codec to the next.
#[test]
fn codecs_that_take_turns_on_a_thread_send_what_they_do_alone() {
    let data = samples(1);
    let view = TensorView::new(&data, &SHAPE).unwrap();
    let gradients = Arc::new(Basis::of_gradients(view, &[], tokens(), 5.0).unwrap());
    let bases = [basis(0.002), gradients, basis(0.4), basis(0.1)];
    let ids: Vec<SampleId> = (0..12).collect();
    let rounds = |basis: &Arc<Basis>, take_turn: &dyn Fn()| {
        let (mut encoder, mut decoder) = pair(basis, 1 << 20);
        let mut round = |seed: u64| {
            take_turn();
            send((&mut encoder, &mut decoder), &samples(seed % 2), &ids)
        };
        (0..4).map(&mut round).collect::<Vec<_>>()
    };
    let alone = bases.each_ref().map(|basis| {
        std::thread::scope(|scope| scope.spawn(|| rounds(basis, &|| ())).join()).unwrap()
    });
    for (basis, alone) in bases.iter().zip(&alone) {
        let others = || {
            for other in &bases {
                let _ = rounds(other, &|| ());
            }
        };
        assert!(rounds(basis, &others) == *alone);
    }
}

#[test]
fn samples_that_come_again_cost_next_to_nothing() {
    let (mut encoder, mut decoder) = pair(&basis(0.01), 1 << 20);
    let (data, ids) = (samples(2), (100..112).collect::<Vec<_>>());
    let (first, whole) = send((&mut encoder, &mut decoder), &data, &ids);
    let (second, again) = send((&mut encoder, &mut decoder), &data, &ids);
    assert!(first == second);
    assert!(again < 60 && whole > 10 * again, "{whole}, {again}");
    // A drift of a percent changes few indices, and the error stays.
    let moved: Vec<f32> = data
        .iter()
        .enumerate()
        .map(|(i, x)| x * (1.0 + 0.01 * noise(i as u64)))
        .collect();
    let (third, changed) = send((&mut encoder, &mut decoder), &moved, &ids);
    assert!(changed < whole / 4, "{changed} of {whole}");
    assert!(relative_error(&moved, &third) < 2.0 * relative_error(&data, &first) + 1e-4);
    // In another order, with samples that are new.
    let mut others = ids.clone();
    others.reverse();
    others[3] = 7;
    let rows = SHAPE[1] * SHAPE[2];
    let reversed: Vec<f32> = data.chunks(rows).rev().flatten().copied().collect();
    let (fourth, bytes) = send((&mut encoder, &mut decoder), &reversed, &others);
    assert!(bytes > changed.min(again) && bytes < whole / 2, "{bytes}");
    assert!(relative_error(&reversed, &fourth) < 2.0 * relative_error(&data, &first) + 1e-4);
}

#[test]
fn the_memory_is_bounded_and_tells_what_it_forgot() {
    let (mut encoder, mut decoder) = pair(&basis(0.04), 1200);
    let (data, ids) = (samples(2), (0..12).collect::<Vec<_>>());
    let (_, whole) = send((&mut encoder, &mut decoder), &data, &ids);
    assert!(encoder.memory_bytes() <= 1200 && encoder.evicted() > 0);
    assert_eq!(encoder.evicted(), decoder.evicted());
    let (_, again) = send((&mut encoder, &mut decoder), &data, &ids);
    assert!(again < whole && 4 * again > whole, "{again} of {whole}");
}

#[test]
fn a_lost_memory_is_told_of_and_a_saved_one_goes_on() {
    let (mut encoder, mut decoder) = pair(&basis(0.04), 1 << 20);
    let (data, ids) = (samples(2), (0..12).collect::<Vec<_>>());
    send((&mut encoder, &mut decoder), &data, &ids);
    let state = decoder.save().unwrap();
    let context = Context::new(&SHAPE, 0).with_samples(&ids);
    let view = TensorView::new(&data, &SHAPE).unwrap();
    let (mut message, mut tensor) = (Vec::new(), Tensor::default());
    encoder
        .clone()
        .compress(view, &context, &mut message, None)
        .unwrap();
    let mut fresh = TransformDecoder::new(Arc::clone(decoder.basis())).with_memory(1 << 20);
    let error = fresh
        .decompress(&message, &context, &mut tensor)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LostReference);
    assert!(tensor.data().is_empty());
    fresh.restore(&state).unwrap();
    fresh.decompress(&message, &context, &mut tensor).unwrap();
    // Other samples under the same numbers.
    decoder.reset();
    encoder.reset();
    send((&mut encoder, &mut decoder), &samples(3), &ids);
    let error = decoder
        .decompress(&message, &context, &mut tensor)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LostReference);
    for end in 1..state.len() {
        assert!(fresh.restore(&state[..end]).is_err());
    }
    // Of another basis.
    let (mut other, _) = pair(&basis(0.06), 1 << 20);
    assert!(other.restore(&state).is_err());
    let mut other = TransformDecoder::new(Arc::clone(other.basis()));
    let error = other
        .decompress(&message, &context, &mut tensor)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LostReference);
    let error = sft_compress::decode(&message).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LostReference);
    assert_eq!(sft_compress::inspect(&message).unwrap().shape, SHAPE);
}

#[test]
fn gradients_of_any_size_do_not_become_zero() {
    let activations = samples(1);
    let view = TensorView::new(&activations, &SHAPE).unwrap();
    let basis = Arc::new(Basis::of_gradients(view, &[], tokens(), 5.0).unwrap());
    let (mut encoder, mut decoder) = pair(&basis, 1 << 20);
    for size in [1e-30_f32, 1e-8, 1.0, 1e20] {
        let gradient: Vec<f32> = (0..activations.len() as u64)
            .map(|i| size * noise(i))
            .collect();
        let (there, bytes) = send((&mut encoder, &mut decoder), &gradient, &[]);
        assert!(there.iter().any(|&x| x != 0.0) && bytes < 1000);
        // Even magnitudes too.
        let even: Vec<f32> = gradient.iter().map(|x| size.copysign(*x)).collect();
        let (there, _) = send((&mut encoder, &mut decoder), &even, &[]);
        assert!(there.iter().any(|&x| x != 0.0));
    }
    let (there, bytes) = send(
        (&mut encoder, &mut decoder),
        &vec![0.0; activations.len()],
        &[],
    );
    assert!(there.iter().all(|&x| x == 0.0) && bytes < 40);
}

#[test]
fn samples_unlike_those_of_the_basis_lose_what_it_does_not_code() {
    let basis = basis(0.1);
    let (mut encoder, mut decoder) = pair(&basis, 1 << 20);
    let (data, ids) = (samples(2), (0..12).collect::<Vec<_>>());
    let noisy: Vec<f32> = (0_u64..)
        .zip(&data)
        .map(|(i, x)| x + 3.0 * noise(i))
        .collect();
    // The second time by what the first left in memory.
    for _ in 0..2 {
        let (there, _) = send((&mut encoder, &mut decoder), &noisy, &ids);
        let error = relative_error(&noisy, &there);
        assert!((0.05..0.9).contains(&error), "{error}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let basis = basis(0.2);
    let mut encoder = TransformEncoder::new(basis);
    let mut message = vec![1];
    let mut refused = |data: &[f32], shape: &[usize]| {
        let view = TensorView::new(data, shape).unwrap();
        let context = Context::new(shape, 0);
        let error = encoder
            .compress(view, &context, &mut message, None)
            .unwrap_err();
        assert!(message.is_empty());
        error
    };
    let error = refused(&[0.0; 26 * 23], &[1, 26, 23]);
    assert!(error.to_string().contains("[..., S, 24]"), "{error}");
    let error = refused(&[0.0; 25 * 24], &[1, 25, 24]);
    assert!(error.to_string().contains("1 + 5 x 5, got 25"), "{error}");
    let mut nan = vec![0.0; 26 * 24];
    nan[5] = f32::NAN;
    assert_eq!(refused(&nan, &[1, 26, 24]).kind(), ErrorKind::NonFinite);
    nan[5] = 1e30;
    assert!(
        refused(&nan, &[1, 26, 24])
            .to_string()
            .contains("16777216 steps")
    );
    refused(&[], &[0, 26, 24]);
    let view = TensorView::new(&[0.0; 24], &[1, 1, 24]).unwrap();
    assert!(Basis::of_activations(view, &[], tokens(), 1.0, None).is_err());
    let data = samples(1);
    let view = TensorView::new(&data, &SHAPE).unwrap();
    assert!(Basis::of_activations(view, &[], tokens(), 0.0, None).is_err());
    assert!(Basis::of_activations(view, &[], tokens(), f64::NAN, None).is_err());
    assert!(
        Basis::of_activations(
            view,
            &[],
            tokens(),
            1.0,
            Some(TensorView::new(&data[..624], &[1, 26, 24]).unwrap())
        )
        .is_err()
    );
}
