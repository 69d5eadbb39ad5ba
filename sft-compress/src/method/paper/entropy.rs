use crate::coding::bytes::ByteReader;
use crate::coding::golomb::{self, SectionReader};
use crate::error::{Error, Result};

/// Frequencies of a frame add up to 2 to this power.
const SCALE_BITS: u32 = 14;
const SCALE: u32 = 1 << SCALE_BITS;
/// Between symbols a lane's state is at least this; below it takes a 16-bit word.
const STATE_MIN: u32 = 1 << 16;

/// Most levels.
const LEVELS: usize = 256;

/// What [`write`] works in, kept from one message to the next.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    words: Vec<u16>,
    scratch: Vec<u32>,
}

/// Appends `symbols`, not empty and each below `levels`, coded with their own
/// frequencies by two interleaved lanes of a range asymmetric numeral system
/// (Duda, 2013): symbols of even index in the first lane, of odd in the second.
///
/// The last symbol written is the first that is read, so writing goes backwards.
pub(crate) fn write(out: &mut Vec<u8>, symbols: &[u32], levels: u32, memory: &mut Memory) {
    let frequencies = normalise(&count(symbols), levels as usize);
    let listed = frequencies[..levels as usize - 1].iter().copied();
    let Memory { scratch, words } = memory;
    golomb::write_section(out, listed, scratch);
    let slots = Slots::of_all(&frequencies);
    let slots_of = |symbol: u32| &slots[symbol as usize % LEVELS];

    let (mut even, mut odd) = (Lane(STATE_MIN), Lane(STATE_MIN));
    // A symbol takes a word at most.
    words.resize(symbols.len(), 0);
    let mut at = words.len();
    let (pairs, last) = symbols.as_chunks::<2>();
    for &symbol in last {
        even.push(slots_of(symbol), words, &mut at);
    }
    for &[first, second] in pairs.iter().rev() {
        odd.push(slots_of(second), words, &mut at);
        even.push(slots_of(first), words, &mut at);
    }
    out.extend_from_slice(&even.0.to_le_bytes());
    out.extend_from_slice(&odd.0.to_le_bytes());
    out.extend(words[at..].iter().flat_map(|word| word.to_le_bytes()));
}

/// Reads `count` symbols, each below `levels`, from the rest of the body.
pub(crate) fn read(
    body: &mut ByteReader<'_>,
    count: usize,
    levels: u32,
    symbols: &mut Vec<u8>,
    table: &mut DecodeTable,
) -> Result<()> {
    let table = table.fill(&read_frequencies(body, levels)?);
    let (mut even, mut odd) = (Lane(body.u32()?), Lane(body.u32()?));
    let mut words = body.take_rest();
    symbols.clear();
    symbols.resize(count, 0);
    let (pairs, last) = symbols.as_chunks_mut::<2>();
    for [first, second] in pairs {
        *first = even.pop(table, &mut words)?;
        *second = odd.pop(table, &mut words)?;
    }
    for symbol in last {
        *symbol = even.pop(table, &mut words)?;
    }
    if [even, odd] != [Lane(STATE_MIN); 2] || !words.is_empty() {
        return Err(Error::corrupt("the levels do not end with their section"));
    }
    Ok(())
}

/// The state of one lane of the coder.
#[derive(Clone, Copy, PartialEq)]
struct Lane(u32);

impl Lane {
    #[inline]
    fn push(&mut self, slots: &Slots, words: &mut [u16], at: &mut usize) {
        // Free of branches, as whether a word is due comes at random.
        let full = self.0 >> (32 - SCALE_BITS) >= slots.frequency;
        words[*at - 1] = self.0 as u16;
        *at -= usize::from(full);
        self.0 >>= 16 * u32::from(full);
        self.0 += slots.quotient(self.0) * (SCALE - slots.frequency) + slots.start;
    }

    #[inline]
    fn pop(
        &mut self,
        (symbols, slots): (&Symbols, &[(u32, u32); LEVELS]),
        words: &mut &[u8],
    ) -> Result<u8> {
        let slot = self.0 % SCALE;
        let symbol = symbols[slot as usize];
        let (frequency, start) = slots[usize::from(symbol)];
        self.0 = frequency * (self.0 >> SCALE_BITS) + slot - start;
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
    fn of_all(frequencies: &[u32; LEVELS]) -> [Self; LEVELS] {
        let mut start = 0;
        frequencies.map(|frequency| {
            let inverse = (1_u64 << 48).div_ceil(u64::from(frequency.max(1)));
            let slots = Self {
                start,
                frequency,
                inverse,
            };
            start += frequency;
            slots
        })
    }

    /// `state` / `frequency` without a division.
    ///
    /// Exact: the inverse is too large by less than 1, so the product by less
    /// than 2³², and the shift by 48 keeps that below 2⁻¹⁶ < 1/`frequency`.
    fn quotient(&self, state: u32) -> u32 {
        ((u128::from(state) * u128::from(self.inverse)) >> 48) as u32
    }
}

/// The symbol of each slot.
type Symbols = [u8; SCALE as usize];

/// The symbols and their slots.
#[derive(Debug)]
pub(crate) struct DecodeTable {
    symbols: Option<Box<Symbols>>,
    /// Frequency and start of each symbol.
    slots: [(u32, u32); LEVELS],
}

impl Default for DecodeTable {
    fn default() -> Self {
        Self {
            symbols: None,
            slots: [(0, 0); LEVELS],
        }
    }
}

impl DecodeTable {
    /// Of `frequencies` that add up to [`SCALE`].
    fn fill(&mut self, frequencies: &[u32; LEVELS]) -> (&Symbols, &[(u32, u32); LEVELS]) {
        let symbols = self
            .symbols
            .get_or_insert_with(|| Box::new([0; SCALE as usize]));
        let mut start = 0;
        for (symbol, &frequency) in frequencies.iter().enumerate() {
            self.slots[symbol] = (frequency, start);
            let end = start + frequency;
            symbols[start as usize..end as usize].fill(symbol as u8);
            start = end;
        }
        (symbols, &self.slots)
    }
}

fn read_frequencies(body: &mut ByteReader<'_>, levels: u32) -> Result<[u32; LEVELS]> {
    let mut section = SectionReader::new(body, levels as usize - 1)?;
    let (mut rest, last) = (SCALE, levels as usize - 1);
    let mut frequencies = [0; LEVELS];
    for frequency in &mut frequencies[..last] {
        *frequency = section.next(rest)?;
        rest -= *frequency;
    }
    frequencies[last] = rest;
    section.finish()?;
    Ok(frequencies)
}

/// In four parts, as counting the same symbol twice in a row is slow.
fn count(symbols: &[u32]) -> [u32; LEVELS] {
    let mut counts = [[0; LEVELS]; 4];
    for (i, &symbol) in symbols.iter().enumerate() {
        counts[i % 4][symbol as usize % LEVELS] += 1;
    }
    std::array::from_fn(|symbol| counts.iter().map(|part| part[symbol]).sum())
}

/// Scales counts, not all zero, to frequencies that add up to [`SCALE`] and
/// stay positive where the count is.
///
/// Each is rounded to the nearest integer. What that leaves over or lacks in
/// the sum, at most one a symbol, falls on the largest, where it costs least.
fn normalise(counts: &[u32; LEVELS], levels: usize) -> [u32; LEVELS] {
    let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    let mut frequencies = counts.map(|count| {
        let scaled = (u64::from(count) * u64::from(SCALE) + total / 2) / total;
        (scaled as u32).max(u32::from(count > 0))
    });
    let sum: u32 = frequencies.iter().sum();
    for _ in 0..sum.abs_diff(SCALE) {
        if let Some(largest) = frequencies[..levels].iter_mut().max() {
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
    use crate::value::Noise;

    /// Symbols whose counts fall by the factor `decay` from one to the next.
    fn geometric(len: u32, levels: u32, decay: f64) -> Vec<u32> {
        let weights: Vec<f64> = (0..levels).map(|e| decay.powi(e.cast_signed())).collect();
        let total: f64 = weights.iter().sum();
        let noise = Noise::new(u64::from(levels));
        let draw = |i: u32| {
            let mut rest = noise.uniform(i) * total;
            let below = weights.iter().take_while(|&&weight| {
                rest -= weight;
                rest >= 0.0
            });
            below.count().min(levels as usize - 1) as u32
        };
        (0..len).map(draw).collect()
    }

    fn entropy_bytes(symbols: &[u32]) -> f64 {
        let total = symbols.len() as f64;
        let bits = |n: u32| {
            if n == 0 {
                0.0
            } else {
                f64::from(n) * (total / f64::from(n)).log2()
            }
        };
        count(symbols).into_iter().map(bits).sum::<f64>() / 8.0
    }

    fn written(symbols: &[u32], levels: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, symbols, levels, &mut Memory::default());
        bytes
    }

    fn read_back(bytes: &[u8], count: usize, levels: u32) -> Result<Vec<u32>> {
        let (mut symbols, mut table) = (Vec::new(), DecodeTable::default());
        let mut body = ByteReader::new(bytes);
        read(&mut body, count, levels, &mut symbols, &mut table)?;
        Ok(symbols.into_iter().map(u32::from).collect())
    }

    fn round_trip(symbols: &[u32], levels: u32) -> usize {
        let bytes = written(symbols, levels);
        let read = read_back(&bytes, symbols.len(), levels);
        assert_eq!(read.as_deref(), Ok(symbols));
        bytes.len()
    }

    #[test]
    fn the_size_is_near_the_entropy() {
        for levels in [2, 3, 8, 16, 64, 256] {
            for decay in [1.0, 0.95, 0.6, 0.05] {
                let symbols = geometric(30_000, levels, decay);
                let (size, entropy) =
                    (round_trip(&symbols, levels) as f64, entropy_bytes(&symbols));
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
            let mut all = [0; LEVELS];
            all[..counts.len()].copy_from_slice(&counts);
            let frequencies = normalise(&all, counts.len());
            assert_eq!(frequencies.iter().sum::<u32>(), SCALE);
            for (count, frequency) in all.iter().zip(&frequencies) {
                assert_eq!(*count > 0, *frequency > 0);
            }
        }
    }

    #[test]
    fn the_inverse_divides_exactly() {
        for frequency in (1..SCALE).step_by(7).chain([SCALE - 1, SCALE]) {
            let mut frequencies = [0; LEVELS];
            frequencies[0] = frequency;
            let slots = Slots::of_all(&frequencies);
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
        let mut bytes = written(&symbols, 8);
        assert!(read_back(&bytes[..bytes.len() - 2], 100, 8).is_err());
        bytes.extend_from_slice(&[0, 0]);
        assert!(read_back(&bytes, 100, 8).is_err());
    }
}
