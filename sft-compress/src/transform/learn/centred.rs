//! Means, and what they leave of samples.

use super::energy;
use super::samples::Samples;
use crate::transform::spectrum::distance;

/// The energy from which on a token is one with massive activations, over the median.
const SINK_ENERGY: f64 = 16.0;

/// Samples without their means.
pub(super) struct Centred {
    /// Of each token of the prefix, and of all others, `[P + 1, D]`.
    pub(super) groups: Vec<f32>,
    /// By position, `[S, D]`; none of a sequence.
    pub(super) positions: Vec<f32>,
    /// Which rows are like those of the first token: of a sequence those that have its mean, and
    /// all of the prefix.
    pub(super) sinks: Vec<bool>,
    /// What means leave, `[n, S, D]`.
    pub(super) rows: Vec<f32>,
}

impl Centred {
    /// Those of some rows that are not like the first.
    pub(super) fn others(&self, rows: &[f32], width: usize) -> Vec<f32> {
        let rows = rows.chunks_exact(width).zip(&self.sinks);
        let others = rows.filter(|(_, sink)| !**sink);
        others.flat_map(|(row, _)| row).copied().collect()
    }
}

impl Samples {
    /// Takes the means off.
    pub(super) fn centred(&self) -> Centred {
        match self.tokens.sides() {
            Some(_) => self.centred_grids(),
            None => self.centred_sequences(),
        }
    }

    fn centred_grids(&self) -> Centred {
        let (width, prefix) = (self.width, self.tokens.prefix());
        let rows = self.bounds[1];
        let count = self.bounds.len() - 1;
        let mut sums = vec![0.0_f64; rows * width];
        for sample in self.each(&self.values) {
            for (sum, &x) in sums.iter_mut().zip(sample) {
                *sum += f64::from(x);
            }
        }
        let mut others = vec![0.0; width];
        for row in sums[prefix * width..].chunks_exact(width) {
            for (sum, x) in others.iter_mut().zip(row) {
                *sum += x / (rows - prefix) as f64;
            }
        }
        let mean = |sum: &f64| (sum / count as f64) as f32;
        let positions: Vec<f32> = sums.iter().map(mean).collect();
        let groups = sums[..prefix * width].iter().chain(&others).map(mean);
        let values = self.values.iter().zip(positions.iter().cycle());
        Centred {
            groups: groups.collect(),
            sinks: vec![false; self.rows()],
            rows: values.map(|(x, mean)| x - mean).collect(),
            positions,
        }
    }

    /// The means of each token of the prefix and of all rows that are not like the first. Those
    /// that are have a multiple of the others' size, or are nearer to its mean.
    fn centred_sequences(&self) -> Centred {
        let (width, prefix) = (self.width, self.tokens.prefix());
        let places = self
            .bounds
            .windows(2)
            .flat_map(|bound| 0..bound[1] - bound[0]);
        let places: Vec<usize> = places.map(|at| at.min(prefix)).collect();
        let rows = || self.values.chunks_exact(width);
        let sizes: Vec<f64> = rows().map(energy).collect();
        let mut sorted = sizes.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let large = SINK_ENERGY * sorted[sorted.len() / 2];
        let is_sink = |(&place, &size): (&usize, &f64)| place == prefix && size > large;
        let mut sinks: Vec<bool> = places.iter().zip(&sizes).map(is_sink).collect();
        let mut groups = self.group_means(&places, &sinks);
        if self.tokens.has_sinks() {
            let (first, rest) = (&groups[..width], &groups[prefix * width..]);
            let is_sink = |(&place, x): (&usize, &[f32])| {
                place == prefix && distance(x, first) < distance(x, rest)
            };
            sinks = places.iter().zip(rows()).map(is_sink).collect();
            let others = places
                .iter()
                .zip(&sinks)
                .filter(|(place, _)| **place == prefix);
            if others.clone().all(|(_, sink)| *sink) {
                sinks.fill(false);
            }
            groups = self.group_means(&places, &sinks);
        } else {
            sinks.fill(false);
            groups = self.group_means(&places, &sinks);
        }
        let each = rows().zip(&places).zip(&sinks);
        let centred = each.flat_map(|((x, &place), &sink)| {
            let mean = &groups[if sink { 0 } else { place } * width..][..width];
            x.iter().zip(mean).map(|(x, mean)| x - mean)
        });
        let rows = centred.collect();
        for (sink, place) in sinks.iter_mut().zip(&places) {
            *sink |= *place < prefix;
        }
        Centred {
            groups,
            positions: Vec::new(),
            sinks,
            rows,
        }
    }

    /// The mean of the rows at each place that are no sinks, `[P + 1, D]`.
    fn group_means(&self, places: &[usize], sinks: &[bool]) -> Vec<f32> {
        let groups = self.tokens.prefix() + 1;
        let mut sums = vec![(vec![0.0_f64; self.width], 0_u32); groups];
        let each = self.values.chunks_exact(self.width).zip(places).zip(sinks);
        for ((row, &place), _) in each.filter(|(_, sink)| !**sink) {
            let (sum, count) = &mut sums[place];
            *count += 1;
            for (sum, &x) in sum.iter_mut().zip(row) {
                *sum += f64::from(x);
            }
        }
        let mean = |(sum, count): &(Vec<f64>, u32)| {
            let count = f64::from((*count).max(1));
            sum.iter().map(|x| (x / count) as f32).collect::<Vec<f32>>()
        };
        sums.iter().flat_map(mean).collect()
    }
}
