//! Envelope and body.

use crate::common;
use crate::context::context;
use crate::fields::{Fields, half};
use crate::paper::paper;

/// A frame whose envelope was taken off, and whose body was read as far as all methods have it in
/// common.
pub(crate) struct Opened {
    pub(crate) method: u64,
    pub(crate) flags: u64,
    pub(crate) dtype: u64,
    pub(crate) shape: Vec<usize>,
    pub(crate) rest: Fields,
}

pub(crate) fn open(frame: &[u8]) -> Opened {
    let mut fields = Fields(frame.to_vec());
    assert_eq!(fields.bytes(5), b"SFTZ\x01");
    assert_eq!(fields.number(4) as usize + 13, frame.len());
    let checksum = Fields(fields.0.split_off(fields.0.len() - 4)).number(4);
    assert_eq!(checksum as u32, common::crc32(&frame[..frame.len() - 4]));

    let (method, flags, dtype) = (fields.number(1), fields.number(1), fields.number(1));
    let dims = fields.number(1);
    let shape = (0..dims).map(|_| fields.varint() as usize).collect();
    Opened {
        method,
        flags,
        dtype,
        shape,
        rest: fields,
    }
}

/// The shape and the elements of a frame of method 0, 1 or 2.
pub(crate) fn decode_by_the_book(frame: &[u8]) -> (Vec<usize>, Vec<f32>) {
    let Opened {
        method,
        flags,
        dtype,
        shape,
        rest: mut fields,
    } = open(frame);
    let elements = shape.iter().product();
    let row_len = shape[shape.len() - 1];
    let data = match method {
        0 => (0..elements)
            .map(|_| match dtype {
                0 => fields.f32(),
                1 => half(fields.number(2)),
                _ => f32::from_bits((fields.number(2) as u32) << 16),
            })
            .collect(),
        1 => paper(&mut fields, elements, row_len, flags == 1),
        2 => context(&mut fields, elements, row_len, flags == 1),
        _ => panic!("method {method} needs a basis"),
    };
    assert!(fields.0.is_empty());
    (shape, data)
}
