/// The binary logarithm of a positive number to about nine digits, from sums,
/// products and quotients alone, so that every platform has the same.
pub(crate) fn log2(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52).cast_signed() - 1023) as f64;
    let mut mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1.0;
    }
    // ln m = 2 artanh((m − 1)/(m + 1)); the first term left out is below 1e-10.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = 1.0 / 9.0 + square * (1.0 / 11.0);
    let series = 1.0 / 5.0 + square * (1.0 / 7.0 + square * series);
    let series = 1.0 + square * (1.0 / 3.0 + square * series);
    exponent + 2.0 * std::f64::consts::LOG2_E * s * series
}

#[cfg(test)]
mod tests {
    #[test]
    fn logarithms_are_near_the_library_s() {
        for i in 1..100_000 {
            let x = f64::from(i) * 0.37;
            assert!((super::log2(x) - x.log2()).abs() < 1e-8, "{x}");
        }
        for k in -1000..1000_i32 {
            assert_eq!(
                super::log2(2.0_f64.powi(k)).to_bits(),
                f64::from(k).to_bits()
            );
        }
    }
}
