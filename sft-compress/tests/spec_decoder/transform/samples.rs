//! Samples of indices.

use super::basis::Basis;

/// What is known of a row beside its indices.
#[derive(Clone, Copy, Default)]
pub(super) struct Row {
    pub(super) is_sink: bool,
    /// How many rows are between the row that it names and the sample, and how many quarters of
    /// that are expected.
    pub(super) named: Option<(usize, i32)>,
    /// Of its step over that of its group.
    pub(super) half_octaves: i32,
}

/// The sample `[S, D]` of indices `[S, K]`, without its mean.
pub(super) fn of_indices(
    basis: &Basis,
    indices: &[Vec<i32>],
    rows: &[Row],
    sigma: f32,
) -> Vec<Vec<f32>> {
    let each = indices.iter().zip(rows).enumerate();
    let mut sample: Vec<Vec<f32>> = each
        .map(|(number, (indices, row))| {
            let group = if row.is_sink { 0 } else { basis.group(number) };
            let eighths = i32::from(basis.group_steps[group]) + 4 * row.half_octaves;
            let step = basis.step * (f64::from(eighths) / 8.0).exp2() as f32 * sigma;
            let mut x = vec![0.0_f32; basis.width];
            for (channel, &index) in indices.iter().enumerate().filter(|(_, q)| **q != 0) {
                let a = basis.levels[usize::from(index.unsigned_abs() > 1)];
                let magnitude = (index.unsigned_abs() as f32 + f32::from(a) / 128.0) * step;
                let coefficient = if index < 0 { -magnitude } else { magnitude };
                match &basis.rotation {
                    None => x[channel] = coefficient,
                    Some(rotation) => {
                        for (x, u) in x.iter_mut().zip(&rotation[channel]) {
                            *x = coefficient.mul_add(*u, *x);
                        }
                    }
                }
            }
            x
        })
        .collect();
    if let Some([height, across]) = basis.grid {
        let mut down = sample.clone();
        for i in 0..height {
            for v in 0..across {
                let terms = (0..height).map(|u| {
                    (
                        cosine(u, i, height),
                        &sample[basis.prefix + u * across + v][..],
                    )
                });
                down[basis.prefix + i * across + v] = sum(basis.width, terms);
            }
        }
        for i in 0..height {
            for j in 0..across {
                let row = basis.prefix + i * across;
                let terms = (0..across).map(|v| (cosine(v, j, across), &down[row + v][..]));
                sample[row + j] = sum(basis.width, terms);
            }
        }
    }
    sample
}

/// The sum of rows times factors, in this order.
fn sum<'a>(width: usize, terms: impl Iterator<Item = (f32, &'a [f32])>) -> Vec<f32> {
    let mut sum = vec![0.0_f32; width];
    for (factor, row) in terms {
        for (sum, x) in sum.iter_mut().zip(row) {
            *sum = factor.mul_add(*x, *sum);
        }
    }
    sum
}

/// Element [*k*, *i*] of the orthonormal DCT-II of *n* numbers.
fn cosine(k: usize, i: usize, n: usize) -> f32 {
    let scale = (if k == 0 { 1.0 } else { 2.0 } / n as f64).sqrt();
    // The cosine of a part of a turn, which goes on as it began.
    let part = (2 * i + 1) * k % (4 * n);
    if part == n || part == 3 * n {
        return 0.0;
    }
    (scale * (std::f64::consts::TAU * part as f64 / (4 * n) as f64).cos()) as f32
}

/// Adds the mean of each token.
pub(super) fn add_means(basis: &Basis, sample: &mut [Vec<f32>], rows: &[Row]) {
    let Some(means) = &basis.means else {
        return;
    };
    for (number, (sample, row)) in sample.iter_mut().zip(rows).enumerate() {
        let token = if row.is_sink {
            0
        } else {
            number.min(means.len() - 1)
        };
        for (x, mean) in sample.iter_mut().zip(&means[token]) {
            *x += mean;
        }
    }
}
