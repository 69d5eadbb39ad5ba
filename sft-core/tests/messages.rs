//! Messages as bytes: written, read, damaged.

mod common;

use common::plan;
use proptest::prelude::*;
use sft_core::Error;
use sft_core::adapter::NamedShape;
use sft_core::data::Labels;
use sft_core::split::message::{
    Activation, Begin, Coded, Failure, FailureKind, FilePart, HEADER_BYTES, Hello, Message, Tensors,
};

fn layout() -> Vec<NamedShape> {
    vec![NamedShape {
        name: "layer.lora_A.weight".into(),
        shape: vec![2, 3],
    }]
}

fn one_of_each() -> Vec<Message> {
    let tensors = Tensors::whole(&layout(), [[1.0, 2.0, 3.0, 4.0].as_slice(), &[5.0, 6.0]]);
    let tensors = tensors.unwrap();
    let activation = |lengths, labels| {
        Message::Activation(Activation {
            step: 3,
            samples: vec![0, 300, u64::MAX],
            lengths,
            labels,
            frame: vec![7; 20],
        })
    };
    let coded = Coded {
        step: 3,
        frame: vec![9; 30],
    };
    let classes = || Some(Labels::Classes(vec![1, 0, 2]));
    let next = Labels::Tokens(vec![5, Labels::IGNORED, 0, 49_151]);
    let hello = |held| {
        Message::Hello(Hello {
            device: 4,
            samples: 1000,
            model: 77,
            bases: 5,
            held,
        })
    };
    vec![
        hello(None),
        hello(Some(0xdead_beef)),
        Message::Plan(plan().into()),
        Message::Adapters(tensors.clone()),
        Message::Adapters(Tensors {
            difference: true,
            ..tensors.clone()
        }),
        activation(None, classes()),
        activation(Some(vec![5, 1, 200]), classes()),
        activation(Some(vec![2, 1, 1]), Some(next)),
        activation(Some(vec![5, 1, 200]), None),
        Message::Gradient(coded.clone()),
        Message::Features(coded.clone()),
        Message::FeatureGradient(coded),
        Message::Received(3),
        Message::Update(tensors),
        Message::Leave("the battery is low".into()),
        Message::Error(Failure {
            kind: FailureKind::LostReference,
            reason: "nothing is there".into(),
        }),
        Message::Error(Failure {
            kind: FailureKind::Refused,
            reason: String::new(),
        }),
        Message::Join(None),
        Message::Join(Some(3)),
        Message::Job("{}".into()),
        Message::Want(vec!["config.json".into(), String::new()]),
        Message::FilePart(FilePart {
            name: "model.safetensors".into(),
            offset: 1 << 40,
            bytes: vec![5; 40],
        }),
        Message::Ready,
        Message::Enough(5),
        Message::Begin(Begin {
            round: 7,
            since: 5,
            uplink_bit_s: 1_000_000,
        }),
    ]
}

/// The same message with another body, and a checksum that is right.
fn with_body(message: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = message[..6].to_vec();
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(body);
    let checksum = crc32fast::hash(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

fn body(message: &[u8]) -> &[u8] {
    &message[HEADER_BYTES..message.len() - 4]
}

#[test]
fn every_message_is_read_as_it_was_written() {
    for message in one_of_each() {
        let bytes = message.encode().unwrap();
        assert_eq!(Message::decode(&bytes).unwrap(), message);
        let header = &bytes[..HEADER_BYTES];
        assert_eq!(Message::total_bytes(header, 1 << 20).unwrap(), bytes.len());
    }
}

#[test]
fn what_was_cut_flipped_or_lengthened_is_refused() {
    for message in one_of_each() {
        let bytes = message.encode().unwrap();
        for length in 0..bytes.len() {
            assert!(
                Message::decode(&bytes[..length]).is_err(),
                "{message:?} cut at {length}"
            );
        }
        assert!(Message::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Message::decode(&flipped).is_err(), "{message:?}, bit {bit}");
        }
    }
}

/// A body that ends early is refused by its own means too: those that end in a frame or a plan's
/// JSON leave that to the receiver of the frame, or to the JSON.
#[test]
fn a_body_that_was_cut_is_no_other_message_of_fixed_parts() {
    for message in one_of_each() {
        let bytes = message.encode().unwrap();
        for length in 0..body(&bytes).len() {
            let cut = Message::decode(&with_body(&bytes, &body(&bytes)[..length]));
            match (&message, cut) {
                // Files are told by their length and digest, a job is JSON.
                (_, Err(Error::Protocol(_)))
                | (Message::FilePart(_), Ok(Message::FilePart(_)))
                | (Message::Job(_), Ok(Message::Job(_))) => {}
                (Message::Adapters(whole) | Message::Update(whole), Ok(cut)) => {
                    let (Message::Adapters(cut) | Message::Update(cut)) = cut else {
                        panic!("another kind")
                    };
                    assert_eq!(
                        (cut.layout, cut.difference),
                        (whole.layout, whole.difference)
                    );
                    assert!(cut.decode(&layout()).is_err(), "a frame that was cut");
                }
                (Message::Activation(whole), Ok(Message::Activation(cut))) => {
                    assert_eq!(
                        (cut.samples, cut.labels),
                        (whole.samples.clone(), whole.labels.clone())
                    );
                }
                (Message::Gradient(whole), Ok(Message::Gradient(cut)))
                | (Message::Features(whole), Ok(Message::Features(cut)))
                | (Message::FeatureGradient(whole), Ok(Message::FeatureGradient(cut))) => {
                    assert_eq!(cut.step, whole.step);
                }
                (_, other) => panic!("{message:?} cut at {length}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_header_that_promises_too_much_is_refused_before_the_body() {
    let bytes = one_of_each()[0].encode().unwrap();
    let mut huge = bytes[..HEADER_BYTES].to_vec();
    huge[6..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(Message::total_bytes(&huge, usize::MAX).is_err());
    assert!(Message::total_bytes(&bytes[..HEADER_BYTES], 8).is_err());
    // A count that the body has no room for.
    let activation = one_of_each()[5].encode().unwrap();
    let counted = [&[0; 4][..], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0; 40]].concat();
    let error = Message::decode(&with_body(&activation, &counted)).unwrap_err();
    assert!(error.to_string().contains("too short"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever a body holds, reading it ends, and what is read is written as it was.
    #[test]
    fn any_body_is_a_message_or_an_error(
        which in 0..one_of_each().len(),
        at in any::<prop::sample::Index>(),
        change in prop::collection::vec(any::<u8>(), 0..24),
    ) {
        let bytes = one_of_each()[which].encode().unwrap();
        let mut changed = body(&bytes).to_vec();
        let at = at.index(changed.len() + 1);
        let end = (at + change.len()).min(changed.len());
        changed.splice(at..end, change);
        let bytes = with_body(&bytes, &changed);
        if let Ok(message) = Message::decode(&bytes) {
            let again = message.encode().unwrap();
            if !matches!(message, Message::Plan(_)) {
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
