//! Loops over pairs of lists that the compiler turns into vector instructions.
//!
//! They fold into `LANES` partial results that are joined at the end, in the same order on every
//! processor: results do not depend on the width of its vectors.

/// Enough lanes that the compiler vectorises the loop over them instead of unrolling it, and
/// few enough that four sums stay in registers.
const LANES: usize = 16;

/// Sums of the `K` terms of each pair.
#[inline]
pub(crate) fn sums<const K: usize>(
    x: &[f64],
    y: &[f64],
    terms: impl Fn(f64, f64) -> [f64; K],
) -> [f64; K] {
    fold(0.0, x, y, terms, |sum, term| sum + term)
}

/// Maxima of the `K` terms of each pair.
#[inline]
pub(crate) fn maxima<const K: usize>(
    x: &[f64],
    y: &[f64],
    terms: impl Fn(f64, f64) -> [f64; K],
) -> [f64; K] {
    fold(f64::NEG_INFINITY, x, y, terms, larger)
}

/// Unlike `f64::max`, one instruction.
#[inline]
pub(crate) fn larger(max: f64, term: f64) -> f64 {
    if term > max { term } else { max }
}

/// Replaces every `y` by the first result of `terms` and sums the other `K`.
#[inline]
pub(crate) fn map_sums<const K: usize>(
    x: &[f64],
    y: &mut [f64],
    terms: impl Fn(f64, f64) -> (f64, [f64; K]),
) -> [f64; K] {
    let mut folded = [[0.0; LANES]; K];
    let mut step = |lane: usize, x: f64, y: &mut f64| {
        let (new, terms) = terms(x, *y);
        *y = new;
        for (folded, term) in folded.iter_mut().zip(terms) {
            folded[lane] += term;
        }
    };
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (y_chunks, y_rest) = y.as_chunks_mut::<LANES>();
    for (x, y) in x_chunks.iter().zip(y_chunks) {
        for lane in 0..LANES {
            step(lane, x[lane], &mut y[lane]);
        }
    }
    for (lane, (&x, y)) in x_rest.iter().zip(y_rest).enumerate() {
        step(lane, x, y);
    }
    folded.map(|lanes| join_lanes(lanes, |sum, term| sum + term))
}

/// Folds the `K` terms of each pair.
#[inline]
fn fold<const K: usize>(
    init: f64,
    x: &[f64],
    y: &[f64],
    terms: impl Fn(f64, f64) -> [f64; K],
    join: impl Fn(f64, f64) -> f64,
) -> [f64; K] {
    let mut folded = [[init; LANES]; K];
    let mut step = |lane: usize, x: f64, y: f64| {
        for (folded, term) in folded.iter_mut().zip(terms(x, y)) {
            folded[lane] = join(folded[lane], term);
        }
    };
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (y_chunks, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x_chunks.iter().zip(y_chunks) {
        for lane in 0..LANES {
            step(lane, x[lane], y[lane]);
        }
    }
    for (lane, (&x, &y)) in x_rest.iter().zip(y_rest).enumerate() {
        step(lane, x, y);
    }
    folded.map(|lanes| join_lanes(lanes, &join))
}

/// Joins lanes pairwise, which also runs as vectors.
#[inline]
fn join_lanes(mut lanes: [f64; LANES], join: impl Fn(f64, f64) -> f64) -> f64 {
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        for (low, &high) in low.iter_mut().zip(high.iter()) {
            *low = join(*low, high);
        }
        half /= 2;
    }
    lanes[0]
}
