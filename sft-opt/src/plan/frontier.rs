//! What accuracy costs at best: a convex bound below `β` against `A`, over all settings of a box.
//!
//! Between neighbouring samples at a distance of `h` in `x`, the accuracy is above its chord by at
//! most `h²/8` times its largest curvature downwards, and `β`, concave in the kept fraction `ρ`, is
//! below its chord in `x` by at most `h²/8` times the curvature of a straight line in `ρ(x)`. The
//! segment that is moved by both is below every setting between the samples. At the kinks of a table
//! `β` need not be concave: they are samples.

use std::f64::consts::LN_2;

use super::accuracy::KeepScale;
use super::compression::{Compression, pieces};
use crate::numeric::polynomial::curvature;

/// Intervals over the whole range of kept fractions, for every number of bits.
const INTERVALS: f64 = 256.0;

/// An accuracy and the compressed share that it costs.
#[derive(Clone, Copy)]
pub(super) struct Point {
    pub(super) accuracy: f64,
    pub(super) beta: f64,
}

/// Share of bits per accuracy between two points.
pub(super) fn steepness(from: Point, to: Point) -> f64 {
    (to.beta - from.beta) / (to.accuracy - from.accuracy)
}

/// Corners of convex curves, both coordinates ascending; at least one if a setting of the box has a
/// rate.
pub(super) struct Frontier {
    /// Below every setting.
    pub(super) bound: Vec<Point>,
    /// Through settings.
    pub(super) sampled: Vec<Point>,
}

impl Frontier {
    pub(super) fn new(compression: &Compression) -> Self {
        let (mut bound, mut sampled) = (Vec::new(), Vec::new());
        for bits in compression.bits_min..=compression.bits_max {
            for (low, high) in pieces(compression) {
                let samples = samples(compression, bits, low, high);
                bound.extend(below(compression, bits, &samples));
                sampled.extend(samples.into_iter().map(|sample| sample.point));
            }
        }
        bound.extend(&sampled);
        Self {
            bound: lower_hull(bound),
            sampled: lower_hull(sampled),
        }
    }
}

/// A setting: its kept fraction, that as the surface's `x`, and what it gives.
struct Sample {
    keep: f64,
    x: f64,
    point: Point,
}

/// Settings with kept fractions from `low` to `high`, ascending, as far as they have rates.
fn samples(compression: &Compression, bits: u32, low: f64, high: f64) -> Vec<Sample> {
    let scale = compression.accuracy.scale();
    let width = scale.of(compression.keep_max) - scale.of(compression.keep_min);
    let (from, to) = (scale.of(low), scale.of(high));
    let count = (INTERVALS * (to - from) / width).ceil().max(1.0) as u32;
    let at = |k: u32| {
        let x = from + f64::from(k) / f64::from(count) * (to - from);
        // The ends themselves: a table may not reach beyond.
        let keep = match k {
            0 => low,
            k if k == count => high,
            _ => scale.keep(x).clamp(low, high),
        };
        let point = Point {
            accuracy: compression.accuracy.at(keep, bits.into()),
            beta: compression.rate.at(keep, bits)?,
        };
        Some(Sample { keep, x, point })
    };
    (0..=count).filter_map(at).collect()
}

/// Ends of segments that are below every setting between neighbouring samples.
fn below<'a>(
    compression: &Compression,
    bits: u32,
    samples: &'a [Sample],
) -> impl Iterator<Item = Point> + 'a {
    let scale = compression.accuracy.scale();
    let cubic = compression.accuracy.along_keep(bits.into());
    samples.windows(2).flat_map(move |pair| {
        let (first, second) = (&pair[0], &pair[1]);
        let sag = (second.x - first.x).powi(2) / 8.0;
        let bend = curvature(&cubic, first.x).min(curvature(&cubic, second.x));
        let above = sag * (-bend).max(0.0);
        let slope = (second.point.beta - first.point.beta) / (second.keep - first.keep);
        let below = match scale {
            // Not a number where both are one place, as in a box of one kept fraction.
            KeepScale::Log2Keep if slope > 0.0 => sag * slope * second.keep * LN_2 * LN_2,
            _ => 0.0,
        };
        [first, second].map(|sample| Point {
            accuracy: sample.point.accuracy + above,
            beta: sample.point.beta - below,
        })
    })
}

fn lower_hull(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by(|p, q| {
        p.beta
            .total_cmp(&q.beta)
            .then(q.accuracy.total_cmp(&p.accuracy))
    });
    let mut hull: Vec<Point> = Vec::new();
    for point in points {
        if hull
            .last()
            .is_some_and(|last| point.accuracy <= last.accuracy)
        {
            continue;
        }
        while let [.., first, second] = hull[..] {
            if steepness(first, second) < steepness(second, point) {
                break;
            }
            hull.pop();
        }
        hull.push(point);
    }
    hull
}
