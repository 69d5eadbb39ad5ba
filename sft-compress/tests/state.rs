//! Codecs with memory: error feedback, and a pair whose receiver remembers too.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sft_compress::{
    Codec, Compressor, Context, Decoder, Decompressor, Direction, Dtype, Elements, Encoder, Error,
    ErrorFeedback, ErrorKind, NonFinite, Result, SampleId, Stateful, Tensor, TensorView, decode,
};

fn data(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15);
        f32::from((state >> 16) as u16) / 65_536.0 - 0.5
    };
    (0..len).map(|_| (uniform() + uniform()).powi(3)).collect()
}

fn view<'a>(data: &'a [f32], shape: &'a [usize]) -> TensorView<'a> {
    TensorView::new(data, shape).unwrap()
}

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
    let (x, shape) = (data(1, 640), [10, 64]);
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
    let (x, shape) = (data(4, 6400), [100, 64]);
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
    let (x, shape) = (data(5, 64), [8, 8]);
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

/// A toy whose receiver remembers: of a sample that was sent before, the
/// difference to what was decoded then. A message is a kind, the number of
/// messages remembered, and a raw frame.
#[derive(Clone, Debug, Default, PartialEq)]
struct Delta {
    version: u32,
    rows: BTreeMap<SampleId, Vec<f32>>,
}

impl Delta {
    /// The rows that the samples had, one after the other; none if one is missing.
    fn reference(&self, context: &Context<'_>) -> Option<Vec<f32>> {
        let rows = context
            .samples
            .iter()
            .map(|sample| self.rows.get(sample).map(Vec::as_slice));
        Some(rows.collect::<Option<Vec<_>>>()?.concat())
    }

    fn remember(&mut self, context: &Context<'_>, decoded: &Tensor) {
        let len = decoded.data().len() / context.samples.len();
        for (sample, row) in context.samples.iter().zip(decoded.data().chunks(len)) {
            self.rows.insert(*sample, row.to_vec());
        }
        self.version += 1;
    }

    fn lost(&self, version: u32) -> Error {
        Error::new(
            ErrorKind::LostReference,
            format!(
                "a message on state {version}, but this side has {}",
                self.version
            ),
        )
    }
}

fn plus(x: &[f32], y: &[f32], sign: f32) -> Vec<f32> {
    x.iter().zip(y).map(|(x, y)| x + sign * y).collect()
}

impl Stateful for Delta {
    fn reset(&mut self) {
        *self = Self::default();
    }

    fn save(&self) -> Result<Vec<u8>> {
        let mut state = self.version.to_le_bytes().to_vec();
        for (sample, row) in &self.rows {
            state.extend(sample.to_le_bytes());
            state.extend((row.len() as u32).to_le_bytes());
            state.extend(row.iter().flat_map(|x| x.to_le_bytes()));
        }
        Ok(state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let cut = || Error::new(ErrorKind::Corrupt, "a state that is cut off");
        let (version, mut rest) = state.split_first_chunk().ok_or_else(cut)?;
        let mut restored = Self {
            version: u32::from_le_bytes(*version),
            ..Self::default()
        };
        while let Some((sample, tail)) = rest.split_first_chunk() {
            let (len, tail) = tail.split_first_chunk().ok_or_else(cut)?;
            let len = 4 * u32::from_le_bytes(*len) as usize;
            let (row, tail) = tail.split_at_checked(len).ok_or_else(cut)?;
            let row = row.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x));
            restored
                .rows
                .insert(u64::from_le_bytes(*sample), row.collect());
            rest = tail;
        }
        if !rest.is_empty() {
            return Err(cut());
        }
        *self = restored;
        Ok(())
    }
}

impl Compressor for Delta {
    fn compress(
        &mut self,
        tensor: TensorView<'_>,
        context: &Context<'_>,
        message: &mut Vec<u8>,
        decoded: Option<&mut Tensor>,
    ) -> Result<()> {
        context.check(Some(tensor))?;
        let (x, reference) = (tensor.elements().to_f32(), self.reference(context));
        let zeros = vec![0.0; x.len()];
        let base = reference.as_ref().unwrap_or(&zeros);
        let difference = plus(&x, base, -1.0);
        let frame = Codec::raw().encode(TensorView::new(&difference, context.shape)?, 0)?;
        let received = Tensor::new(plus(base, &difference, 1.0), context.shape)?;
        message.clear();
        message.push(u8::from(reference.is_some()));
        message.extend(self.version.to_le_bytes());
        message.extend(frame);
        self.remember(context, &received);
        if let Some(decoded) = decoded {
            *decoded = received;
        }
        Ok(())
    }
}

impl Decompressor for Delta {
    fn decompress(
        &mut self,
        message: &[u8],
        context: &Context<'_>,
        tensor: &mut Tensor,
    ) -> Result<()> {
        *tensor = Tensor::default();
        let Some(([kind, version @ ..], frame)) = message.split_first_chunk::<5>() else {
            return Err(Error::new(
                ErrorKind::Truncated,
                "a message without a start",
            ));
        };
        let version = u32::from_le_bytes(*version);
        let mut base = vec![0.0; context.shape.iter().product()];
        if *kind == 1 {
            if version != self.version {
                return Err(self.lost(version));
            }
            base = self.reference(context).ok_or_else(|| self.lost(version))?;
        }
        Decoder::new().decode_expected_into(frame, context.shape, tensor)?;
        *tensor = Tensor::new(plus(&base, tensor.data(), 1.0), context.shape)?;
        self.version = version;
        self.remember(context, tensor);
        Ok(())
    }
}

/// The two ends of a stream, as a trainer holds them.
struct Ends {
    sender: Box<dyn Compressor>,
    receiver: Box<dyn Decompressor>,
    resets: usize,
}

impl Ends {
    fn new() -> Self {
        Self {
            sender: Box::new(Delta::default()),
            receiver: Box::new(Delta::default()),
            resets: 0,
        }
    }

    /// Sends a batch; as a protocol does, a lost reference resets both ends.
    /// Whether it went as a difference.
    fn cross(&mut self, x: &[f32], samples: &[SampleId]) -> bool {
        let shape = [samples.len(), x.len() / samples.len()];
        let context = Context::new(&shape, 0).with_samples(samples);
        let (mut message, mut here, mut there) = (vec![], Tensor::default(), Tensor::default());
        loop {
            self.sender
                .compress(view(x, &shape), &context, &mut message, Some(&mut here))
                .unwrap();
            match self.receiver.decompress(&message, &context, &mut there) {
                Ok(()) => break,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::LostReference);
                    assert_eq!(there, Tensor::default());
                    self.sender.reset();
                    self.receiver.reset();
                    self.resets += 1;
                }
            }
        }
        assert_eq!(here, there);
        message[0] == 1
    }
}

#[test]
fn both_sides_remember_the_samples_they_saw() {
    let mut ends = Ends::new();
    assert!(!ends.cross(&[1.0, 2.0, 3.0, 4.0], &[7, 9]));
    assert!(!ends.cross(&[1.0, 2.0, 3.0, 4.0], &[7, 8]));
    assert!(ends.cross(&[1.5, 2.0, 3.0, 4.5], &[9, 8]));
    assert_eq!(ends.resets, 0);
}

#[test]
fn a_lost_reference_is_answered_with_a_reset() {
    let mut ends = Ends::new();
    ends.cross(&[1.0, 2.0], &[1]);
    // The receiver starts again without its memory.
    ends.receiver.reset();
    assert!(!ends.cross(&[1.0, 2.5], &[1]));
    assert_eq!(ends.resets, 1);
    assert!(ends.cross(&[1.0, 3.0], &[1]));
}

#[test]
fn both_sides_go_on_from_what_was_saved() {
    let mut ends = Ends::new();
    ends.cross(&[1.0, 2.0], &[1]);
    let (sender, receiver) = (ends.sender.save().unwrap(), ends.receiver.save().unwrap());
    let mut again = Ends::new();
    again.sender.restore(&sender).unwrap();
    again.receiver.restore(&receiver).unwrap();
    assert!(again.cross(&[1.0, 3.0], &[1]));
    assert_eq!(again.resets, 0);
    assert!(again.receiver.restore(&receiver[..9]).is_err());
}

#[test]
fn feedback_goes_around_a_codec_with_memory() {
    let mut sender = ErrorFeedback::new(Box::new(Delta::default()) as Box<dyn Compressor>);
    let mut receiver = Delta::default();
    let (shape, samples) = ([2, 2], [3, 4]);
    let context = Context::new(&shape, 0).with_samples(&samples);
    let (mut message, mut received) = (Vec::new(), Tensor::default());
    for step in 0..3 {
        let x = [step as f32, 1.0, 2.0, 3.0];
        sender
            .compress(view(&x, &shape), &context, &mut message, None)
            .unwrap();
        receiver
            .decompress(&message, &context, &mut received)
            .unwrap();
        assert_eq!(received.data(), x);
    }
    let mut again = ErrorFeedback::new(Delta::default());
    again.restore(&sender.save().unwrap()).unwrap();
    assert_eq!(again.inner(), &receiver);
}

proptest! {
    #[test]
    fn any_bytes_are_a_state_or_an_error(state in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = ErrorFeedback::new(Codec::raw()).restore(&state);
    }
}
