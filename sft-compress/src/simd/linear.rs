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
struct Matrix<'a> {
    values: &'a [f32],
    /// From one row to the next.
    stride: usize,
}

/// The product of `R` rows and `G` times `C` columns, the first of `b`.
#[inline(always)]
fn block<const R: usize, const G: usize, const C: usize>(
    rows: [&[f32]; R],
    b: Matrix<'_>,
) -> [[[f32; C]; G]; R] {
    let mut sums = [[[0.0_f32; C]; G]; R];
    for (d, b) in b.values.chunks(b.stride).enumerate() {
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

/// `G` times `C` columns of the product of some rows and `b`, from `column` on, as far as there are
/// any in `out`.
#[inline(always)]
fn columns<const R: usize, const G: usize, const C: usize>(
    a: Matrix<'_>,
    mut rows: impl Iterator<Item = usize>,
    b: Matrix<'_>,
    column: usize,
    width: usize,
    out: &mut [f32],
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
        let a = block_rows.map(|row| &a.values[row * a.stride..][..a.stride]);
        let sums = block::<R, G, C>(a, b);
        for (row, sums) in block_rows.into_iter().zip(&sums) {
            let out = &mut out[row * width + column..(row + 1) * width];
            let sums = sums.as_flattened();
            let count = sums.len().min(out.len());
            out[..count].copy_from_slice(&sums[..count]);
        }
    }
}

for_each_level! {
    /// The product of matrices, row-major: `a` of rows of `depth`, `b` of `depth` rows of `width`.
    fn product(a: &[f32], b: &[f32], depth: usize, width: usize, out: &mut [f32]) {
        let a = Matrix { values: a, stride: depth };
        let rows = a.values.len() / depth;
        let from = |column| Matrix { values: &b[column..], stride: width };
        let mut column = 0;
        while width - column >= PANEL {
            columns::<8, 2, GROUP>(a, 0..rows, from(column), column, width, out);
            column += PANEL;
        }
        while width - column >= 8 {
            columns::<8, 1, 8>(a, 0..rows, from(column), column, width, out);
            column += 8;
        }
        while column < width {
            columns::<8, 1, 1>(a, 0..rows, from(column), column, width, out);
            column += 1;
        }
    }
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

for_each_level! {
    /// The product of a matrix of rows of `depth` and one that is [packed](pack). Of each row of
    /// `out`, of `width`, at least as many elements are made as `ends` says; others are left alone.
    fn rotate(a: &[f32], panels: &[f32], depth: usize, ends: &[usize], width: usize, out: &mut [f32]) {
        let a = Matrix { values: a, stride: depth };
        for (number, panel) in panels.chunks_exact(depth * PANEL).enumerate() {
            let column = number * PANEL;
            let rows = ends.iter().enumerate().filter(|(_, end)| **end > column);
            let panel = Matrix { values: panel, stride: PANEL };
            columns::<8, 2, GROUP>(a, rows.map(|(row, _)| row), panel, column, width, out);
        }
    }
}

for_each_level! {
    /// The sum of some rows of a matrix, each times a factor, in this order.
    fn combine(factors: &[(usize, f32)], rows: &[f32], out: &mut [f32]) {
        let (width, mut column) = (out.len(), 0);
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
        for (m, depth, width) in [(1, 1, 1), (9, 14, 77), (17, 33, 64), (8, 5, 45)] {
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
                product(level, &a, &b, depth, width, &mut out);
                assert_eq!(out, expected);
                let (mut out, ends) = (vec![7.0; m * width], vec![width; m]);
                rotate(
                    level,
                    &a,
                    &pack(&transposed, depth),
                    depth,
                    &ends,
                    width,
                    &mut out,
                );
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
    fn rows_end_where_they_are_said_to_at_every_level() {
        let (a, b) = (numbers(20 * 5, 1), numbers(70 * 5, 2));
        let ends: Vec<usize> = (0..20).map(|row| (row * 37) % 71).collect();
        let whole = |level| {
            let mut out = vec![0.0; 20 * 70];
            rotate(level, &a, &pack(&b, 5), 5, &[70; 20], 70, &mut out);
            out
        };
        for level in Level::all() {
            let (mut out, whole) = (vec![0.0; 20 * 70], whole(level));
            rotate(level, &a, &pack(&b, 5), 5, &ends, 70, &mut out);
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
        }
    }
}
