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
    let total: usize = all.iter().map(|(_, samples)| samples).sum();
    let vectors: Vec<Vec<_>> = all.iter().map(|(a, _)| a.vectors().collect()).collect();
    let mean = |i: usize| {
        let mut sum = vec![0.0f64; vectors[0][i].len()];
        for (vectors, (_, samples)) in vectors.iter().zip(&all) {
            assert_eq!(vectors[i].len(), sum.len(), "adapters of one size");
            for (sum, &value) in sum.iter_mut().zip(vectors[i]) {
                *sum += *samples as f64 * f64::from(value);
            }
        }
        sum.into_iter()
            .map(|sum| (sum / total as f64) as f32)
            .collect::<Vec<f32>>()
    };
    let means = (0..vectors[0].len()).map(mean).collect();
    all[0].0.with_vectors(means)
}
