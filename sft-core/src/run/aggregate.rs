//! What the server makes of the adapters of a round.

use crate::adapter::Adapters;

/// The average of adapters weighted by numbers of samples: FedAvg, (7) and (8).
///
/// `A` and `B` are averaged separately, as in the paper.
///
/// # Panics
/// If there are none, or their sizes differ.
pub fn fed_avg<'a>(all: impl Iterator<Item = (&'a Adapters, usize)>) -> Adapters {
    let all: Vec<_> = all.collect();
    let vectors: Vec<_> = all
        .iter()
        .map(|(a, n)| (a.vectors().collect(), *n))
        .collect();
    all[0].0.with_vectors(means(&vectors))
}

/// The means of vectors weighted by numbers of samples.
pub(super) fn means(all: &[(Vec<&[f32]>, usize)]) -> Vec<Vec<f32>> {
    let total: usize = all.iter().map(|(_, samples)| samples).sum();
    let mean = |i: usize| {
        let mut sum = vec![0.0f64; all[0].0[i].len()];
        for (vectors, samples) in all {
            assert_eq!(vectors[i].len(), sum.len(), "adapters of one size");
            for (sum, &value) in sum.iter_mut().zip(vectors[i]) {
                *sum += *samples as f64 * f64::from(value);
            }
        }
        let mean = sum.into_iter().map(|sum| (sum / total as f64) as f32);
        mean.collect()
    };
    (0..all[0].0.len()).map(mean).collect()
}
