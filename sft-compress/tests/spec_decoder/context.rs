//! Method 2.

use crate::fields::{Bits, Fields, half};

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

pub(crate) fn context(
    fields: &mut Fields,
    elements: usize,
    row_len: usize,
    by_row: bool,
) -> Vec<f32> {
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
