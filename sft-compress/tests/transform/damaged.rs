use std::sync::Arc;

use sft_compress::{Basis, Compressor, Context, Decompressor, Tensor, TensorView};
use sft_compress::{TransformDecoder, TransformEncoder};

use super::{SHAPE, basis, pair, samples};

#[test]
fn damaged_messages_are_refused_or_decode() {
    let (mut encoder, decoder) = pair(&basis(0.1), 1 << 20);
    let (data, ids) = (samples(2), (0..12).collect::<Vec<_>>());
    let context = Context::new(&SHAPE, 0).with_samples(&ids);
    let view = TensorView::new(&data, &SHAPE).unwrap();
    let (mut message, mut tensor) = (Vec::new(), Tensor::default());
    encoder
        .compress(view, &context, &mut message, None)
        .unwrap();
    for end in 0..message.len() {
        let mut decoder = decoder.clone();
        assert!(
            decoder
                .decompress(&message[..end], &context, &mut tensor)
                .is_err()
        );
    }
    // With a checksum that fits again, whatever was done.
    for at in 9..message.len() - 4 {
        let mut damaged = message.clone();
        damaged[at] ^= 0x55;
        let end = damaged.len() - 4;
        let checksum = crc32fast::hash(&damaged[..end]);
        damaged[end..].copy_from_slice(&checksum.to_le_bytes());
        let mut decoder = decoder.clone();
        let done = decoder.decompress(&damaged, &context, &mut tensor);
        assert_eq!(done.is_err(), tensor.data().is_empty());
        if done.is_err() {
            assert_eq!(decoder.memory_bytes(), 0);
        }
    }
}

#[test]
fn damaged_bases_are_refused_or_decode() {
    let basis = basis(0.1);
    let mut encoder = TransformEncoder::new(Arc::clone(&basis));
    let (data, context) = (samples(2), Context::new(&SHAPE, 0));
    let view = TensorView::new(&data, &SHAPE).unwrap();
    let (mut message, mut tensor) = (Vec::new(), Tensor::default());
    encoder
        .compress(view, &context, &mut message, None)
        .unwrap();
    let end = basis.to_bytes().len() - 4;
    let (mut read, mut decoded) = (0, 0);
    for at in 5..end {
        let mut damaged = basis.to_bytes().to_vec();
        damaged[at] ^= 1 << (at % 8);
        let checksum = crc32fast::hash(&damaged[..end]).to_le_bytes();
        damaged[end..].copy_from_slice(&checksum);
        let Ok(basis) = Basis::from_bytes(&damaged) else {
            continue;
        };
        read += 1;
        // The message names the basis it needs: let it name this one.
        let mut message = message.clone();
        let name = message
            .windows(4)
            .position(|bytes| bytes == basis_name(&message))
            .unwrap();
        message[name..name + 4].copy_from_slice(&basis.name().to_le_bytes());
        let end = message.len() - 4;
        let checksum = crc32fast::hash(&message[..end]).to_le_bytes();
        message[end..].copy_from_slice(&checksum);
        let mut decoder = TransformDecoder::new(Arc::new(basis));
        if decoder.decompress(&message, &context, &mut tensor).is_ok() {
            decoded += 1;
            assert!(tensor.data().iter().all(|x| x.is_finite()), "byte {at}");
        }
    }
    assert!(read > 30 && decoded > 20, "{read}, {decoded}");
}

/// The name of the basis in a message of the tests' shape: behind envelope and header.
fn basis_name(message: &[u8]) -> &[u8] {
    &message[9 + 4 + 3..][..4]
}
