//! A basis of any bytes, and a message by it.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sft_compress::{Basis, Context, Decompressor, Stateful, Tensor, TransformDecoder};

/// Elements of a sample that are decoded.
const MAX_ELEMENTS: usize = 1 << 14;

/// The bytes behind their length of one byte, four times over, and what is left.
fn split(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&quarter, rest) = input.split_first()?;
    rest.split_at_checked(4 * usize::from(quarter))
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fuzz_target!(|input: &[u8]| {
    let Some((basis, rest)) = split(input) else {
        return;
    };
    let basis = with_checksum([&b"SFTB\x01"[..], basis].concat());
    let Ok(basis) = Basis::from_bytes(&basis) else {
        return;
    };
    assert_eq!(Basis::from_bytes(basis.to_bytes()).as_ref(), Ok(&basis));
    let tokens = basis.tokens();
    let grid = tokens.sides().map_or(3, |[height, width]| height * width);
    let shape = [2, tokens.prefix() + grid, basis.width()];
    if shape.iter().product::<usize>() > MAX_ELEMENTS {
        return;
    }
    // A message that names it: header, name, number of coefficients, scale or kind, decisions.
    let mut body = vec![3, 0, 0, 3];
    for mut dim in shape {
        while dim >= 0x80 {
            body.push(dim as u8 | 0x80);
            dim >>= 7;
        }
        body.push(dim as u8);
    }
    body.extend(basis.name().to_le_bytes());
    body.extend(rest);
    let length = (body.len() as u32).to_le_bytes();
    let message = with_checksum([&b"SFTZ\x01"[..], &length, &body].concat());
    let mut decoder = TransformDecoder::new(Arc::new(basis)).with_memory(1 << 16);
    let context = Context::new(&shape, 0).with_samples(&[1, 2]);
    let mut tensor = Tensor::default();
    // A second time it may build on the first.
    for _ in 0..2 {
        if decoder.decompress(&message, &context, &mut tensor).is_ok() {
            assert_eq!(tensor.shape(), shape);
            assert!(tensor.data().iter().all(|x| x.is_finite()));
            let state = decoder.save().expect("it is small");
            decoder.restore(&state).expect("it is its own");
        }
    }
});
