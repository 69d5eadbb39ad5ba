//! Sums, differences and quotients with their rounding errors, for results that survive
//! cancellation.

/// `a + b` as the nearest double and the exact error (Knuth).
pub(crate) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// `x / (y + y_err)` as a double and a correction, with `y_err` small against `y`.
pub(crate) fn quotient(x: f64, y: f64, y_err: f64) -> (f64, f64) {
    let q = x / y;
    // The fused product makes the remainder of the division exact.
    (q, ((-q).mul_add(y, x) - q * y_err) / y)
}

/// A running sum that keeps the rounding errors of its additions.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum {
    high: f64,
    low: f64,
}

impl Sum {
    pub(crate) fn add(&mut self, (x, x_err): (f64, f64)) {
        let (sum, err) = two_sum(self.high, x);
        self.high = sum;
        self.low += err + x_err;
    }

    pub(crate) fn value(self) -> f64 {
        self.high + self.low
    }
}
