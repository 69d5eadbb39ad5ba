use crate::quantize::Noise;
use crate::simd;

/// The positions, ascending, of the `k` elements of largest magnitude; of
/// equals those with the lowest index. Elements of magnitude zero are left out.
///
/// Exact, in linear time: a random sample brackets the `k`-th largest
/// magnitude, so that one pass finds few more candidates than wanted and the
/// selection among them sees only the magnitudes inside the bracket. Where the
/// bracket misses, it is dropped.
///
/// The elements must be finite.
pub(crate) fn largest(data: &[f32], k: usize, out: &mut Vec<u32>, memory: &mut Memory) {
    let bracket = likely_bracket(data, k, &mut memory.sample);
    at_least(data, bracket.lo, out);
    if out.len() < k && bracket.lo > 1 {
        at_least(data, 1, out);
    }
    if out.len() > k {
        drop_smallest(data, out, k, bracket.hi, memory);
    }
}

/// What [`largest`] works in, kept from one tensor to the next.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    sample: Vec<u32>,
    magnitudes: Vec<u32>,
    below: Vec<u32>,
    chosen: Vec<u32>,
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

/// A bracket four standard deviations of the sample to either side.
fn likely_bracket(data: &[f32], k: usize, sample: &mut Vec<u32>) -> Bracket {
    const MAX_SAMPLE: usize = 4096;
    let sample_len = (data.len() / 16).min(MAX_SAMPLE);
    if sample_len == 0 {
        return Bracket {
            lo: 0,
            hi: u32::MAX,
        };
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
            u32::MAX
        },
    }
}

/// The positions of the elements whose magnitude bits are at least `lo`, and not zero.
pub(crate) fn at_least(data: &[f32], lo: u32, out: &mut Vec<u32>) {
    let lo = lo.max(1);
    if !simd::positions_at_least(simd::level(), data, lo, out) {
        compact(data, out, |index, x| (index, magnitude_bits(x) >= lo));
    }
}

/// Keeps the `k` positions of largest magnitude, fewer than there are; `hi`
/// are magnitude bits probably above the `k`-th largest.
fn drop_smallest(data: &[f32], positions: &mut Vec<u32>, k: usize, hi: u32, memory: &mut Memory) {
    let Memory {
        magnitudes,
        below,
        chosen,
        ..
    } = memory;
    magnitudes.clear();
    magnitudes.extend(positions.iter().map(|&p| magnitude_bits(data[p as usize])));
    let threshold = kth_largest(magnitudes, k, hi, below);
    let mut ties = k - magnitudes.iter().filter(|&&bits| bits > threshold).count();
    compact(magnitudes, chosen, |index, bits| {
        let tie = bits == threshold && ties > 0;
        ties -= usize::from(tie);
        (positions[index as usize], bits > threshold || tie)
    });
    std::mem::swap(positions, chosen);
}

fn kth_largest(magnitudes: &[u32], k: usize, hi: u32, below: &mut Vec<u32>) -> u32 {
    compact(magnitudes, below, |_, bits| (bits, bits < hi));
    let above = magnitudes.len() - below.len();
    if above >= k {
        below.clear();
        below.extend_from_slice(magnitudes);
    }
    *below.select_nth_unstable(magnitudes.len() - k).1
}

/// The numbers that `choose` makes of indices and values and marks with `true`.
///
/// Free of branches, as the marks come at random.
fn compact<T: Copy>(
    values: &[T],
    chosen: &mut Vec<u32>,
    mut choose: impl FnMut(u32, T) -> (u32, bool),
) {
    const BLOCK: usize = 1024;
    chosen.clear();
    let mut buffer = [0; BLOCK];
    let mut index = 0;
    for block in values.chunks(BLOCK) {
        let mut len = 0;
        for &value in block {
            let (number, wanted) = choose(index, value);
            buffer[len % BLOCK] = number;
            len += usize::from(wanted);
            index += 1;
        }
        chosen.extend_from_slice(&buffer[..len]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn largest(data: &[f32], k: usize) -> Vec<u32> {
        let mut out = vec![7; 3];
        super::largest(data, k, &mut out, &mut Memory::default());
        out
    }

    #[test]
    fn vector_and_scalar_code_agree() {
        let noise = Noise::new(4);
        let data: Vec<f32> = (0..3001).map(|i| noise.uniform(i) as f32 - 0.5).collect();
        for len in [0, 1, 15, 16, 17, 100, 3001] {
            for least in [0.0_f32, 1e-9, 0.2, 0.49, 0.6] {
                let lo = least.to_bits().max(1);
                let (mut fast, mut slow) = (vec![9; 5], Vec::new());
                at_least(&data[..len], lo, &mut fast);
                compact(&data[..len], &mut slow, |i, x| (i, magnitude_bits(x) >= lo));
                assert_eq!(fast, slow);
            }
        }
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
        for hi in [0, 1, 900.0_f32.to_bits(), 901.0_f32.to_bits(), u32::MAX] {
            let mut positions = Vec::new();
            at_least(&data, 1, &mut positions);
            drop_smallest(&data, &mut positions, 100, hi, &mut Memory::default());
            assert_eq!(positions, expected, "hi {hi}");
        }
    }

    #[test]
    fn equals_are_kept_in_order_and_zeros_never() {
        assert_eq!(largest(&[1.0, -1.0, 1.0, 2.0], 3), [0, 1, 3]);
        assert_eq!(largest(&[0.0, -0.0, 0.0], 2), []);
        assert_eq!(largest(&vec![-3.0; 5000], 70), (0..70).collect::<Vec<_>>());
        assert_eq!(largest(&[], 0), []);
    }
}
