//! Cubics on an interval: values, turning points, and where they reach zero.

/// Coefficients `k₀ + k₁x + k₂x² + k₃x³`.
pub(crate) type Cubic = [f64; 4];

pub(crate) fn value(k: &Cubic, x: f64) -> f64 {
    k[0] + x * (k[1] + x * (k[2] + x * k[3]))
}

pub(crate) fn slope(k: &Cubic, x: f64) -> f64 {
    k[1] + x * (2.0 * k[2] + 3.0 * x * k[3])
}

pub(crate) fn curvature(k: &Cubic, x: f64) -> f64 {
    2.0 * k[2] + 6.0 * x * k[3]
}

/// Real roots of `k₁ + 2k₂x + 3k₃x²`: where the cubic may turn, ascending, NaN for none.
pub(crate) fn turning_points(k: &Cubic) -> [f64; 2] {
    let (a, half_b, c) = (3.0 * k[3], k[2], k[1]);
    let discriminant = half_b * half_b - a * c;
    if discriminant < 0.0 {
        return [f64::NAN; 2];
    }
    // The sum of equal signs does not cancel; Vieta gives the other root.
    let far = -(half_b + discriminant.sqrt().copysign(half_b));
    let roots = [far / a, c / far].map(|x| if x.is_finite() { x } else { f64::NAN });
    if roots[0] > roots[1] {
        [roots[1], roots[0]]
    } else {
        roots
    }
}

/// The ends of `low..=high` and the turning points between them, ascending.
pub(crate) fn knots(k: &Cubic, low: f64, high: f64) -> impl Iterator<Item = f64> + Clone {
    let inner = turning_points(k).into_iter();
    let inner = inner.filter(move |x| low < *x && *x < high);
    std::iter::once(low)
        .chain(inner)
        .chain(std::iter::once(high))
}

/// Calls `visit` with points of `low..=high` where the cubic is at least 0, among them both ends
/// of every interval on which it is.
///
/// Between [`knots`] the cubic is monotone, so a change of sign there holds one root, found by
/// bisection to the last bit, on the side where the computed value is not negative.
pub(crate) fn visit_feasible(k: &Cubic, low: f64, high: f64, mut visit: impl FnMut(f64)) {
    let mut last: Option<(f64, bool)> = None;
    for x in knots(k, low, high) {
        let ok = value(k, x) >= 0.0;
        match last {
            Some((before, true)) if !ok => visit(crossing(k, x, before)),
            Some((before, false)) if ok => visit(crossing(k, before, x)),
            _ => {}
        }
        if ok {
            visit(x);
        }
        last = Some((x, ok));
    }
}

/// The point next to the root between `below`, where the cubic is negative, and `above`.
fn crossing(k: &Cubic, mut below: f64, mut above: f64) -> f64 {
    // Halving 128 times exhausts the doubles of any interval away from 0.
    for _ in 0..128 {
        let middle = f64::midpoint(below, above);
        let between = below.min(above) < middle && middle < below.max(above);
        if !between {
            break;
        }
        *(if value(k, middle) >= 0.0 {
            &mut above
        } else {
            &mut below
        }) = middle;
    }
    above
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feasible(k: &Cubic, low: f64, high: f64) -> Vec<f64> {
        let mut found = Vec::new();
        visit_feasible(k, low, high, |x| found.push(x));
        found
    }

    #[test]
    fn three_roots_make_two_intervals() {
        // (x + 1)(x - 0.5)(x - 2) = x³ - 1.5x² - 1.5x + 1.
        let found = feasible(&[1.0, -1.5, -1.5, 1.0], -3.0, 3.0);
        for expected in [-1.0, 0.5, 2.0, 3.0] {
            assert!(
                found.iter().any(|x| (x - expected).abs() < 1e-15),
                "{found:?}"
            );
        }
        assert!(!found.contains(&-3.0));
    }

    #[test]
    fn lower_degrees_and_never_feasible() {
        assert_eq!(feasible(&[1.0, 0.0, 0.0, 0.0], 0.0, 1.0), [0.0, 1.0]);
        assert_eq!(feasible(&[-0.5, 1.0, 0.0, 0.0], 0.0, 1.0), [0.5, 1.0]);
        assert_eq!(feasible(&[-2.0, 1.0, 0.0, 0.0], 0.0, 1.0), [0.0; 0]);
        // A parabola that only touches zero is feasible there, up to what doubles can tell.
        let touched = feasible(&[-0.25, 1.0, -1.0, 0.0], 0.0, 1.0);
        assert!(touched.iter().any(|x| (x - 0.5).abs() < 1e-15));
        assert!(touched.iter().all(|x| (x - 0.5).abs() < 1e-7));
    }

    #[test]
    fn turning_points_do_not_cancel() {
        // Derivative 3(x - 1e-9)(x - 1e9).
        let [low, high] = turning_points(&[0.0, 3.0, -1.5 * (1e9 + 1e-9), 1.0]);
        assert!((low / 1e-9 - 1.0).abs() < 1e-12 && (high / 1e9 - 1.0).abs() < 1e-12);
        assert!(turning_points(&[0.0, 1.0, 0.0, 1.0])[0].is_nan());
    }
}
