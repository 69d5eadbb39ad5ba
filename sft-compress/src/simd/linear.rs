//! Products and steps of the transform codec: plain loops, compiled for each level.
//!
//! A sum of products is added up in the order of the depth, each product fused with its addition:
//! rounded once, as IEEE 754 says, so that every level and every processor has the same.

#![allow(clippy::inline_always, reason = "compiled for each level")]

use super::Level;
#[cfg(target_arch = "x86_64")]
use super::level::Kind;
use super::loops::for_each_level;

/// Columns that are made together.
const GROUP: usize = 16;
/// Columns of a panel of a packed matrix.
const PANEL: usize = 2 * GROUP;

/// A matrix, row-major, or as much of it as is needed.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) values: &'a [f32],
    /// From one row to the next.
    pub(crate) stride: usize,
}

/// The product of `R` rows and `G` times `C` columns, the first of `b`.
#[inline(always)]
fn block<const R: usize, const G: usize, const C: usize>(
    rows: [&[f32]; R],
    b: Matrix<'_>,
) -> [[[f32; C]; G]; R] {
    let mut sums = [[[0.0_f32; C]; G]; R];
    let depth = rows[0].len();
    for (d, b) in b.values.chunks(b.stride).take(depth).enumerate() {
        let Some(b) = b.as_chunks::<C>().0.first_chunk::<G>() else {
            break;
        };
        for (sums, row) in sums.iter_mut().zip(rows) {
            for (sum, b) in sums.as_flattened_mut().iter_mut().zip(b.as_flattened()) {
                *sum = row[d].mul_add(*b, *sum);
            }
        }
    }
    sums
}

/// Where columns go in a matrix.
#[derive(Clone, Copy)]
struct Place {
    stride: usize,
    column: usize,
    /// Columns from there on that are kept.
    count: usize,
}

/// `G` times `C` columns of the product of some rows, up to `depth`, and `b`.
#[inline(always)]
fn columns<const R: usize, const G: usize, const C: usize>(
    (a, depth): (Matrix<'_>, usize),
    mut rows: impl Iterator<Item = usize>,
    b: Matrix<'_>,
    out: &mut [f32],
    place: Place,
) {
    while let Some(mut row) = rows.next() {
        // What lacks to the last block is its last row once more.
        let block_rows: [usize; R] = std::array::from_fn(|r| {
            row = if r == 0 {
                row
            } else {
                rows.next().unwrap_or(row)
            };
            row
        });
        let a = block_rows.map(|row| &a.values[row * a.stride..][..depth]);
        let sums = block::<R, G, C>(a, b);
        for (row, sums) in block_rows.into_iter().zip(&sums) {
            let out = &mut out[row * place.stride + place.column..];
            match out.as_chunks_mut::<C>().0.first_chunk_mut::<G>() {
                Some(out) if place.count >= G * C => *out = *sums,
                _ => {
                    let count = place.count.min(G * C);
                    out[..count].copy_from_slice(&sums.as_flattened()[..count]);
                }
            }
        }
    }
}

/// The product of `a`, up to `depth` of its columns, and the first `width` columns of `b`. The rows
/// of `out` are as far apart as those of `b`.
pub(crate) fn product(
    level: Level,
    a: Matrix<'_>,
    depth: usize,
    b: Matrix<'_>,
    width: usize,
    out: &mut [f32],
) {
    let make = if level.is_wide() {
        wide_product
    } else {
        narrow_product
    };
    make(level, (a, depth), b, width, out);
}

// As many sums at a time as there are registers for.
for_each_level! {
    fn wide_product(a: (Matrix<'_>, usize), b: Matrix<'_>, width: usize, out: &mut [f32]) {
        let done = all_columns::<7, 3, GROUP>(a, b, 0, width, out);
        let done = all_columns::<8, 1, 8>(a, b, done, width, out);
        all_columns::<8, 1, 1>(a, b, done, width, out);
    }
}

for_each_level! {
    fn narrow_product(a: (Matrix<'_>, usize), b: Matrix<'_>, width: usize, out: &mut [f32]) {
        let done = all_columns::<5, 1, GROUP>(a, b, 0, width, out);
        all_columns::<8, 1, 1>(a, b, done, width, out);
    }
}

/// Makes columns from one on as long as there are enough; tells where it ended.
#[inline(always)]
fn all_columns<const R: usize, const G: usize, const C: usize>(
    (a, depth): (Matrix<'_>, usize),
    b: Matrix<'_>,
    mut column: usize,
    width: usize,
    out: &mut [f32],
) -> usize {
    let (rows, stride) = (a.values.len() / a.stride, b.stride);
    while width - column >= G * C {
        let values = &b.values[column..];
        let place = Place {
            stride,
            column,
            count: G * C,
        };
        columns::<R, G, C>((a, depth), 0..rows, Matrix { values, stride }, out, place);
        column += G * C;
    }
    column
}

/// The transpose of a matrix of rows of `depth` in panels for [`rotate`].
pub(crate) fn pack(rows: &[f32], depth: usize) -> Vec<f32> {
    let mut panels = vec![0.0; (rows.len() / depth).next_multiple_of(PANEL) * depth];
    for (column, row) in rows.chunks_exact(depth).enumerate() {
        let panel = &mut panels[column / PANEL * PANEL * depth..][..PANEL * depth];
        for (line, x) in panel.chunks_exact_mut(PANEL).zip(row) {
            line[column % PANEL] = *x;
        }
    }
    panels
}

/// The product of a matrix and one that is [packed](pack). Of each row of `out`, of `width`, at
/// least as many elements are made as `ends` says; others are left alone.
pub(crate) fn rotate(
    level: Level,
    a: Matrix<'_>,
    panels: &[f32],
    ends: &[usize],
    width: usize,
    out: &mut [f32],
) {
    let make = if level.is_wide() {
        wide_rotation
    } else {
        narrow_rotation
    };
    make(level, a, panels, ends, width, out);
}

for_each_level! {
    fn wide_rotation(a: Matrix<'_>, panels: &[f32], ends: &[usize], width: usize, out: &mut [f32]) {
        for (number, panel) in panels.chunks_exact(a.stride * PANEL).enumerate() {
            panel_columns::<8, 2>(a, panel, number * PANEL, ends, width, out);
        }
    }
}

for_each_level! {
    fn narrow_rotation(a: Matrix<'_>, panels: &[f32], ends: &[usize], width: usize, out: &mut [f32]) {
        for (number, panel) in panels.chunks_exact(a.stride * PANEL).enumerate() {
            let column = number * PANEL;
            panel_columns::<6, 1>(a, panel, column, ends, width, out);
            if column + GROUP < width {
                panel_columns::<6, 1>(a, &panel[GROUP..], column + GROUP, ends, width, out);
            }
        }
    }
}

#[inline(always)]
fn panel_columns<const R: usize, const G: usize>(
    a: Matrix<'_>,
    values: &[f32],
    column: usize,
    ends: &[usize],
    width: usize,
    out: &mut [f32],
) {
    let rows = ends.iter().enumerate().filter(|(_, end)| **end > column);
    let place = Place {
        stride: width,
        column,
        count: width - column,
    };
    let b = Matrix {
        values,
        stride: PANEL,
    };
    columns::<R, G, GROUP>((a, a.stride), rows.map(|(row, _)| row), b, out, place);
}

for_each_level! {
    /// The sum of some rows of a matrix, each times a factor, in this order.
    fn combine(factors: &[(usize, f32)], rows: &[f32], out: &mut [f32]) {
        let (width, mut column) = (out.len(), 0);
        while width - column >= 12 * GROUP {
            sum_columns::<{ 12 * GROUP }>(factors, rows, column, out);
            column += 12 * GROUP;
        }
        while width - column >= 4 * GROUP {
            sum_columns::<{ 4 * GROUP }>(factors, rows, column, out);
            column += 4 * GROUP;
        }
        while width - column >= 8 {
            sum_columns::<8>(factors, rows, column, out);
            column += 8;
        }
        while column < width {
            sum_columns::<1>(factors, rows, column, out);
            column += 1;
        }
    }
}

#[inline(always)]
fn sum_columns<const C: usize>(
    factors: &[(usize, f32)],
    rows: &[f32],
    column: usize,
    out: &mut [f32],
) {
    let mut sums = [0.0_f32; C];
    for &(row, factor) in factors {
        for (sum, x) in sums.iter_mut().zip(&rows[row * out.len() + column..][..C]) {
            *sum = factor.mul_add(*x, *sum);
        }
    }
    out[column..][..C].copy_from_slice(&sums);
}

for_each_level! {
    /// Adds a row to `out`.
    fn add(out: &mut [f32], row: &[f32]) {
        for (out, x) in out.iter_mut().zip(row) {
            *out += x;
        }
    }
}

for_each_level! {
    /// Makes values lie within ±`most`, and 0 of NaN.
    fn limit(values: &mut [f32], most: f32) {
        for x in values {
            let within = x.clamp(-most, most);
            *x = if x.is_nan() { 0.0 } else { within };
        }
    }
}

/// The largest index of the transform codec.
pub(crate) const MAX_INDEX: i32 = 1 << 24;

for_each_level! {
    /// The index of each value: its magnitude in steps plus `rounding`, rounded down, with its sign.
    fn indices(values: &[f32], per_step: f32, rounding: f32, out: &mut [i32]) {
        for (index, x) in out.iter_mut().zip(values) {
            let steps = (x.abs() * per_step + rounding).min(MAX_INDEX as f32);
            // SAFETY: it is no NaN, which `min` would not have returned, and within 0..=2²⁴.
            let steps: i32 = unsafe { steps.to_int_unchecked() };
            *index = if x.is_sign_negative() { -steps } else { steps };
        }
    }
}

for_each_level! {
    /// Appends the places of the indices that are not zero, of which there are few.
    fn nonzero(indices: &[i32], out: &mut Vec<u32>) {
        let (parts, rest) = indices.as_chunks::<16>();
        let bits = |indices: &[i32]| {
            let some = indices.iter().map(|index| u32::from(*index != 0));
            some.enumerate().fold(0, |bits, (at, some)| bits | some << at)
        };
        let parts = parts.iter().map(|part| bits(part)).chain([bits(rest)]);
        for (number, mut some) in parts.enumerate() {
            while some != 0 {
                out.push(16 * number as u32 + some.trailing_zeros());
                some &= some - 1;
            }
        }
    }
}

for_each_level! {
    /// How many indices are not zero, and no less than the largest magnitude: all their bits.
    fn survey(indices: &[i32]) -> (usize, u32) {
        let (mut count, mut bits) = (0, 0);
        for indices in indices.chunks(1 << 16) {
            let mut some = 0_u32;
            for index in indices {
                some += u32::from(*index != 0);
                bits |= index.unsigned_abs();
            }
            count += some as usize;
        }
        (count, bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let hash = |i: u32| {
            (i ^ seed)
                .wrapping_mul(0x9e37_79b9)
                .wrapping_mul(0x85eb_ca6b)
        };
        (0..count as u32)
            .map(|i| (hash(i) >> 8) as f32 / 1e6 - 8.0)
            .collect()
    }

    #[test]
    fn products_are_those_of_the_definition_at_every_level() {
        for (m, depth, width) in [(1, 1, 1), (9, 14, 77), (17, 33, 64), (3, 5, 205)] {
            let (a, b) = (numbers(m * depth, 1), numbers(depth * width, 2));
            let sum = |r: usize, c: usize| {
                (0..depth).fold(0.0, |sum, d| {
                    a[r * depth + d].mul_add(b[d * width + c], sum)
                })
            };
            let expected: Vec<f32> = (0..m * width).map(|i| sum(i / width, i % width)).collect();
            let transposed = (0..width).flat_map(|c| (0..depth).map(move |d| (d, c)));
            let transposed: Vec<f32> = transposed.map(|(d, c)| b[d * width + c]).collect();
            for level in Level::all() {
                let mut out = vec![0.0; m * width];
                let [a_rows, b_rows] =
                    [(&a, depth), (&b, width)].map(|(values, stride)| Matrix { values, stride });
                product(level, a_rows, depth, b_rows, width, &mut out);
                assert_eq!(out, expected);
                let (mut out, ends) = (vec![7.0; m * width], vec![width; m]);
                let packed = pack(&transposed, depth);
                rotate(level, a_rows, &packed, &ends, width, &mut out);
                assert_eq!(out, expected);
                for (row, expected) in expected.chunks_exact(width).enumerate() {
                    let factors: Vec<_> = a[row * depth..][..depth]
                        .iter()
                        .copied()
                        .enumerate()
                        .collect();
                    let mut out = vec![7.0; width];
                    combine(level, &factors, &b, &mut out);
                    assert_eq!(out, expected);
                }
            }
        }
    }

    #[test]
    fn indices_are_rounded_magnitudes_at_every_level() {
        let values = [0.0, 0.44, -0.46, 1.46, -3.0, 1e30, -0.1, 0.0];
        for level in Level::all() {
            let mut out = [7; 8];
            indices(level, &values, 1.0, 0.55, &mut out);
            assert_eq!(out, [0, 0, -1, 2, -3, MAX_INDEX, 0, 0]);
        }
    }

    #[test]
    fn products_stop_at_a_depth_at_every_level() {
        let (a, mut b) = (numbers(14 * 14, 1), numbers(14 * 60, 2));
        b[5 * 60..].fill(0.0);
        let [a, b] = [(&a, 14), (&b, 60)].map(|(values, stride)| Matrix { values, stride });
        for level in Level::all() {
            let (mut whole, mut part) = (vec![1.0; 14 * 60], vec![1.0; 14 * 60]);
            product(level, a, 14, b, 60, &mut whole);
            product(level, a, 5, b, 60, &mut part);
            assert_eq!(whole, part);
            product(level, a, 0, b, 57, &mut part);
            let cleared = |row: &[f32]| row[..57] == [0.0; 57];
            assert!(part.chunks(60).all(cleared));
            assert!(
                part.chunks(60)
                    .zip(whole.chunks(60))
                    .all(|(a, b)| a[57..] == b[57..])
            );
        }
    }

    #[test]
    fn rows_end_where_they_are_said_to_at_every_level() {
        let (a, b) = (numbers(20 * 5, 1), numbers(70 * 5, 2));
        let a = Matrix {
            values: &a,
            stride: 5,
        };
        let ends: Vec<usize> = (0..20).map(|row| (row * 37) % 71).collect();
        let whole = |level| {
            let mut out = vec![0.0; 20 * 70];
            rotate(level, a, &pack(&b, 5), &[70; 20], 70, &mut out);
            out
        };
        for level in Level::all() {
            let (mut out, whole) = (vec![0.0; 20 * 70], whole(level));
            rotate(level, a, &pack(&b, 5), &ends, 70, &mut out);
            for (row, end) in ends.iter().enumerate() {
                assert_eq!(out[row * 70..][..*end], whole[row * 70..][..*end]);
            }
        }
    }

    #[test]
    fn values_are_limited_and_indices_surveyed_at_every_level() {
        for level in Level::all() {
            let mut values = [f32::NAN, f32::INFINITY, -9.0, 2.5, -f32::INFINITY];
            limit(level, &mut values, 8.0);
            assert_eq!(
                values.map(f32::to_bits),
                [0.0_f32, 8.0, -8.0, 2.5, -8.0].map(f32::to_bits)
            );
            assert_eq!(survey(level, &[0, -3, 4, 0, 0, 16]), (3, 23));
            assert_eq!(survey(level, &[0; 99]), (0, 0));
            let indices: Vec<i32> = (0..99_i32)
                .map(|i| if i % 7 == 3 { i - 50 } else { 0 })
                .collect();
            let mut places = vec![7];
            nonzero(level, &indices, &mut places);
            let expected = (0..99).filter(|&i| indices[i as usize] != 0);
            assert!(places.into_iter().eq([7].into_iter().chain(expected)));
        }
    }
}
