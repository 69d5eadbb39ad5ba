//! Reductions in sixteen interleaved lanes, an order that vectorises.

const LANES: usize = 16;

/// The sum of `term(0..len)`.
#[inline(always)]
pub(crate) fn sum(len: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = len - len % LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += term(start + lane);
        }
    }
    let tail: f32 = (whole..len).map(&term).sum();
    lanes.iter().sum::<f32>() + tail
}

/// The greatest of `values`, which are not NaN.
#[inline(always)]
pub(crate) fn greatest(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, tail) = values.as_chunks::<LANES>();
    for values in whole {
        for (lane, &value) in lanes.iter_mut().zip(values) {
            *lane = larger(*lane, value);
        }
    }
    (lanes.iter().chain(tail)).fold(f32::NEG_INFINITY, |top, &value| larger(top, value))
}
