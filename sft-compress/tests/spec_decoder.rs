//! A decoder written from `FORMAT.md` alone, slow and plain, must read what
//! the encoder writes.

mod common;

use proptest::prelude::*;
use sft_compress::{Codec, Range, TensorView, decode};

/// Takes fields off the front of a body.
struct Fields(Vec<u8>);

impl Fields {
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        self.0.drain(..len).collect()
    }

    fn number(&mut self, len: usize) -> u64 {
        self.bytes(len)
            .iter()
            .rev()
            .fold(0, |n, &byte| n << 8 | u64::from(byte))
    }

    fn f32(&mut self) -> f32 {
        f32::from_bits(self.number(4) as u32)
    }

    fn varint(&mut self) -> u64 {
        let (mut value, mut scale) = (0, 1);
        loop {
            let byte = self.number(1);
            value += (byte % 128) * scale;
            if byte < 128 {
                return value;
            }
            scale *= 128;
        }
    }

    fn golomb_section(&mut self, count: u64) -> Vec<u64> {
        if count == 0 {
            return Vec::new();
        }
        let (m, len) = (self.varint(), self.varint());
        let bytes = self.bytes(len as usize);
        let mut bits = bytes
            .iter()
            .flat_map(|byte| (0..8).map(move |i| u64::from(byte >> i & 1)));
        let b = u64::from(m.ilog2());
        let c = 2_u64.pow(b as u32 + 1) - m;
        let values = (0..count).map(|_| {
            let quotient = bits.by_ref().take_while(|&bit| bit == 0).count() as u64;
            let p = (0..b).map(|i| bits.next().unwrap() << i).sum::<u64>();
            let r = if p < c {
                p
            } else {
                2 * p + bits.next().unwrap() - c
            };
            quotient * m + r
        });
        let values = values.collect();
        assert!(bits.all(|bit| bit == 0));
        values
    }
}

fn decode_by_the_book(frame: &[u8]) -> (Vec<usize>, Vec<f32>) {
    let mut fields = Fields(frame.to_vec());
    assert_eq!(fields.bytes(5), b"SFTZ\x01");
    assert_eq!(fields.number(4) as usize + 13, frame.len());
    let checksum = Fields(fields.0.split_off(fields.0.len() - 4)).number(4);
    assert_eq!(checksum as u32, common::crc32(&frame[..frame.len() - 4]));

    let (method, flags, dtype) = (fields.number(1), fields.number(1), fields.number(1));
    assert_eq!(dtype, 0);
    let dims = fields.number(1);
    let shape: Vec<usize> = (0..dims).map(|_| fields.varint() as usize).collect();
    let elements = shape.iter().product();
    let row_len = shape[shape.len() - 1];
    let data = match method {
        0 => (0..elements).map(|_| fields.f32()).collect(),
        _ => paper(&mut fields, elements, row_len, flags == 1),
    };
    assert!(fields.0.is_empty());
    (shape, data)
}

fn paper(fields: &mut Fields, elements: usize, row_len: usize, by_row: bool) -> Vec<f32> {
    let levels = fields.number(1) + 1;
    let count = fields.varint();
    let mut data = vec![0.0; elements];
    if count == 0 {
        return data;
    }
    let (lo, hi) = (fields.f32(), fields.f32());
    let kept = positions(fields, count, elements as u64);
    let signs = fields.bytes(kept.len().div_ceil(8));

    let mut rows: Vec<usize> = kept.iter().map(|p| p / row_len).collect();
    rows.dedup();
    let mut ends = vec![hi; rows.len()];
    let mut coded = vec![0; kept.len()];
    if lo < hi {
        if by_row {
            ends = row_ends(fields, rows.len(), lo, hi);
        }
        coded = level_indices(fields, kept.len(), levels);
    }
    for (n, &position) in kept.iter().enumerate() {
        let row = rows.binary_search(&(position / row_len)).unwrap();
        let (a, b) = (f64::from(lo), f64::from(ends[row]));
        let magnitude = (a + coded[n] as f64 * ((b - a) / (levels - 1) as f64)) as f32;
        data[position] = if signs[n / 8] >> (n % 8) & 1 == 1 {
            -magnitude
        } else {
            magnitude
        };
    }
    data
}

fn positions(fields: &mut Fields, kept: u64, elements: u64) -> Vec<usize> {
    let lists_kept = kept <= elements / 2;
    let gaps = fields.golomb_section(if lists_kept { kept } else { elements - kept });
    let mut next = 0;
    let mut listed = vec![false; elements as usize];
    for gap in gaps {
        listed[(next + gap) as usize] = true;
        next += gap + 1;
    }
    (0..elements as usize)
        .filter(|&p| listed[p] == lists_kept)
        .collect()
}

fn row_ends(fields: &mut Fields, rows: usize, lo: f32, hi: f32) -> Vec<f32> {
    let grid = |x: f32| i64::from(x.to_bits().div_ceil(1 << 20));
    let mut index = 0;
    let coded = fields.golomb_section(rows as u64).into_iter();
    coded
        .map(|z| {
            let half = i64::try_from(z.div_ceil(2)).unwrap();
            index += if z % 2 == 0 { half } else { -half };
            f32::from_bits(((grid(lo) + index) << 20) as u32).min(hi)
        })
        .collect()
}

fn level_indices(fields: &mut Fields, kept: usize, levels: u64) -> Vec<u64> {
    let mut f = fields.golomb_section(levels - 1);
    f.push((1 << 14) - f.iter().sum::<u64>());
    let mut lanes = [fields.number(4), fields.number(4)];
    let indices = (0..kept).map(|n| {
        let x = &mut lanes[n % 2];
        let t = *x % (1 << 14);
        let (mut e, mut s) = (0, 0);
        while s + f[e] <= t {
            s += f[e];
            e += 1;
        }
        *x = f[e] * (*x >> 14) + t - s;
        if *x < 1 << 16 {
            *x = (*x << 16) + fields.number(2);
        }
        e as u64
    });
    let indices = indices.collect();
    assert_eq!(lanes, [1 << 16; 2]);
    indices
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn golden_frames() {
    for case in common::cases() {
        let (shape, data) = decode_by_the_book(&case.frame());
        assert_eq!(shape, case.shape, "{}", case.name);
        assert_eq!(bits(&data), bits(&case.output()), "{}", case.name);
    }
}

proptest! {
    #[test]
    fn any_frame(
        data in prop::collection::vec(-100.0_f32..100.0, 60),
        exponents in prop::collection::vec(-30_i32..30, 10),
        row_len in prop::sample::select(vec![1_usize, 2, 6, 20, 60]),
        keep in 0.001_f64..=1.0,
        levels in 2_u32..=256,
        by_row: bool,
        seed: u64,
    ) {
        let scale = |i: usize| 2.0_f32.powi(exponents[i / 6]);
        let data: Vec<f32> = data.iter().enumerate().map(|(i, x)| x * scale(i)).collect();
        let shape = [60 / row_len, row_len];
        let range = if by_row { Range::Row } else { Range::Tensor };
        let codec = Codec::paper(keep, levels).unwrap().with_range(range);
        let frame = codec.encode(TensorView::new(&data, &shape).unwrap(), seed).unwrap();
        let tensor = decode(&frame).unwrap();
        let (book_shape, book_data) = decode_by_the_book(&frame);
        prop_assert_eq!(tensor.shape(), book_shape);
        prop_assert_eq!(bits(tensor.data()), bits(&book_data));
    }
}
