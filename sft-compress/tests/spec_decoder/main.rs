//! A decoder written from `FORMAT.md` alone, slow and plain, must read what
//! the encoder writes.

mod common;

use proptest::prelude::*;
use sft_compress::{
    Code, Codec, Config, Decoder, Quantize, Range, Rounding, Spacing, Sparsify, TensorView, decode,
    inspect,
};

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
    let dims = fields.number(1);
    let shape: Vec<usize> = (0..dims).map(|_| fields.varint() as usize).collect();
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
        _ => context(&mut fields, elements, row_len, flags == 1),
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

/// The value of half-precision bits by the standard's definition.
fn half(bits: u64) -> f32 {
    let (exponent, fraction) = (bits >> 10 & 31, bits & 0x3ff);
    let magnitude = match exponent {
        0 => f32::from(fraction as u16) * 2.0_f32.powi(-24),
        31 => f32::from_bits(0x7f80_0000 | (fraction as u32) << 13),
        _ => f32::from(1024 + fraction as u16) * 2.0_f32.powi(exponent as i32 - 25),
    };
    f32::from_bits(magnitude.to_bits() | (bits as u32 >> 15) << 31)
}

/// A string of bits.
struct Bits(std::collections::VecDeque<u64>);

impl Bits {
    fn new(bytes: &[u8]) -> Self {
        Self(
            bytes
                .iter()
                .flat_map(|byte| (0..8).map(move |i| u64::from(byte >> i & 1)))
                .collect(),
        )
    }

    fn number(&mut self, bits: u64) -> u64 {
        (0..bits).map(|i| self.0.pop_front().unwrap() << i).sum()
    }

    fn finish(self) {
        assert!(self.0.len() < 8 && self.0.iter().all(|&bit| bit == 0));
    }
}

/// The quantizer of a context frame with its numbers.
struct Quantizer {
    kind: u64,
    levels: u64,
    numbers: Vec<u8>,
}

impl Quantizer {
    fn f32(&self, index: usize) -> f32 {
        f32::from_le_bytes(self.numbers[4 * index..][..4].try_into().unwrap())
    }

    fn magnitude(&self, i: u64, end: f32) -> f32 {
        match self.kind {
            0 | 1 => {
                assert!(i < self.levels);
                let (a, b) = (f64::from(self.f32(0)), f64::from(end));
                let intervals = (self.levels - 1) as f64;
                if self.kind == 0 {
                    return (a + i as f64 * ((b - a) / intervals)) as f32;
                }
                if i == 0 {
                    return self.f32(0);
                }
                if i == self.levels - 1 {
                    return end;
                }
                let (p, q) = (1.0 / a.sqrt().sqrt(), 1.0 / b.sqrt().sqrt());
                let r = p + ((q - p) / intervals) * i as f64;
                ((1.0 / ((r * r) * (r * r))) as f32).clamp(self.f32(0), end)
            }
            2 | 5 => {
                let at = if self.kind == 5 { 0 } else { i.min(15) };
                let o = f64::from(self.numbers[4 + at as usize]);
                ((f64::from(self.f32(0)) * (i as f64 + o / 128.0)) as f32).min(f32::MAX)
            }
            3 => {
                let half_bits =
                    |at: usize| u16::from_le_bytes([self.numbers[at], self.numbers[at + 1]]);
                assert!(u64::from(half_bits(0)) + i <= half_bits(2).into());
                half(u64::from(half_bits(0)) + i)
            }
            _ => {
                let bits = u64::from(self.f32(0).to_bits()) + i;
                assert!(bits <= self.f32(1).to_bits().into());
                f32::from_bits(bits as u32)
            }
        }
    }
}

/// What the chunks of a context frame share.
struct Shared {
    width: usize,
    chunk_rows: usize,
    lanes: usize,
    channel_classes: usize,
    neighbours: usize,
    row_class: Vec<usize>,
    channel_class: Vec<usize>,
    /// By table and place in the order 0, 1, −1, 2, −2, …
    frequencies: Vec<Vec<u64>>,
}

fn context(fields: &mut Fields, elements: usize, row_len: usize, by_row: bool) -> Vec<f32> {
    let kind = fields.number(1);
    let levels = if kind < 2 { fields.number(1) + 1 } else { 0 };
    let kept = fields.varint();
    let mut data = vec![0.0; elements];
    if kept == 0 {
        return data;
    }
    let numbers = fields.bytes([8, 8, 20, 4, 8, 5][kind as usize]);
    let quantizer = Quantizer {
        kind,
        levels,
        numbers,
    };
    let shared = shared(fields, elements);
    let chunk_len = shared.width * shared.chunk_rows;
    let chunks = data.chunks_mut(chunk_len);
    let lengths: Vec<u64> = chunks.map(|_| fields.varint()).collect();
    let mut found = 0;
    for (n, (chunk, length)) in data.chunks_mut(chunk_len).zip(lengths).enumerate() {
        let mut fields = Fields(fields.bytes(length as usize));
        let (side, symbols) = if shared.lanes == 64 {
            list(&mut fields, chunk.len())
        } else {
            let side_len = fields.varint();
            let side = Bits::new(&fields.bytes(side_len as usize));
            let first_row = n * shared.chunk_rows;
            (side, symbols(&mut fields, chunk.len(), first_row, &shared))
        };
        assert!(fields.0.is_empty());
        found += symbols.iter().filter(|s| **s != 0).count() as u64;
        let rows = (n * chunk_len..)
            .map(|element| element / row_len)
            .take(chunk.len())
            .collect();
        magnitudes(chunk, &symbols, rows, side, &quantizer, by_row);
    }
    assert_eq!(found, kept);
    data
}

fn shared(fields: &mut Fields, elements: usize) -> Shared {
    let (width, chunk_rows) = (fields.varint() as usize, fields.varint() as usize);
    let lanes = 1 << fields.number(1);
    if lanes == 64 {
        return Shared {
            width,
            chunk_rows,
            lanes,
            channel_classes: 0,
            neighbours: 0,
            row_class: Vec::new(),
            channel_class: Vec::new(),
            frequencies: Vec::new(),
        };
    }
    let [row_classes, channel_classes, neighbours, tokens] = [(); 4].map(|()| fields.number(1));
    let len = fields.varint();
    let mut model = Bits::new(&fields.bytes(len as usize));
    let mut classes = |count: usize, of: u64| -> Vec<usize> {
        let bits = (0..8).find(|bits| 1 << bits >= of).unwrap();
        (0..count).map(|_| model.number(bits) as usize).collect()
    };
    let row_class = classes(elements.div_ceil(width), row_classes);
    let channel_class = classes(width, channel_classes);
    let tables = (0..row_classes * channel_classes * neighbours).map(|_| {
        let listed = model.number(8) as usize;
        let mut table = vec![0; 2 * tokens as usize + 1];
        for frequency in &mut table[1..=listed] {
            let bits = model.number(4);
            *frequency = match bits {
                0 => 0,
                _ => (1 << (bits - 1)) + model.number(bits - 1),
            };
        }
        table[0] = (1 << 12) - table.iter().sum::<u64>();
        table
    });
    let frequencies = tables.collect();
    model.finish();
    Shared {
        width,
        chunk_rows,
        lanes,
        channel_classes: channel_classes as usize,
        neighbours: neighbours as usize,
        row_class,
        channel_class,
        frequencies,
    }
}

/// The symbols of a chunk's list, and the bits behind it.
fn list(fields: &mut Fields, count: usize) -> (Bits, Vec<i32>) {
    let (kept, mut symbols) = (fields.varint(), vec![0; count]);
    let rest = fields.0.len();
    let mut bits = Bits::new(&fields.bytes(rest));
    if kept == 0 {
        return (bits, symbols);
    }
    let (gaps, tokens) = (bits.number(5), bits.number(3));
    let number = |bits: &mut Bits, order: u64| {
        let zeros = (0..=31).find(|_| bits.number(1) == 1).unwrap();
        let above = (1 << zeros) + bits.number(zeros) - 1;
        (above << order) + bits.number(order)
    };
    let mut next = 0;
    for _ in 0..kept {
        let position = next + number(&mut bits, gaps) as usize;
        let sign = if bits.number(1) == 1 { -1 } else { 1 };
        symbols[position] = sign * (number(&mut bits, tokens) as i32 + 1);
        next = position + 1;
    }
    (bits, symbols)
}

fn symbols(fields: &mut Fields, count: usize, first_row: usize, shared: &Shared) -> Vec<i32> {
    let mut lanes: Vec<u64> = (0..shared.lanes).map(|_| fields.number(4)).collect();
    let mut symbols: Vec<i32> = Vec::new();
    for i in 0..count {
        let above = i
            .checked_sub(shared.width)
            .map_or(0, |above| symbols[above]);
        let neighbour = match shared.neighbours {
            1 => 0,
            _ => [2, 0, 1][(above.signum() + 1) as usize],
        };
        let row = shared.row_class[first_row + i / shared.width];
        let classes = row * shared.channel_classes + shared.channel_class[i % shared.width];
        let f = &shared.frequencies[classes * shared.neighbours + neighbour];
        let x = &mut lanes[i % shared.lanes];
        let t = *x % (1 << 12);
        let (mut e, mut s) = (0, 0);
        while s + f[e] <= t {
            s += f[e];
            e += 1;
        }
        *x = f[e] * (*x >> 12) + t - s;
        if *x < 1 << 16 {
            *x = (*x << 16) + fields.number(2);
        }
        let magnitude = i32::try_from(e.div_ceil(2)).unwrap();
        symbols.push(if e % 2 == 1 { magnitude } else { -magnitude });
    }
    assert!(lanes.iter().all(|&x| x == 1 << 16));
    symbols
}

fn magnitudes(
    chunk: &mut [f32],
    symbols: &[i32],
    rows: Vec<usize>,
    mut side: Bits,
    quantizer: &Quantizer,
    by_row: bool,
) {
    let mut ends = std::collections::HashMap::new();
    if by_row {
        let grid = |x: f32| i64::from(x.to_bits().div_ceil(1 << 17));
        let (lo, hi) = (quantizer.f32(0), quantizer.f32(1));
        let k = side.number(3);
        let mut index = 0;
        let mut live: Vec<usize> = rows
            .iter()
            .zip(symbols)
            .filter(|(_, s)| **s != 0)
            .map(|(r, _)| *r)
            .collect();
        live.dedup();
        for row in live {
            let mut quotient = 0;
            while side.number(1) == 0 {
                quotient += 1;
            }
            let v = ((quotient << k) + side.number(k)).cast_signed();
            index += if v % 2 == 0 { v / 2 } else { -(v + 1) / 2 };
            assert!((0..=grid(hi) - grid(lo)).contains(&index));
            ends.insert(
                row,
                f32::from_bits(((grid(lo) + index) << 17) as u32).min(hi),
            );
        }
    }
    for ((x, &symbol), row) in chunk.iter_mut().zip(symbols).zip(rows) {
        if symbol == 0 {
            continue;
        }
        let token = u64::from(symbol.unsigned_abs());
        let index = match token.checked_sub(17) {
            None => token - 1,
            Some(u) => {
                let b = u / 2 + 3;
                ((2 + u % 2) << b) + side.number(b)
            }
        };
        let end = if by_row {
            ends[&row]
        } else if quantizer.kind < 2 {
            quantizer.f32(1)
        } else {
            0.0
        };
        let magnitude = quantizer.magnitude(index, end);
        *x = if symbol < 0 { -magnitude } else { magnitude };
    }
    side.finish();
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

/// Every kind of codec.
fn any_codec() -> impl Strategy<Value = Codec> {
    let keep = 0.001_f64..=1.0;
    let sparsify = prop_oneof![
        Just(Sparsify::None),
        keep.clone().prop_map(Sparsify::TopK),
        keep.prop_map(Sparsify::RowTopK),
        (0.001_f32..10.0).prop_map(Sparsify::Threshold),
    ];
    let spacing = prop::sample::select(vec![Spacing::Linear, Spacing::Log]);
    let rounding = prop::sample::select(vec![Rounding::Stochastic, Rounding::Nearest]);
    let range = prop::sample::select(vec![Range::Tensor, Range::Row]);
    let levels =
        (2_u32..=256, spacing, rounding, range).prop_map(|(count, spacing, rounding, range)| {
            Quantize::Levels {
                count,
                spacing,
                rounding,
                range,
            }
        });
    let quantize = prop_oneof![
        Just(Quantize::None),
        Just(Quantize::F16),
        levels,
        (0.001_f64..20.0).prop_map(|step| Quantize::DeadZone { step }),
        (0.001_f64..20.0).prop_map(|step| Quantize::Unbiased { step }),
    ];
    let code = prop::sample::select(vec![Code::Golomb, Code::Context]);
    let config = (sparsify, quantize, code).prop_map(|(sparsify, quantize, code)| {
        let mut config = Config::default();
        (config.sparsify, config.quantize, config.code) = (sparsify, quantize, code);
        config
    });
    config.prop_filter_map("not a combination", |config| Codec::new(config).ok())
}

fn agree(data: &[f32], shape: &[usize], codec: Codec, seed: u64) {
    let frame = codec
        .encode(TensorView::new(data, shape).unwrap(), seed)
        .unwrap();
    let tensor = decode(&frame).unwrap();
    let (book_shape, book_data) = decode_by_the_book(&frame);
    assert_eq!(tensor.shape(), book_shape);
    assert!(bits(tensor.data()) == bits(&book_data), "{codec}");
    let info = inspect(&frame).unwrap();
    assert_eq!(info.shape, shape);
    let mut parts = Vec::new();
    for index in 0..info.chunks {
        let mut part = Vec::new();
        let range = Decoder::new()
            .decode_chunk(&frame, index, &mut part)
            .unwrap();
        assert_eq!(range, parts.len()..parts.len() + part.len());
        parts.extend(part);
    }
    assert!(bits(&parts) == bits(&book_data), "{codec}");
}

#[test]
fn frames_of_many_chunks() {
    let noise = |i: u32| i.wrapping_mul(0x9e37_79b9) ^ i.wrapping_mul(0x85eb_ca6b) >> 13;
    let data: Vec<f32> = (0..600_000_u32)
        .map(|i| (noise(i) % 2001) as f32 - 1000.0)
        .map(|x| x * x * x)
        .collect();
    for shape in [&[750, 4, 200][..], &[12, 50_000]] {
        for codec in [
            Codec::gradient(0.1, 8).unwrap(),
            Codec::dead_zone(0.1).unwrap(),
        ] {
            agree(&data, shape, codec, 1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_frame(
        data in prop::collection::vec(-100.0_f32..100.0, 60),
        exponents in prop::collection::vec(-30_i32..30, 10),
        row_len in prop::sample::select(vec![1_usize, 2, 6, 20, 60]),
        codec in any_codec(),
        seed: u64,
    ) {
        let scale = |i: usize| 2.0_f32.powi(exponents[i / 6]);
        let data: Vec<f32> = data.iter().enumerate().map(|(i, x)| x * scale(i)).collect();
        let shape = [60 / row_len, row_len];
        agree(&data, &shape, codec, seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_large_frame(
        row_len in prop::sample::select(vec![3_usize, 16, 33, 64, 5000]),
        sparsity in 1_u32..40,
        codec in any_codec(),
        seed: u64,
    ) {
        let mut state = seed;
        let mut draw = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 40) as u32
        };
        let data: Vec<f32> = (0..20_000)
            .map(|_| if draw() % sparsity == 0 { draw() as f32 - 8e6 } else { 0.0 })
            .collect();
        let rows = data.len() / row_len;
        agree(&data[..rows * row_len], &[rows, row_len], codec, seed);
    }
}
