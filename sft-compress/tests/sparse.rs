//! Frames of tensors of which next to nothing is kept.

use sft_compress::{Codec, Decoder, TensorView, decode, inspect};

const SHAPE: [usize; 3] = [16, 197, 192];
const ELEMENTS: usize = 16 * 197 * 192;

fn hash(i: u64) -> u64 {
    let mut z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ z >> 27
}

/// Zeros, but for magnitudes up to 5 at so many places.
fn sparse(count: usize, seed: u64) -> Vec<f32> {
    let (mut data, mut kept) = (vec![0.0; ELEMENTS], 0);
    for i in seed << 32.. {
        if kept == count {
            return data;
        }
        let x = &mut data[(hash(i) % ELEMENTS as u64) as usize];
        if *x == 0.0 {
            *x = ((hash(!i) >> 40) % 1000) as f32 / 100.0 - 4.995;
            kept += 1;
        }
    }
    data
}

/// At most 0.002 bits an element.
#[test]
fn nearly_empty_frames_take_next_to_nothing() {
    let limit = ELEMENTS * 2 / 1000 / 8;
    for codec in [
        "dead-zone:1",
        "error:0.1",
        "error:0.01",
        "unbiased:2",
        "activation:0.2:8",
    ] {
        let codec: Codec = codec.parse().unwrap();
        for count in [0, 1, 5, 30] {
            for seed in 0..3 {
                let data = sparse(count, seed);
                let frame = codec.encode(TensorView::new(&data, &SHAPE).unwrap(), seed);
                let frame = frame.unwrap();
                let len = frame.len();
                assert!(len <= limit, "{codec}: {len} bytes for {count} elements");
                let kept = inspect(&frame).unwrap().kept;
                assert!(kept <= count && (kept > 0 || count == 0));
            }
        }
    }
}

/// Where lists end and coding by context begins, elements come back, whole and by chunks.
#[test]
fn frames_of_any_density_come_back() {
    let codecs = [
        "exact",
        "gradient:0.5:8",
        "activation:0.5:8",
        "dead-zone:0.01",
        "unbiased:2",
    ];
    for codec in codecs {
        let codec: Codec = codec.parse().unwrap();
        let mut last = 0;
        for count in [
            1,
            63,
            64,
            300,
            2000,
            ELEMENTS / 64,
            ELEMENTS / 64 + 1,
            30_000,
        ] {
            let data = sparse(count, 7);
            let view = TensorView::new(&data, &SHAPE).unwrap();
            let frame = codec.encode(view, 1).unwrap();
            let tensor = decode(&frame).unwrap();
            assert!(frame.len() + 64 > last, "{codec}: {count}");
            last = frame.len();
            for (x, y) in data.iter().zip(tensor.data()) {
                assert!((*x != 0.0 || *y == 0.0) && x * y >= 0.0);
                assert!(codec.to_string() != "exact" || x.to_bits() == y.to_bits());
            }
            let (mut decoder, mut part) = (Decoder::new(), Vec::new());
            for chunk in 0..inspect(&frame).unwrap().chunks {
                let range = decoder.decode_chunk(&frame, chunk, &mut part).unwrap();
                assert!(part == tensor.data()[range]);
            }
        }
    }
}

/// Whatever is done to a list, with a checksum that fits again.
#[test]
fn damaged_lists_are_refused_or_decode() {
    for codec in ["dead-zone:1", "activation:0.2:8", "exact"] {
        let codec: Codec = codec.parse().unwrap();
        let data = sparse(12, 3);
        let view = TensorView::new(&data, &SHAPE).unwrap();
        let frame = codec.encode(view, 1).unwrap();
        let end = frame.len() - 4;
        let (mut refused, mut decoded) = (0, 0);
        for at in 9..end {
            for bit in 0..8 {
                let mut damaged = frame.clone();
                damaged[at] ^= 1 << bit;
                let checksum = crc32fast::hash(&damaged[..end]).to_le_bytes();
                damaged[end..].copy_from_slice(&checksum);
                match sft_compress::decode_limited(&damaged, ELEMENTS) {
                    Ok(tensor) => {
                        decoded += 1;
                        assert!(tensor.data().iter().all(|x| x.is_finite()));
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(
            refused > 50 && decoded > 50,
            "{codec}: {refused}, {decoded}"
        );
    }
}
