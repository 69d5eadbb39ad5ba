//! Products and steps of the transform codec: plain loops, compiled for each level.

#![allow(clippy::inline_always, reason = "compiled for each level")]

use super::Level;
#[cfg(target_arch = "x86_64")]
use super::level::Kind;
use super::loops::for_each_level;

/// Rows of the product that are made together.
const ROWS: usize = 8;
/// Columns of the product that are made together, at most `GROUPS` times.
const GROUP: usize = 16;
const GROUPS: usize = 2;

/// Adds `x` times a row to sums.
#[inline(always)]
fn add<const C: usize>(sums: &mut [f32; C], x: f32, row: &[f32; C]) {
    for (sum, b) in sums.iter_mut().zip(row) {
        *sum += x * b;
    }
}

/// The product of `R` rows and `G` times `C` columns, added up in the order of the depth.
#[inline(always)]
fn block<const R: usize, const G: usize, const C: usize>(
    a: &[f32],
    b: &[f32],
    (depth, width): (usize, usize),
    column: usize,
    out: &mut [f32],
) {
    let mut sums = [[[0.0_f32; C]; G]; R];
    let rows: [&[f32]; R] = std::array::from_fn(|r| &a[r * depth..][..depth]);
    for (d, b) in b.chunks_exact(width).enumerate() {
        let Some(b) = b[column..].as_chunks::<C>().0.first_chunk::<G>() else {
            return;
        };
        for (sums, row) in sums.iter_mut().zip(rows) {
            for (sums, b) in sums.iter_mut().zip(b) {
                add(sums, row[d], b);
            }
        }
    }
    for (sums, out) in sums.iter().zip(out.chunks_exact_mut(width)) {
        out[column..column + G * C].copy_from_slice(sums.as_flattened());
    }
}

/// All columns of some rows.
#[inline(always)]
fn rows<const R: usize>(a: &[f32], b: &[f32], (depth, width): (usize, usize), out: &mut [f32]) {
    let mut column = 0;
    while width - column >= GROUPS * GROUP {
        block::<R, GROUPS, GROUP>(a, b, (depth, width), column, out);
        column += GROUPS * GROUP;
    }
    while width - column >= 8 {
        block::<R, 1, 8>(a, b, (depth, width), column, out);
        column += 8;
    }
    while column < width {
        block::<R, 1, 1>(a, b, (depth, width), column, out);
        column += 1;
    }
}

for_each_level! {
    /// The product of matrices, row-major: `a` of rows of `depth`, `b` of `depth` rows of `width`.
    /// Each element is a sum in the order of the depth, without fused operations, so that every
    /// level has the same.
    fn product(a: &[f32], b: &[f32], depth: usize, width: usize, out: &mut [f32]) {
        let mut a = a.chunks_exact(ROWS * depth);
        let mut out = out.chunks_exact_mut(ROWS * width);
        for (a, out) in (&mut a).zip(&mut out) {
            rows::<ROWS>(a, b, (depth, width), out);
        }
        let out = out.into_remainder().chunks_exact_mut(width);
        for (a, out) in a.remainder().chunks_exact(depth).zip(out) {
            rows::<1>(a, b, (depth, width), out);
        }
    }
}

for_each_level! {
    /// Adds `factor` times `row` to `out`.
    fn add_scaled(out: &mut [f32], factor: f32, row: &[f32]) {
        for (out, x) in out.iter_mut().zip(row) {
            *out += factor * x;
        }
    }
}

/// The largest index of the transform codec.
pub(crate) const MAX_INDEX: i32 = 1 << 24;

for_each_level! {
    /// The index of each value: its magnitude in steps plus `rounding`, rounded down, with its sign.
    fn indices(values: &[f32], per_step: f32, rounding: f32, out: &mut [i32]) {
        for (index, x) in out.iter_mut().zip(values) {
            let steps = (x.abs() * per_step + rounding).min(MAX_INDEX as f32) as i32;
            *index = if x.is_sign_negative() { -steps } else { steps };
        }
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
                (0..depth).fold(0.0, |sum, d| sum + a[r * depth + d] * b[d * width + c])
            };
            let expected: Vec<f32> = (0..m * width).map(|i| sum(i / width, i % width)).collect();
            for level in Level::all() {
                let mut out = vec![0.0; m * width];
                product(level, &a, &b, depth, width, &mut out);
                assert_eq!(out, expected);
                let mut added = b.clone();
                add_scaled(level, &mut added, 0.3, &numbers(b.len(), 3));
                let one_by_one = b.iter().zip(numbers(b.len(), 3)).map(|(b, x)| b + 0.3 * x);
                assert!(one_by_one.eq(added));
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
}
