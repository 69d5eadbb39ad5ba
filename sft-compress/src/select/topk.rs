use crate::parallel::{self, PART};
use crate::simd::{self, Candidates, Level};
use crate::value::Noise;

/// Finds the `k` elements of largest magnitude, in order of position; of equals
/// those with the lowest index. Elements of magnitude zero are left out. Adds
/// `start` to the positions.
///
/// Exact, in linear time: a random sample brackets the `k`-th largest
/// magnitude, so that one pass finds few more candidates than wanted and the
/// selection among them sees only the magnitudes inside the bracket. Where the
/// bracket misses, it is dropped.
pub(crate) fn largest(
    data: &[f32],
    start: u32,
    k: usize,
    found: &mut Candidates,
    memory: &mut Memory,
) {
    let bracket = likely_bracket(data, k, &mut memory.sample);
    at_least(data, start, bracket.lo, found, &mut memory.parts);
    if found.positions.len() < k && bracket.lo > 1 {
        at_least(data, start, 1, found, &mut memory.parts);
    }
    if found.positions.len() > k {
        drop_smallest(found, k, bracket.hi, memory);
    }
}

/// What [`largest`] works in, kept from one tensor to the next.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    sample: Vec<u32>,
    pub(crate) parts: Vec<Candidates>,
    below: Candidates,
    bin: Vec<u32>,
}

/// The bits of an element's magnitude; their order is the order of magnitudes.
fn magnitude_bits(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

/// Magnitude bits around those of the `k`-th largest element.
struct Bracket {
    lo: u32,
    hi: u32,
}

/// Above all magnitude bits.
const NO_BITS: u32 = 1 << 31;

/// A bracket four standard deviations of the sample to either side.
fn likely_bracket(data: &[f32], k: usize, sample: &mut Vec<u32>) -> Bracket {
    const MAX_SAMPLE: usize = 4096;
    let sample_len = (data.len() / 16).min(MAX_SAMPLE);
    if sample_len == 0 {
        return Bracket { lo: 0, hi: NO_BITS };
    }
    let noise = Noise::new(0);
    sample.clear();
    sample.extend(
        (0..sample_len as u32)
            .map(|i| noise.uniform(i) * data.len() as f64)
            .map(|position| magnitude_bits(data[position as usize])),
    );
    let share = k as f64 / data.len() as f64;
    let rank = share * sample.len() as f64;
    let margin = 4.0 * (rank * (1.0 - share)).sqrt() + 1.0;
    let (above, below) = ((rank - margin).max(0.0) as usize, (rank + margin) as usize);
    let mut nth_largest = |n: usize| *sample.select_nth_unstable_by(n, |a, b| b.cmp(a)).1;
    Bracket {
        lo: if below < sample_len {
            nth_largest(below)
        } else {
            0
        },
        hi: if above > 0 {
            nth_largest(above)
        } else {
            NO_BITS
        },
    }
}

/// Finds the elements whose magnitude bits are at least `lo`, and not zero;
/// `parts` is memory to work in.
pub(crate) fn at_least(
    data: &[f32],
    start: u32,
    lo: u32,
    out: &mut Candidates,
    parts: &mut Vec<Candidates>,
) {
    let (level, bits) = (Level::best(), lo.max(1)..NO_BITS);
    out.clear();
    if parallel::threads() == 1 || data.len() <= PART {
        return simd::collect(level, data, start, bits, out);
    }
    parts.resize_with(data.len().div_ceil(PART), Candidates::default);
    parallel::for_each(parts, |number, part| {
        let elements = number * PART..data.len().min((number + 1) * PART);
        let start = start + elements.start as u32;
        part.clear();
        simd::collect(level, &data[elements], start, bits.clone(), part);
    });
    for part in parts {
        out.positions.extend_from_slice(&part.positions);
        out.values.extend_from_slice(&part.values);
    }
}

/// Keeps the `k` of the found elements with the largest magnitudes, fewer than
/// there are; `hi` are magnitude bits probably above the `k`-th largest.
fn drop_smallest(found: &mut Candidates, k: usize, hi: u32, memory: &mut Memory) {
    let Memory { below, bin, .. } = memory;
    let level = Level::best();
    let inside = |hi: u32, below: &mut Candidates| {
        below.clear();
        simd::collect(level, &found.values, 0, 0..hi, below);
        found.values.len() - below.values.len()
    };
    let mut above = inside(hi, below);
    if above >= k {
        above = inside(NO_BITS, below);
    }
    let (threshold, larger) = nth_largest(&below.values, k - above, bin);
    let equal = k - above - larger;
    // The place of the last of equals that is kept.
    let equals = found.values.iter().zip(&found.positions);
    let mut equals = equals.filter(|(x, _)| magnitude_bits(**x) == threshold);
    let last = equals
        .nth(equal - 1)
        .map_or(u32::MAX, |(_, &position)| position);
    simd::keep_at_least(level, found, threshold, last);
}

/// The magnitude bits of the `n`-th largest of the `values`, from 1 on, and how
/// many are larger.
fn nth_largest(values: &[f32], n: usize, bin: &mut Vec<u32>) -> (u32, usize) {
    const BINS: u32 = 1024;
    let (lo, hi) = simd::span(Level::best(), values);
    let shift = ((hi - lo) / BINS).checked_ilog2().map_or(0, |log| log + 1);
    let bin_of = |x: f32| (magnitude_bits(x) - lo) >> shift;
    let mut counts = [0; BINS as usize];
    for &x in values {
        counts[(bin_of(x) % BINS) as usize] += 1;
    }
    let (mut larger, mut wanted) = (0, BINS - 1);
    while wanted > 0 && larger + counts[wanted as usize] < n {
        larger += counts[wanted as usize];
        wanted -= 1;
    }
    bin.clear();
    bin.extend(
        values
            .iter()
            .filter(|x| bin_of(**x) == wanted)
            .map(|x| magnitude_bits(*x)),
    );
    bin.sort_unstable_by(|a, b| b.cmp(a));
    let threshold = bin[n - larger - 1];
    (
        threshold,
        larger + bin.partition_point(|&bits| bits > threshold),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn largest(data: &[f32], k: usize) -> Vec<u32> {
        let mut out = Candidates::default();
        super::largest(data, 5, k, &mut out, &mut Memory::default());
        let positions: Vec<u32> = out.positions.iter().map(|position| position - 5).collect();
        let values: Vec<f32> = positions.iter().map(|&p| data[p as usize]).collect();
        assert_eq!(out.values, values);
        positions
    }

    fn by_sorting(data: &[f32], k: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..data.len() as u32).collect();
        // A stable sort keeps equals in order of position.
        order.sort_by(|&a, &b| data[b as usize].abs().total_cmp(&data[a as usize].abs()));
        order.truncate(k);
        order.retain(|&position| data[position as usize] != 0.0);
        order.sort_unstable();
        order
    }

    fn any_finite() -> impl Strategy<Value = f32> {
        prop_oneof![
            prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO,
            (-4_i8..4).prop_map(f32::from),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn small_tensors_equal_the_sort(data in prop::collection::vec(any_finite(), 1..200), k in 1_usize..200) {
            let k = k.min(data.len());
            prop_assert_eq!(largest(&data, k), by_sorting(&data, k));
        }

        #[test]
        fn large_tensors_equal_the_sort(seed in any::<u64>(), share in 0.0_f64..=1.0, values in 1_u32..100_000) {
            let noise = Noise::new(seed);
            let data: Vec<f32> = (0..20_000)
                .map(|i| (noise.uniform(i) * f64::from(values)) as i64)
                .map(|x| (x * x - 7) as f32)
                .collect();
            let k = ((share * data.len() as f64) as usize).max(1);
            prop_assert_eq!(largest(&data, k), by_sorting(&data, k));
        }
    }

    #[test]
    fn a_bracket_that_misses_changes_nothing() {
        let data: Vec<f32> = (1..1000_i16).rev().map(f32::from).collect();
        let expected = by_sorting(&data, 100);
        for hi in [0, 1, 900.0_f32.to_bits(), 901.0_f32.to_bits(), NO_BITS] {
            let mut found = Candidates::default();
            at_least(&data, 0, 1, &mut found, &mut Vec::new());
            drop_smallest(&mut found, 100, hi, &mut Memory::default());
            assert_eq!(found.positions, expected, "hi {hi}");
        }
    }

    #[test]
    fn the_nth_largest_is_that_of_the_sort() {
        let noise = Noise::new(6);
        for scale in [1e-40, 3.0, 1e30] {
            let values: Vec<f32> = (0..700)
                .map(|i| ((noise.uniform(i) - 0.5) * 300.0).round() as f32 * scale)
                .collect();
            let mut sorted: Vec<u32> = values.iter().map(|x| magnitude_bits(*x)).collect();
            sorted.sort_unstable_by(|a, b| b.cmp(a));
            for n in [1, 2, 350, 699, 700] {
                let larger = sorted.iter().filter(|&&bits| bits > sorted[n - 1]).count();
                let found = nth_largest(&values, n, &mut Vec::new());
                assert_eq!(found, (sorted[n - 1], larger));
            }
        }
    }

    #[test]
    fn equals_are_kept_in_order_and_zeros_never() {
        assert_eq!(largest(&[1.0, -1.0, 1.0, 2.0], 3), [0, 1, 3]);
        assert!(largest(&[0.0, -0.0, 0.0], 2).is_empty());
        assert_eq!(largest(&vec![-3.0; 5000], 70), (0..70).collect::<Vec<_>>());
        assert!(largest(&[], 0).is_empty());
    }
}
