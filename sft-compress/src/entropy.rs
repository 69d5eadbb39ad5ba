use crate::bytes::ByteReader;
use crate::error::{Error, Result};
use crate::golomb::{self, SectionReader};

/// Frequencies of a frame add up to 2 to this power.
const SCALE_BITS: u32 = 14;
const SCALE: u32 = 1 << SCALE_BITS;
/// Between symbols a lane's state is at least this; below it takes a 16-bit word.
const STATE_MIN: u32 = 1 << 16;

/// Appends `symbols`, not empty and each below `levels`, coded with their own
/// frequencies by two interleaved lanes of a range asymmetric numeral system
/// (Duda, 2013): symbols of even index in the first lane, of odd in the second.
///
/// The last symbol written is the first that is read, so writing goes backwards.
pub(crate) fn write(out: &mut Vec<u8>, symbols: &[u8], levels: u32) {
    let frequencies = normalise(&count(symbols, levels));
    golomb::write_section(out, &frequencies[..frequencies.len() - 1]);
    let slots = Slots::of_all(&frequencies);
    let slots_of = |symbol: u8| &slots[usize::from(symbol)];

    let (mut even, mut odd) = (Lane(STATE_MIN), Lane(STATE_MIN));
    let mut words = Vec::with_capacity(symbols.len() / 4);
    let (pairs, last) = symbols.as_chunks::<2>();
    for &symbol in last {
        even.push(slots_of(symbol), &mut words);
    }
    for &[first, second] in pairs.iter().rev() {
        odd.push(slots_of(second), &mut words);
        even.push(slots_of(first), &mut words);
    }
    out.extend_from_slice(&even.0.to_le_bytes());
    out.extend_from_slice(&odd.0.to_le_bytes());
    out.extend(words.iter().rev().flat_map(|word| word.to_le_bytes()));
}

/// Reads `count` symbols, each below `levels`, from the rest of the body.
pub(crate) fn read(body: &mut ByteReader<'_>, count: usize, levels: u32) -> Result<Vec<u8>> {
    let frequencies = read_frequencies(body, levels)?;
    let table = DecodeTable::new(&frequencies);

    let (mut even, mut odd) = (Lane(body.u32()?), Lane(body.u32()?));
    let mut words = body.take_rest();
    let mut symbols = vec![0; count];
    let (pairs, last) = symbols.as_chunks_mut::<2>();
    for [first, second] in pairs {
        *first = even.pop(&table, &mut words)?;
        *second = odd.pop(&table, &mut words)?;
    }
    for symbol in last {
        *symbol = even.pop(&table, &mut words)?;
    }
    if [even, odd] != [Lane(STATE_MIN); 2] || !words.is_empty() {
        return Err(Error::corrupt("the levels do not end with their section"));
    }
    Ok(symbols)
}

/// The state of one lane of the coder.
#[derive(Clone, Copy, PartialEq)]
struct Lane(u32);

impl Lane {
    #[inline]
    fn push(&mut self, slots: &Slots, words: &mut Vec<u16>) {
        if u64::from(self.0) >= u64::from(slots.frequency) << (32 - SCALE_BITS) {
            words.push(self.0 as u16);
            self.0 >>= 16;
        }
        self.0 += slots.quotient(self.0) * (SCALE - slots.frequency) + slots.start;
    }

    #[inline]
    fn pop(&mut self, table: &DecodeTable, words: &mut &[u8]) -> Result<u8> {
        let slot = self.0 % SCALE;
        let symbol = table.symbols[slot as usize];
        let slots = &table.slots[usize::from(symbol)];
        self.0 = slots.frequency * (self.0 >> SCALE_BITS) + slot - slots.start;
        if self.0 < STATE_MIN {
            let (word, rest) = words
                .split_first_chunk::<2>()
                .ok_or_else(|| Error::corrupt("the levels end early"))?;
            self.0 = self.0 << 16 | u32::from(u16::from_le_bytes(*word));
            *words = rest;
        }
        Ok(symbol)
    }
}

/// The slots of one symbol among the [`SCALE`] slots of all.
struct Slots {
    start: u32,
    frequency: u32,
    /// 2⁴⁸ / `frequency`, rounded up.
    inverse: u64,
}

impl Slots {
    fn of_all(frequencies: &[u32]) -> Vec<Self> {
        let mut start = 0;
        let slots = frequencies.iter().map(|&frequency| {
            let inverse = (1_u64 << 48).div_ceil(u64::from(frequency.max(1)));
            let slots = Self {
                start,
                frequency,
                inverse,
            };
            start += frequency;
            slots
        });
        slots.collect()
    }

    /// `state` / `frequency` without a division.
    ///
    /// Exact: the inverse is too large by less than 1, so the product by less
    /// than 2³², and the shift by 48 keeps that below 2⁻¹⁶ < 1/`frequency`.
    fn quotient(&self, state: u32) -> u32 {
        ((u128::from(state) * u128::from(self.inverse)) >> 48) as u32
    }
}

struct DecodeTable {
    /// The symbol of each slot.
    symbols: Vec<u8>,
    slots: Vec<Slots>,
}

impl DecodeTable {
    fn new(frequencies: &[u32]) -> Self {
        let mut symbols = Vec::with_capacity(SCALE as usize);
        for (symbol, &frequency) in frequencies.iter().enumerate() {
            symbols.resize(symbols.len() + frequency as usize, symbol as u8);
        }
        Self {
            symbols,
            slots: Slots::of_all(frequencies),
        }
    }
}

fn read_frequencies(body: &mut ByteReader<'_>, levels: u32) -> Result<Vec<u32>> {
    let mut section = SectionReader::new(body, levels as usize - 1)?;
    let mut rest = SCALE;
    let mut frequencies = Vec::with_capacity(levels as usize);
    for _ in 1..levels {
        let frequency = section.next(rest)?;
        rest -= frequency;
        frequencies.push(frequency);
    }
    frequencies.push(rest);
    section.finish()?;
    Ok(frequencies)
}

fn count(symbols: &[u8], levels: u32) -> Vec<u32> {
    let mut counts = vec![0; levels as usize];
    for &symbol in symbols {
        counts[usize::from(symbol)] += 1;
    }
    counts
}

/// Scales counts, not all zero, to frequencies that add up to [`SCALE`] and
/// stay positive where the count is.
///
/// Each is rounded to the nearest integer. What that leaves over or lacks in
/// the sum, at most one a symbol, falls on the largest, where it costs least.
fn normalise(counts: &[u32]) -> Vec<u32> {
    let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    let mut frequencies: Vec<u32> = counts
        .iter()
        .map(|&count| {
            let scaled = (u64::from(count) * u64::from(SCALE) + total / 2) / total;
            (scaled as u32).max(u32::from(count > 0))
        })
        .collect();
    let sum: u32 = frequencies.iter().sum();
    for _ in 0..sum.abs_diff(SCALE) {
        if let Some(largest) = frequencies.iter_mut().max() {
            *largest = if sum < SCALE {
                *largest + 1
            } else {
                *largest - 1
            };
        }
    }
    frequencies
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::Noise;

    /// Symbols whose counts fall by the factor `decay` from one to the next.
    fn geometric(len: u32, levels: u32, decay: f64) -> Vec<u8> {
        let weights: Vec<f64> = (0..levels).map(|e| decay.powi(e.cast_signed())).collect();
        let total: f64 = weights.iter().sum();
        let noise = Noise::new(u64::from(levels));
        let draw = |i: u32| {
            let mut rest = noise.uniform(i) * total;
            let below = weights.iter().take_while(|&&weight| {
                rest -= weight;
                rest >= 0.0
            });
            below.count().min(levels as usize - 1) as u8
        };
        (0..len).map(draw).collect()
    }

    fn entropy_bytes(symbols: &[u8], levels: u32) -> f64 {
        let total = symbols.len() as f64;
        let bits = |n: u32| {
            if n == 0 {
                0.0
            } else {
                f64::from(n) * (total / f64::from(n)).log2()
            }
        };
        count(symbols, levels).into_iter().map(bits).sum::<f64>() / 8.0
    }

    fn round_trip(symbols: &[u8], levels: u32) -> usize {
        let mut bytes = Vec::new();
        write(&mut bytes, symbols, levels);
        let mut body = ByteReader::new(&bytes);
        assert_eq!(
            read(&mut body, symbols.len(), levels).as_deref(),
            Ok(symbols)
        );
        bytes.len()
    }

    #[test]
    fn the_size_is_near_the_entropy() {
        for levels in [2, 3, 8, 16, 64, 256] {
            for decay in [1.0, 0.95, 0.6, 0.05] {
                let symbols = geometric(30_000, levels, decay);
                let (size, entropy) = (
                    round_trip(&symbols, levels) as f64,
                    entropy_bytes(&symbols, levels),
                );
                let table = 2.0 * f64::from(levels);
                let words = size - table;
                assert!(
                    words <= 1.005 * entropy + 12.0,
                    "{levels} levels, decay {decay}: {size} for {entropy}"
                );
            }
        }
    }

    #[test]
    fn short_and_constant_inputs_round_trip() {
        for len in 1..20 {
            round_trip(&geometric(len, 8, 0.5), 8);
        }
        assert!(round_trip(&vec![7; 100_000], 8) < 20);
        assert!(round_trip(&vec![0; 99_999], 256) < 300);
    }

    #[test]
    fn frequencies_add_up_and_reach_every_symbol() {
        for counts in [
            vec![1; 256],
            vec![1, 0, 1_000_000],
            [vec![1; 255], vec![u32::MAX >> 1]].concat(),
            [vec![1; 128], vec![100_000; 128]].concat(),
            vec![3, 3, 3],
        ] {
            let frequencies = normalise(&counts);
            assert_eq!(frequencies.iter().sum::<u32>(), SCALE);
            for (count, frequency) in counts.iter().zip(&frequencies) {
                assert_eq!(*count > 0, *frequency > 0);
            }
        }
    }

    #[test]
    fn the_inverse_divides_exactly() {
        for frequency in (1..SCALE).step_by(7).chain([SCALE - 1, SCALE]) {
            let slots = Slots::of_all(&[frequency]);
            for near in [1, 2, 1 << 16, u32::MAX / 2, u32::MAX] {
                let multiple = near / frequency * frequency;
                for state in [multiple.saturating_sub(1), multiple, near] {
                    assert_eq!(slots[0].quotient(state), state / frequency);
                }
            }
        }
    }

    #[test]
    fn cut_or_extended_words_are_rejected() {
        let symbols = geometric(100, 8, 0.6);
        let mut bytes = Vec::new();
        write(&mut bytes, &symbols, 8);
        let cut = &bytes[..bytes.len() - 2];
        assert!(read(&mut ByteReader::new(cut), 100, 8).is_err());
        bytes.extend_from_slice(&[0, 0]);
        assert!(read(&mut ByteReader::new(&bytes), 100, 8).is_err());
    }
}
