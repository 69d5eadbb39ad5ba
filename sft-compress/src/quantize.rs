#![allow(
    clippy::inline_always,
    reason = "compiled with the instructions of the loop around it"
)]

/// Which kept magnitudes share a quantization range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Range {
    /// All of the tensor's, as in the paper.
    Tensor,
    /// Those of one row: of one index into all dimensions but the last.
    ///
    /// Costs a few bits for each row that keeps an element and finer levels to
    /// code, and has many times less quantization noise where rows differ in
    /// scale, as they do in gradients.
    Row,
}

/// How kept magnitudes are quantized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Levels {
    /// Number of quantization points, 2 to 256.
    pub(crate) count: u32,
    pub(crate) range: Range,
}

/// Evenly spaced quantization points between the two ends of a range (section IV-B).
///
/// Point e is `lo` + e·(`hi` − `lo`)/E for e = 0..=E, with E = levels − 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    lo: f64,
    step: f64,
    steps_per_unit: f64,
    last: u8,
}

impl Scale {
    /// `levels` points from `lo` to `hi`, 0 ≤ `lo` ≤ `hi`, both finite.
    ///
    /// In `f64` neither the width of the range nor its inverse can overflow.
    pub(crate) fn new(lo: f32, hi: f32, levels: u32) -> Self {
        let (lo, width) = (f64::from(lo), f64::from(hi) - f64::from(lo));
        let intervals = f64::from(levels - 1);
        Self {
            lo,
            step: width / intervals,
            steps_per_unit: if width > 0.0 { intervals / width } else { 0.0 },
            last: (levels - 1) as u8,
        }
    }

    /// One of the two points around `magnitude`, the upper one with the
    /// probability that makes the expectation equal to `magnitude`.
    ///
    /// `uniform` is a uniform random number in [0, 1).
    #[cfg(test)]
    pub(crate) fn quantize(&self, magnitude: f32, uniform: f64) -> u8 {
        let place = (f64::from(magnitude) - self.lo) * self.steps_per_unit;
        ((place + uniform) as u8).min(self.last)
    }

    /// [`quantize`](Self::quantize) of the magnitudes of some values, in a form
    /// that compiles to vector instructions.
    #[inline(always)]
    pub(crate) fn quantize_all<const N: usize>(
        &self,
        values: &[f32; N],
        uniforms: &[f64; N],
    ) -> [u32; N] {
        let last = f64::from(self.last);
        let mut levels = [0; N];
        for i in 0..N {
            let place = (f64::from(values[i].abs()) - self.lo) * self.steps_per_unit;
            levels[i] = whole((place + uniforms[i]).min(last));
        }
        levels
    }

    /// The point of a level.
    pub(crate) fn point(&self, level: u8) -> f32 {
        (self.lo + self.step * f64::from(level)) as f32
    }

    /// The point of a level, none above the last.
    pub(crate) fn checked_point(&self, level: u32) -> Option<f32> {
        (level <= self.last.into()).then(|| self.point(level as u8))
    }

    pub(crate) fn last_level(&self) -> u8 {
        self.last
    }
}

/// The whole part of a number in 0..2²⁰, or anything of others, by its place in a double that is so
/// large that its last bit counts ones: faster than a conversion, as this need
/// not care for other numbers.
#[inline(always)]
fn whole(x: f64) -> u32 {
    const LAST_BIT_ONE: f64 = (1_u64 << 52) as f64;
    let rounded = x + LAST_BIT_ONE;
    let whole = rounded.to_bits() as u32;
    whole.wrapping_sub(u32::from(rounded - LAST_BIT_ONE > x))
}

/// Quantization points between the two ends of a range, evenly spaced in
/// x to the power −1/4.
///
/// Of the powers whose roots are square roots, measured on transformer
/// activations with 8 levels, −1/4 has nearly the least error of unbiased
/// levels (0.2706 relative, against 0.2691 at −1/2) at the fewest bits.
#[derive(Clone, Debug)]
pub(crate) struct LogScale {
    points: [f32; 256],
    last: u8,
}

impl LogScale {
    /// `levels` points from `lo` to `hi`, 0 < `lo` ≤ `hi`, both finite.
    pub(crate) fn new(lo: f32, hi: f32, levels: u32) -> Self {
        let root = |x: f32| 1.0 / f64::from(x).sqrt().sqrt();
        let (first, step) = (root(lo), (root(hi) - root(lo)) / f64::from(levels - 1));
        let mut points = [hi; 256];
        points[0] = lo;
        for (e, point) in points[..levels as usize - 1].iter_mut().enumerate().skip(1) {
            let root = first + step * e as f64;
            let square = root * root;
            *point = ((1.0 / (square * square)) as f32).clamp(lo, hi);
        }
        Self {
            points,
            last: (levels - 1) as u8,
        }
    }

    /// As [`Scale::quantize`].
    pub(crate) fn quantize(&self, magnitude: f32, uniform: f64) -> u8 {
        let inner = &self.points[1..usize::from(self.last)];
        let below = inner.partition_point(|&point| point <= magnitude);
        let [a, b] = [below, below + 1].map(|e| f64::from(self.points[e]));
        let up = f64::from(magnitude) - a > uniform * (b - a);
        below as u8 + u8::from(up)
    }

    /// As [`Scale::quantize_all`].
    #[inline(always)]
    pub(crate) fn quantize_all<const N: usize>(
        &self,
        values: &[f32; N],
        uniforms: &[f64; N],
    ) -> [u32; N] {
        let mut levels = [0; N];
        if self.last > 17 {
            for i in 0..N {
                levels[i] = self.quantize(values[i].abs(), uniforms[i]).into();
            }
            return levels;
        }
        let (mut a, mut b) = ([self.points[0]; N], [self.points[1]; N]);
        for e in 1..usize::from(self.last) {
            let (point, next) = (self.points[e], self.points[e + 1]);
            for i in 0..N {
                let above = point <= values[i].abs();
                levels[i] += u32::from(above);
                a[i] = if above { point } else { a[i] };
                b[i] = if above { next } else { b[i] };
            }
        }
        for i in 0..N {
            let [x, a, b] = [values[i].abs(), a[i], b[i]].map(f64::from);
            levels[i] += u32::from(x - a > uniforms[i] * (b - a));
        }
        levels
    }

    /// The point of a level, none above the last.
    pub(crate) fn point(&self, level: u32) -> Option<f32> {
        (level <= self.last.into()).then(|| self.points[level as usize])
    }

    pub(crate) fn last_level(&self) -> u8 {
        self.last
    }
}

/// Uniform random numbers in [0, 1), each a function of seed and index alone.
///
/// The `SplitMix64` generator in counter form: number i is output i + 1 of the
/// generator whose state starts at the mixed seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise {
    start: u64,
}

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self { start: mix(seed) }
    }

    /// A multiple of 2⁻⁵³.
    #[inline(always)]
    pub(crate) fn uniform(self, index: u32) -> f64 {
        let counter = (u64::from(index) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bits = mix(self.start.wrapping_add(counter)) >> 11;
        bits as f64 * (1.0 / (1_u64 << 53) as f64)
    }
}

/// The finalizer of `SplitMix64` (Steele, Lea and Flood, 2014; variant 13 of Stafford).
#[inline(always)]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_over_seeds_is_the_magnitude() {
        const DRAWS: u32 = 4096;
        for (lo, hi, levels) in [
            (0.25, 3.0, 8),
            (1e-3, 1e3, 2),
            (1e-40, 3e-40, 256),
            (1e-45, f32::MAX, 5),
        ] {
            let scale = Scale::new(lo, hi, levels);
            for part in [0.0_f32, 0.01, 0.3, 0.5, 0.77, 1.0] {
                let magnitude = (lo * (1.0 - part) + hi * part).clamp(lo, hi);
                let mean = (0..DRAWS)
                    .map(|i| scale.quantize(magnitude, Noise::new(i.into()).uniform(9)))
                    .map(|level| f64::from(scale.point(level)))
                    .sum::<f64>()
                    / f64::from(DRAWS);
                // A step's half bounds the deviation of a draw; four of the mean's.
                let tolerance = 4.0 * scale.step / 2.0 / f64::from(DRAWS).sqrt();
                let error = (mean - f64::from(magnitude)).abs();
                assert!(error <= tolerance, "{magnitude} in {lo}..{hi}: {mean}");
            }
        }
    }

    #[test]
    fn log_levels_are_unbiased_and_surround_the_magnitude() {
        const DRAWS: u32 = 4096;
        for (lo, hi, levels) in [
            (0.25, 3.0, 8),
            (1e-3, 1e3, 19),
            (1e-40, 3e-40, 256),
            (1.0, 1.0, 2),
        ] {
            let scale = LogScale::new(lo, hi, levels);
            assert!(scale.points[..levels as usize].is_sorted());
            assert_eq!(
                [scale.point(0), scale.point(levels - 1)],
                [Some(lo), Some(hi)]
            );
            assert_eq!(scale.point(levels), None);
            for part in [0.0_f32, 0.01, 0.3, 0.5, 0.77, 1.0] {
                let magnitude = (lo * (1.0 - part) + hi * part).clamp(lo, hi);
                let draws = (0..DRAWS)
                    .map(|i| scale.quantize(magnitude, Noise::new(i.into()).uniform(9)))
                    .map(|level| scale.point(level.into()).unwrap());
                let draws: Vec<f64> = draws.map(f64::from).collect();
                let gap = draws
                    .iter()
                    .fold(0.0_f64, |gap, y| gap.max((y - f64::from(magnitude)).abs()));
                let above = scale.points.iter().find(|p| **p >= magnitude).unwrap();
                let below = scale.points.iter().rfind(|p| **p <= magnitude).unwrap();
                assert!(
                    draws
                        .iter()
                        .all(|y| (f64::from(*below)..=f64::from(*above)).contains(y))
                );
                let mean = draws.iter().sum::<f64>() / f64::from(DRAWS);
                let tolerance = 4.0 * gap / f64::from(DRAWS).sqrt();
                assert!(
                    (mean - f64::from(magnitude)).abs() <= tolerance,
                    "{magnitude}: {mean}"
                );
            }
        }
    }

    #[test]
    fn ends_and_points_are_exact() {
        for (lo, hi) in [(0.1, 0.7), (f32::MIN_POSITIVE / 8.0, f32::MAX), (2.5, 2.5)] {
            for levels in [2, 3, 8, 200, 256] {
                let scale = Scale::new(lo, hi, levels);
                assert_eq!(scale.point(0).to_bits(), lo.to_bits());
                assert_eq!(scale.point(scale.last).to_bits(), hi.to_bits());
                let top = if lo < hi { scale.last } else { 0 };
                for uniform in [1e-9, 0.5, 1.0 - f64::EPSILON] {
                    assert_eq!(scale.quantize(lo, uniform), 0);
                    assert_eq!(scale.quantize(hi, uniform), top);
                }
            }
        }
    }

    #[test]
    fn noise_is_uniform_and_uncorrelated() {
        const N: u32 = 100_000;
        for seed in [0, 1, u64::MAX] {
            let noise = |index: u32| Noise::new(seed).uniform(index) - 0.5;
            let next_seed = |index: u32| Noise::new(seed.wrapping_add(1)).uniform(index) - 0.5;
            let mean = |f: &dyn Fn(u32) -> f64| (0..N).map(f).sum::<f64>() / f64::from(N);
            // Four standard deviations of each mean: 1/√12 and 1/12 a draw.
            let (first, second) = (4.0 / 3.46 / 316.0, 4.0 / 12.0 / 316.0);
            assert!(mean(&noise).abs() < first);
            assert!((mean(&|i| noise(i) * noise(i)) - 1.0 / 12.0).abs() < second);
            assert!(mean(&|i| noise(i) * noise(i + 1)).abs() < second);
            assert!(mean(&|i| noise(i) * next_seed(i)).abs() < second);
        }
    }

    #[test]
    fn noise_equals_the_published_generator() {
        // SplitMix64 started at 0 gives E220A8397B1DCDAF first; mix(0) is 0.
        let expected = (0xe220_a839_7b1d_cdaf_u64 >> 11) as f64 / (1_u64 << 53) as f64;
        assert_eq!(Noise::new(0).uniform(0).to_bits(), expected.to_bits());
    }
}
