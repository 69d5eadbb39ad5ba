//! Medians, ranges and lines.

/// The middle of the values, the upper one of an even number; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Least and greatest.
pub fn range(values: &[f64]) -> [f64; 2] {
    let fold = |pick: fn(f64, f64) -> f64| values.iter().copied().fold(f64::NAN, pick);
    [fold(f64::min), fold(f64::max)]
}

/// The least-squares line through `(x, y)`: its slope, and its value at 0.
pub fn line(points: &[(f64, f64)]) -> [f64; 2] {
    let count = points.len() as f64;
    let mean = |part: fn(&(f64, f64)) -> f64| points.iter().map(part).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let along: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let across: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    let slope = along / across;
    [slope, y - slope * x]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_see_outliers() {
        assert!((median(&[3.0, 1.0, 1000.0]) - 3.0).abs() < 1e-12);
        assert!((median(&[4.0, 2.0]) - 4.0).abs() < 1e-12);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_range_is_least_and_greatest() {
        let [least, greatest] = range(&[2.0, -1.0, 5.0]);
        assert!((least + 1.0).abs() < 1e-12 && (greatest - 5.0).abs() < 1e-12);
    }

    #[test]
    fn the_line_through_points_of_a_line_is_that_line() {
        let [slope, start] = line(&[1.0, 4.0, 6.0].map(|x| (x, 7.0 - 2.5 * x)));
        assert!((slope + 2.5).abs() < 1e-12 && (start - 7.0).abs() < 1e-12);
        let [slope, start] = line(&[(0.0, 0.0), (1.0, 1.0), (2.0, 5.0)]);
        assert!((slope - 2.5).abs() < 1e-12 && (start + 0.5).abs() < 1e-12);
    }
}
