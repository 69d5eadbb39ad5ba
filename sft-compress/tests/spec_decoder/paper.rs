//! Method 1.

use crate::fields::Fields;

pub(crate) fn paper(
    fields: &mut Fields,
    elements: usize,
    row_len: usize,
    by_row: bool,
) -> Vec<f32> {
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
