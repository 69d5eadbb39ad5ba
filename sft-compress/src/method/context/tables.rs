//! A model's parts in a frame: classes, and tables of frequencies.

use crate::coding::bits::{BitReader, BitWriter};
use crate::error::{Error, Result};

/// Frequencies of a table add up to 2 to this power.
pub(crate) const SCALE_BITS: u32 = 12;
pub(crate) const SCALE: u32 = 1 << SCALE_BITS;

/// Scales counts to frequencies that add up to [`SCALE`] and stay positive
/// where the count is; an unused table expects zero.
///
/// Each is rounded to the nearest integer. What that leaves over or lacks in
/// the sum falls on the largest, where it costs least.
pub(super) fn normalise(counts: impl Iterator<Item = u32> + Clone, out: &mut Vec<u16>) {
    let start = out.len();
    let total = counts.clone().map(u64::from).sum::<u64>();
    out.extend(counts.map(|count| {
        let count = u64::from(count);
        let scaled = (count * u64::from(SCALE) + total / 2).checked_div(total);
        scaled.unwrap_or(0).max(u64::from(count > 0)) as u16
    }));
    let table = &mut out[start..];
    if total == 0 {
        table[0] = SCALE as u16;
    }
    let sum: u32 = table.iter().map(|&f| u32::from(f)).sum();
    for _ in 0..sum.abs_diff(SCALE) {
        if let Some(largest) = table.iter_mut().max() {
            *largest = if sum < SCALE {
                *largest + 1
            } else {
                *largest - 1
            };
        }
    }
}

fn class_bits(classes: usize) -> u32 {
    (classes - 1).checked_ilog2().map_or(0, |bits| bits + 1)
}

pub(super) fn write_classes(out: &mut BitWriter, of: &[u8], classes: usize) {
    let bits = class_bits(classes);
    for &class in of {
        out.write(class.into(), bits);
    }
}

pub(super) fn read_classes(
    bits: &mut BitReader<'_>,
    count: usize,
    classes: usize,
    of: &mut Vec<u8>,
) -> Result<()> {
    of.clear();
    if classes == 1 {
        of.resize(count, 0);
        return Ok(());
    }
    bits.expect(count, class_bits(classes))?;
    for _ in 0..count {
        let class = bits.read(class_bits(classes))?;
        if class as usize >= classes {
            return Err(Error::corrupt(format!("class {class} of {classes}")));
        }
        of.push(class as u8);
    }
    Ok(())
}

/// The number of frequencies behind the first up to the last that is not zero,
/// and each of these as the number of its bits and those below the highest.
pub(super) fn write_table(out: &mut BitWriter, table: &[u16]) {
    let listed = table[1..]
        .iter()
        .rposition(|&f| f > 0)
        .map_or(0, |last| last + 1);
    out.write(listed as u32, 8);
    for &frequency in &table[1..=listed] {
        let frequency = u32::from(frequency);
        let bits = frequency.checked_ilog2().map_or(0, |high| high + 1);
        out.write(bits, 4);
        if bits > 1 {
            out.write(frequency - (1 << (bits - 1)), bits - 1);
        }
    }
}

pub(super) fn read_table(
    bits: &mut BitReader<'_>,
    alphabet: usize,
    out: &mut Vec<u16>,
) -> Result<()> {
    let listed = bits.read(8)? as usize;
    if listed >= alphabet {
        return Err(Error::corrupt(format!(
            "{listed} frequencies of {alphabet} symbols"
        )));
    }
    let first = out.len();
    out.resize(first + alphabet, 0);
    let mut rest = SCALE;
    for frequency in &mut out[first + 1..=first + listed] {
        let length = bits.read(4)?;
        let value = match length {
            0 => 0,
            1 => 1,
            _ => (1 << (length - 1)) + bits.read(length - 1)?,
        };
        rest = rest
            .checked_sub(value)
            .ok_or_else(|| Error::corrupt("the frequencies of a table are too large"))?;
        *frequency = value as u16;
    }
    out[first] = rest as u16;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_add_up_and_reach_every_symbol() {
        for counts in [
            vec![0; 9],
            vec![1; 141],
            vec![1, 0, 1_000_000],
            vec![u32::MAX, 1, 1],
            [vec![1; 100], vec![100_000; 41]].concat(),
        ] {
            let mut frequencies = Vec::new();
            normalise(counts.iter().copied(), &mut frequencies);
            assert_eq!(
                frequencies.iter().map(|&f| u32::from(f)).sum::<u32>(),
                SCALE
            );
            let used = counts.iter().any(|&n| n > 0);
            for (&count, &f) in counts.iter().zip(&frequencies) {
                assert!(!used || (count > 0) == (f > 0));
            }
            let mut writer = BitWriter::reusing(Vec::new());
            write_table(&mut writer, &frequencies);
            let (bytes, mut read) = (writer.finish(), Vec::new());
            read_table(&mut BitReader::new(&bytes), counts.len(), &mut read).unwrap();
            assert_eq!(read, frequencies);
        }
    }
}
