//! Error feedback, and what every codec with memory keeps to.

mod common;

use common::{uneven, view};
use sft_compress::{
    Codec, Compressor, Context, Decoder, Decompressor, Direction, Dtype, Elements, Encoder,
    ErrorFeedback, ErrorKind, NonFinite, Result, Stateful, Tensor, TensorView, decode,
};

/// Compresses a tensor; the message and what the receiver makes of it.
fn send(
    sender: &mut impl Compressor,
    tensor: TensorView<'_>,
    seed: u64,
) -> Result<(Vec<u8>, Tensor)> {
    let (mut message, mut decoded) = (Vec::new(), Tensor::default());
    let context = Context::new(tensor.shape(), seed);
    sender.compress(tensor, &context, &mut message, Some(&mut decoded))?;
    Ok((message, decoded))
}

#[test]
fn a_plain_codec_is_the_case_without_memory() {
    let (x, shape) = (uneven(1, 640), [10, 64]);
    let codec = Codec::gradient(0.2, 8).unwrap();
    let frame = codec.encode(view(&x, &shape), 7).unwrap();
    let senders: [Box<dyn Compressor>; 2] = [Box::new(codec), Box::new(Encoder::new(codec))];
    let receivers: [Box<dyn Decompressor>; 2] = [Box::new(codec), Box::new(Decoder::new())];
    for (mut sender, mut receiver) in senders.into_iter().zip(receivers) {
        let (message, decoded) = send(&mut sender, view(&x, &shape), 7).unwrap();
        assert_eq!(message, frame);
        assert_eq!(decoded, decode(&frame).unwrap());
        let mut received = Tensor::default();
        let context = Context::new(&shape, 7);
        receiver
            .decompress(&message, &context, &mut received)
            .unwrap();
        assert_eq!(received, decoded);

        let other = Context::new(&[64, 10], 7);
        let error = receiver.decompress(&message, &other, &mut received);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::OtherShape);
        assert_eq!(received, Tensor::default());
        let mut message = vec![1];
        let error = sender.compress(view(&x, &shape), &other, &mut message, None);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert!(message.is_empty());

        assert!(sender.save().unwrap().is_empty() && receiver.save().unwrap().is_empty());
        sender.restore(&[]).unwrap();
        assert_eq!(sender.restore(&[0]).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn a_context_has_a_sample_for_each_index_or_none() {
    let context = Context::new(&[3, 2], 0)
        .with_epoch(2)
        .with_direction(Direction::Down);
    context.check(None).unwrap();
    context.with_samples(&[5, 6, 7]).check(None).unwrap();
    let error = context.with_samples(&[5]).check(None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "samples must be one for each index of the first dimension of shape [3, 2], or none, got 1"
    );
}

#[test]
fn feedback_sends_later_what_was_dropped() {
    let (x, shape) = (uneven(4, 6400), [100, 64]);
    let codec = Codec::gradient(0.1, 4).unwrap();
    let mut feedback = ErrorFeedback::new(Encoder::new(codec));
    let (mut with, mut without) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    for seed in 0..40 {
        let (message, sent) = send(&mut feedback, view(&x, &shape), seed).unwrap();
        assert_eq!(decode(&message).unwrap(), sent);
        let plain = decode(&codec.encode(view(&x, &shape), seed).unwrap()).unwrap();
        for i in 0..x.len() {
            with[i] += sent.data()[i] / 40.0;
            without[i] += plain.data()[i] / 40.0;
        }
    }
    let error = |mean: &[f32]| -> f32 { x.iter().zip(mean).map(|(x, y)| (x - y) * (x - y)).sum() };
    assert!(
        error(&with) < 0.1 * error(&without),
        "{} {}",
        error(&with),
        error(&without)
    );
    // Nothing is lost but the remainder.
    for ((x, with), dropped) in x.iter().zip(&with).zip(feedback.residual().data()) {
        assert!((40.0 * (x - with) - dropped).abs() < 1e-4);
    }
}

#[test]
fn feedback_is_as_before_after_a_refused_tensor() {
    let shape = [4];
    let mut feedback = ErrorFeedback::new(Codec::paper(0.3, 2).unwrap());
    send(&mut feedback, view(&[1.0, 0.4, 0.3, 0.2], &shape), 0).unwrap();
    let before = feedback.residual().clone();
    assert!(before.data().iter().any(|&x| x != 0.0));
    for bad in [f32::NAN, f32::INFINITY] {
        let error = send(&mut feedback, view(&[1.0, bad, 0.0, 0.0], &shape), 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NonFinite);
        assert_eq!(feedback.residual(), &before);
    }
    send(&mut feedback, view(&[1.0, 0.4, 0.3, 0.2], &shape), 2).unwrap();
}

#[test]
fn what_is_not_finite_leaves_nothing_behind() {
    let x = [f32::NAN, f32::INFINITY, f32::MAX, 0.4];
    let saturating = Codec::paper(0.5, 2)
        .unwrap()
        .with_non_finite(NonFinite::Saturate);
    for codec in [saturating, Codec::raw()] {
        let mut feedback = ErrorFeedback::new(codec);
        for seed in 0..4 {
            send(&mut feedback, view(&x, &[4]), seed).unwrap();
            let residual = feedback.residual().data();
            assert!(residual.iter().all(|x| x.is_finite()), "{residual:?}");
        }
    }
}

#[test]
fn the_sum_keeps_to_the_type_of_the_tensor() {
    for (elements, largest) in [
        (Elements::F16(&[0x7bff; 8]), 65_504.0),
        (Elements::Bf16(&[0x7f7f; 8]), f32::from_bits(0x7f7f_0000)),
    ] {
        let mut feedback = ErrorFeedback::new(Codec::paper(0.5, 2).unwrap());
        for seed in 0..3 {
            let tensor = TensorView::of(elements, &[8]).unwrap();
            let (_, sent) = send(&mut feedback, tensor, seed).unwrap();
            assert_eq!(sent.dtype(), elements.dtype());
            assert!(sent.data().iter().all(|x| [0.0, largest].contains(x)));
        }
        if elements.dtype() == Dtype::F16 {
            // Of three times eight elements four each time were sent.
            let dropped: f32 = feedback.residual().data().iter().sum();
            assert_eq!(dropped.to_bits(), (12.0 * largest).to_bits());
        }
    }
}

#[test]
fn another_shape_begins_anew() {
    let mut feedback = ErrorFeedback::new(Codec::paper(0.3, 2).unwrap());
    let x = [1.0, 0.4, 0.3, 0.2];
    let (first, _) = send(&mut feedback, view(&x, &[4]), 3).unwrap();
    send(&mut feedback, view(&x, &[2, 2]), 4).unwrap();
    assert_eq!(feedback.residual().shape(), [2, 2]);
    assert_eq!(send(&mut feedback, view(&x, &[4]), 3).unwrap().0, first);
    feedback.reset();
    assert_eq!(feedback.residual(), &Tensor::default());
    assert_eq!(send(&mut feedback, view(&x, &[4]), 3).unwrap().0, first);
}

#[test]
fn a_restored_state_goes_on_as_the_original() {
    let (x, shape) = (uneven(5, 64), [8, 8]);
    let new = || ErrorFeedback::new(Codec::gradient(0.1, 4).unwrap());
    let (mut original, mut restored) = (new(), new());
    assert_eq!(original.save().unwrap(), [0]);
    restored.restore(&original.save().unwrap()).unwrap();
    send(&mut original, view(&x, &shape), 0).unwrap();
    restored.restore(&original.save().unwrap()).unwrap();
    assert_eq!(original.residual(), restored.residual());
    assert_eq!(
        send(&mut original, view(&x, &shape), 1).unwrap(),
        send(&mut restored, view(&x, &shape), 1).unwrap()
    );
}

#[test]
fn hostile_states_are_refused_and_change_nothing() {
    let new = || ErrorFeedback::new(ErrorFeedback::new(Codec::paper(0.3, 2).unwrap()));
    let mut feedback = new();
    send(&mut feedback, view(&[1.0, 0.4, 0.3, 0.2], &[4]), 0).unwrap();
    let (residual, state) = (feedback.residual().clone(), feedback.save().unwrap());
    for len in 0..state.len() {
        // Cut behind a part, fewer parts are left.
        if feedback.restore(&state[..len]).is_ok() {
            assert_eq!(feedback.residual(), &Tensor::default());
            feedback.restore(&state).unwrap();
        }
        assert_eq!(feedback.residual(), &residual);
    }
    for bit in 0..8 * state.len() {
        let mut damaged = state.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(feedback.restore(&damaged).is_err(), "bit {bit}");
        assert_eq!(feedback.residual(), &residual);
    }
    let of = |frame: Vec<u8>| [vec![1, 0], frame].concat();
    for (frame, kind) in [
        (
            Codec::raw().encode(view(&[f32::NAN], &[1]), 0).unwrap(),
            ErrorKind::NonFinite,
        ),
        // Few bytes that stand for many zeros.
        (
            Codec::paper(0.2, 8)
                .unwrap()
                .encode(view(&[0.0; 4096], &[4096]), 0)
                .unwrap(),
            ErrorKind::Corrupt,
        ),
    ] {
        assert_eq!(feedback.restore(&of(frame)).unwrap_err().kind(), kind);
        assert_eq!(feedback.residual(), &residual);
    }
}
