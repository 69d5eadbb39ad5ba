//! Which rows and which channels share their statistics.

use crate::math::log2;
use crate::simd::{self, Level};

/// Kinds of symbols that channels are compared by: zero, and one or more
/// levels of either sign.
const KINDS: usize = 5;
/// Rows that the comparison of channels looks at, at least, if there are as
/// many, and less than twice as many.
const SAMPLED_ROWS: usize = 1024;
const ROUNDS: usize = 4;
const MAX_CLASSES: usize = 16;
/// Ranges of counts that row classes are made of.
const BINS: usize = 64;

/// Divides rows into at most `classes` by how many of their `width` elements
/// are kept, so that coding positions by class takes the fewest bits.
pub(crate) fn of_rows(counts: &[u32], width: usize, classes: usize, out: &mut Vec<u8>) {
    let bin = |count: u32| (u64::from(count) * BINS as u64 / (width as u64 + 1)) as usize;
    let mut totals = [(0.0, 0.0); BINS + 1];
    for &count in counts {
        let total = &mut totals[bin(count) + 1];
        *total = (total.0 + width as f64, total.1 + f64::from(count));
    }
    for i in 0..BINS {
        totals[i + 1].0 += totals[i].0;
        totals[i + 1].1 += totals[i].1;
    }
    let class = cheapest_division(classes, |i, j| {
        let (n, k) = (totals[j].0 - totals[i].0, totals[j].1 - totals[i].1);
        n * entropy(k / n.max(1.0))
    });
    out.clear();
    out.extend(counts.iter().map(|&count| class[bin(count)]));
}

/// The entropy in bits of a choice of probability `p`.
fn entropy(p: f64) -> f64 {
    let part = |p: f64| if p > 0.0 { -p * log2(p) } else { 0.0 };
    part(p) + part(1.0 - p)
}

/// The class of each bin, in ascending order, for which the costs of the
/// classes, of bins `i..j` each, have the least sum.
fn cheapest_division(classes: usize, cost: impl Fn(usize, usize) -> f64) -> [u8; BINS] {
    let mut least = [[f64::INFINITY; BINS + 1]; MAX_CLASSES];
    let mut start = [[0; BINS + 1]; MAX_CLASSES];
    for (j, least) in least[0].iter_mut().enumerate() {
        *least = cost(0, j);
    }
    for i in 0..=BINS {
        for j in i..=BINS {
            let cost = cost(i, j);
            for class in 1..classes {
                let total = least[class - 1][i] + cost;
                if total < least[class][j] {
                    (least[class][j], start[class][j]) = (total, i);
                }
            }
        }
    }
    let mut of_bin = [0; BINS];
    let mut end = BINS;
    for class in (0..classes).rev() {
        let begin = start[class][end];
        of_bin[begin..end].fill(class as u8);
        end = begin;
    }
    of_bin
}

/// What [`of_channels`] works in, kept from one tensor to the next.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// How often each channel has each kind of symbol.
    counts: Vec<[u32; KINDS]>,
    /// The same of each kind but zero.
    by_kind: [Vec<u16>; 4],
    order: Vec<usize>,
}

/// Divides channels into at most `classes` of similar statistics, by the
/// symbols of `count` rows of `width` channels.
pub(crate) fn of_channels<'a>(
    rows: impl Iterator<Item = &'a [i8]>,
    (count, width): (usize, usize),
    classes: usize,
    out: &mut Vec<u8>,
    memory: &mut Memory,
) {
    out.clear();
    out.resize(width, 0);
    if classes < 2 {
        return;
    }
    let step = (count / SAMPLED_ROWS).max(1);
    for counts in &mut memory.by_kind {
        counts.clear();
        counts.resize(width, 0);
    }
    let mut sampled = 0;
    for row in rows.step_by(step) {
        simd::count_kinds(Level::best(), row, &mut memory.by_kind);
        sampled += 1;
    }
    let [a, b, c, d] = &memory.by_kind;
    memory.counts.clear();
    memory.counts.extend((0..width).map(|channel| {
        let [a, b, c, d] = [a, b, c, d].map(|counts| u32::from(counts[channel]));
        [a, b, sampled - (a + b + c + d), c, d]
    }));
    cluster(memory, classes, out);
}

/// Lloyd's iteration with code length as the distance, from classes of equal
/// size by the number of zeros.
fn cluster(Memory { counts, order, .. }: &mut Memory, classes: usize, out: &mut [u8]) {
    order.clear();
    order.extend(0..counts.len());
    order.sort_unstable_by_key(|&channel| (counts[channel][2], channel));
    for (rank, &channel) in order.iter().enumerate() {
        out[channel] = (rank * classes / counts.len()) as u8;
    }
    for _ in 0..ROUNDS {
        let lengths = code_lengths(counts, out);
        for (class, channel) in out.iter_mut().zip(&*counts) {
            let bits = |class: usize| -> f64 {
                let parts = channel.iter().zip(&lengths[class]);
                parts.map(|(&n, length)| f64::from(n) * length).sum()
            };
            let best = (0..classes).map(bits).enumerate();
            *class = best
                .min_by(|a, b| a.1.total_cmp(&b.1))
                .map_or(0, |best| best.0 as u8);
        }
    }
}

/// Bits of each kind of symbol in each class.
fn code_lengths(counts: &[[u32; KINDS]], class: &[u8]) -> [[f64; KINDS]; MAX_CLASSES] {
    let mut sums = [[0.5; KINDS]; MAX_CLASSES];
    for (channel, &class) in counts.iter().zip(class) {
        for (sum, &count) in sums[usize::from(class)].iter_mut().zip(channel) {
            *sum += f64::from(count);
        }
    }
    for sum in &mut sums {
        let total = log2(sum.iter().sum());
        *sum = sum.map(|n| total - log2(n));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fall_where_their_counts_differ() {
        let counts: Vec<u32> = (0..100).map(|r| [0, 3, 90, 4, 50][r % 5]).collect();
        let mut classes = Vec::new();
        of_rows(&counts, 100, 3, &mut classes);
        assert_eq!(classes[..5], [0, 0, 2, 0, 1]);
        of_rows(&counts, 100, 1, &mut classes);
        assert!(classes.iter().all(|&class| class == 0));
    }

    #[test]
    fn the_division_of_rows_is_the_best() {
        // Against all pairs of cuts.
        let cost = |i: usize, j: usize| {
            let weight = |b: usize| ((b * 37 + 11) % 23) as f64;
            let (n, k) = (
                (i..j).map(weight).sum::<f64>(),
                (i..j)
                    .map(|b| weight(b) * (b % 7) as f64 / 7.0)
                    .sum::<f64>(),
            );
            n * entropy(k / n.max(1.0))
        };
        let class = cheapest_division(3, cost);
        let cuts = [1, 2].map(|c| class.iter().filter(|&&class| class < c).count());
        let total = |a: usize, b: usize| cost(0, a) + cost(a, b) + cost(b, BINS);
        for a in 0..=BINS {
            for b in a..=BINS {
                assert!(total(cuts[0], cuts[1]) <= total(a, b) + 1e-9);
            }
        }
    }

    #[test]
    fn channels_of_one_kind_share_a_class() {
        // Dense positive, sparse, and mostly negative channels.
        let plane: Vec<i8> = (0..200 * 60_u32)
            .map(|i| match (i / 60, i % 60) {
                (r, c) if c % 3 == 0 => 1 + (r % 3) as i8,
                (r, c) if c % 3 == 1 => i8::from((r + c) % 9 == 0),
                (r, c) => -i8::from((r + c) % 2 == 0),
            })
            .collect();
        let mut classes = Vec::new();
        of_channels(
            plane.chunks(60),
            (200, 60),
            3,
            &mut classes,
            &mut Memory::default(),
        );
        for c in 0..60 {
            assert_eq!(classes[c], classes[c % 3], "channel {c}");
        }
        assert_eq!(
            classes[..3]
                .iter()
                .collect::<std::collections::HashSet<_>>()
                .len(),
            3
        );
    }
}
