use crate::error::{Error, Result};
use crate::simd;

/// A rotation of the channels.
#[derive(Clone, Debug)]
pub(super) struct Rotation {
    /// `[D, K]`, packed.
    pub(super) forward: Vec<f32>,
    /// `[K, D]`, orthonormal rows.
    pub(super) rows: Vec<f32>,
}

impl Rotation {
    /// The rotation of weighted rows `[K, D]`, made orthonormal in their order (Gram and Schmidt):
    /// what the coding changed in the rows of largest weight, which are coded finest, is all that a
    /// rotation of this kind leaks between channels.
    pub(super) fn of(weighted: &[f32], [channels, width]: [usize; 2]) -> Result<Self> {
        let mut rows: Vec<f64> = weighted.iter().map(|&x| f64::from(x)).collect();
        for k in 0..channels {
            let (above, row) = rows.split_at_mut(k * width);
            let row = &mut row[..width];
            let before = dot(row, row);
            // Twice, as the first time leaves errors of rounding behind.
            for above in above.chunks_exact(width).chain(above.chunks_exact(width)) {
                let along = dot(row, above);
                for (x, above) in row.iter_mut().zip(above) {
                    *x -= along * above;
                }
            }
            let norm = dot(row, row);
            if !(norm > 1e-12 * before && norm.is_finite()) {
                return Err(Error::corrupt("a rotation of dependent rows"));
            }
            let factor = 1.0 / norm.sqrt();
            for x in row {
                *x *= factor;
            }
        }
        let rows: Vec<f32> = rows.iter().map(|&x| x as f32).collect();
        Ok(Self::of_orthonormal(rows, width))
    }

    /// The rotation of orthonormal rows.
    pub(super) fn of_orthonormal(rows: Vec<f32>, width: usize) -> Self {
        let forward = simd::pack(&rows, width);
        Self { forward, rows }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (mut sums, (a, rest_a), (b, rest_b)) = ([0.0; 8], a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f64 = rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}
