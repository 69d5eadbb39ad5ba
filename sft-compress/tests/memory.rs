//! Codecs whose receiver remembers too, by a toy of one.

mod common;

use std::collections::BTreeMap;

use common::view;
use proptest::prelude::*;
use sft_compress::{
    Codec, Compressor, Context, Decoder, Decompressor, Error, ErrorFeedback, ErrorKind, Result,
    SampleId, Stateful, Tensor, TensorView,
};

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
