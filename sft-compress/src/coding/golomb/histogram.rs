use super::SMALL;
use super::code::Golomb;

/// The multiset of values, with the small and frequent ones counted.
pub(super) struct Histogram<'a> {
    counts: [u32; SMALL],
    large: &'a [u32],
    pub(super) max: u32,
}

impl<'a> Histogram<'a> {
    pub(super) fn new(values: impl Iterator<Item = u32>, large: &'a mut Vec<u32>) -> Self {
        // In two parts, as counting the same value twice in a row is slow.
        let mut counts = [[0; SMALL]; 2];
        large.clear();
        for (i, value) in values.enumerate() {
            match counts[i % 2].get_mut(value as usize) {
                Some(count) => *count += 1,
                None => large.push(value),
            }
        }
        let [first, second] = counts;
        let counts: [u32; SMALL] = std::array::from_fn(|value| first[value] + second[value]);
        let small = counts.iter().rposition(|&count| count > 0).unwrap_or(0);
        let max = large.iter().copied().max().unwrap_or(small as u32);
        Self { counts, large, max }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.large.is_empty() && self.counts == [0; SMALL]
    }

    /// The code with the fewest bits in total; of equals that of the smallest divisor.
    pub(super) fn best_code(&self) -> Golomb {
        (0..31)
            .flat_map(|k| [1 << k, (3 << k) / 2])
            .take_while(|&m| m / 2 <= self.max)
            .map(Golomb::new)
            .min_by_key(|&code| self.total_bits(code))
            .unwrap_or(Golomb::new(1))
    }

    pub(super) fn total_bits(&self, code: Golomb) -> u64 {
        let small = (0..=self.max)
            .zip(&self.counts)
            .map(|(value, &count)| u64::from(count) * code.bits(value));
        let large = self.large.iter().map(|&value| code.bits(value));
        small.chain(large).sum()
    }
}
