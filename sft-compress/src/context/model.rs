use crate::bits::{BitReader, BitWriter};
use crate::bytes::{ByteReader, put_varint};
use crate::error::{Error, Result};

use super::classes;
use super::geometry::Geometry;
use super::token;

/// Frequencies of a table add up to 2 to this power.
pub(crate) const SCALE_BITS: u32 = 12;
pub(crate) const SCALE: u32 = 1 << SCALE_BITS;
/// A table for fewer elements than this would not pay.
const ELEMENTS_PER_TABLE: usize = 1 << 10;

/// The statistics of the symbols: a table of frequencies for each class of
/// row, class of channel, and sign of the neighbour in the row before.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// The class of each row.
    pub(crate) rows: Vec<u8>,
    /// The class of each channel.
    pub(crate) channels: Vec<u8>,
    row_classes: usize,
    channel_classes: usize,
    /// 3 if a table depends on the neighbour, else 1.
    neighbours: usize,
    pub(crate) max_token: u8,
    /// By table and [`rank`] of the symbol; those of a table add up to [`SCALE`].
    pub(crate) frequencies: Vec<u16>,
    /// What [`choose`](Self::choose) counts in.
    counts: Vec<u32>,
    totals: Vec<u32>,
    per_row: Vec<u32>,
}

/// The symbols in the order of their slots: 0, 1, −1, 2, −2, …
#[inline]
pub(crate) fn rank(symbol: i8) -> usize {
    let doubled = 2 * i32::from(symbol);
    (if symbol > 0 { doubled - 1 } else { -doubled }) as usize
}

/// The symbol of a rank.
pub(crate) fn symbol(rank: usize) -> i8 {
    let magnitude = rank.div_ceil(2) as i8;
    if rank % 2 == 1 { magnitude } else { -magnitude }
}

/// The kind of a neighbour: zero, positive or negative.
#[inline]
pub(crate) fn kind(symbol: i8) -> usize {
    usize::from(symbol > 0) | usize::from(symbol < 0) << 1
}

/// The kept elements: ascending positions with a symbol each.
#[derive(Clone, Copy)]
pub(crate) struct Kept<'a> {
    pub(crate) positions: &'a [u32],
    pub(crate) symbols: &'a [i8],
}

impl Model {
    /// Ranks of symbols there are.
    pub(crate) fn alphabet(&self) -> usize {
        2 * usize::from(self.max_token) + 1
    }

    fn tables(&self) -> usize {
        self.row_classes * self.channel_classes * self.neighbours
    }

    /// The table of row class and channel class for a neighbour of kind 0.
    #[inline]
    pub(crate) fn table(&self, row_class: u8, channel_class: u8) -> usize {
        (usize::from(row_class) * self.channel_classes + usize::from(channel_class))
            * self.neighbours
    }

    pub(crate) fn uses_neighbours(&self) -> bool {
        self.neighbours == 3
    }

    /// Fits the model to the `kept` elements, of which `plane` has all symbols.
    pub(crate) fn choose(
        &mut self,
        geometry: &Geometry,
        kept: Kept<'_>,
        plane: &[i8],
        starts: &mut Vec<u32>,
    ) {
        let width = geometry.width;
        row_starts(geometry, kept.positions, starts);
        (self.row_classes, self.channel_classes, self.neighbours) = match geometry.elements {
            0..0x1000 => (1, 1, 1),
            0x1000..0x2000 => (1, 1, 3),
            0x2000..0x4000 => (1, 2, 3),
            0x4000..0x8000 => (2, 2, 3),
            0x8000..0x1_0000 => (2, 4, 3),
            0x1_0000..0x2_0000 => (4, 4, 3),
            _ => (4, 8, 3),
        };
        if geometry.rows() < 32 {
            (self.row_classes, self.channel_classes) = (1, 1);
        }
        let largest = kept
            .symbols
            .iter()
            .map(|symbol| symbol.unsigned_abs())
            .max();
        self.max_token = largest.unwrap_or(1).max(1);

        self.per_row.clear();
        self.per_row
            .extend(starts.windows(2).map(|pair| pair[1] - pair[0]));
        classes::of_rows(&self.per_row, width, self.row_classes, &mut self.rows);
        let row = |r: usize| {
            let range = starts[r] as usize..starts[r + 1] as usize;
            (&kept.positions[range.clone()], &kept.symbols[range])
        };
        let rows = geometry.rows();
        classes::of_channels(rows, width, self.channel_classes, row, &mut self.channels);
        self.count(geometry, kept, plane, starts);
        self.normalise();
    }

    /// Counts the symbols of each table, looking only at the kept elements.
    fn count(&mut self, geometry: &Geometry, kept: Kept<'_>, plane: &[i8], starts: &[u32]) {
        let (width, alphabet) = (geometry.width, self.alphabet());
        self.counts.clear();
        self.counts.resize(self.tables() * alphabet, 0);
        self.totals.clear();
        self.totals.resize(self.tables(), 0);
        self.count_elements(geometry);
        for (r, pair) in starts.windows(2).enumerate() {
            let start = r * width;
            let row_class = self.rows[r];
            let first = start.is_multiple_of(geometry.chunk_len);
            let next_class = self
                .rows
                .get(r + 1)
                .filter(|_| !(start + width).is_multiple_of(geometry.chunk_len));
            for k in pair[0] as usize..pair[1] as usize {
                let (position, symbol) = (kept.positions[k] as usize, kept.symbols[k]);
                let channel = self.channels[position - start];
                let mut table = self.table(row_class, channel);
                if self.neighbours == 3 {
                    if !first {
                        table += kind(plane[position - width]);
                    }
                    if let Some(&next) = next_class
                        && position + width < geometry.elements
                    {
                        let below = self.table(next, channel);
                        self.totals[below] -= 1;
                        self.totals[below + kind(symbol)] += 1;
                    }
                }
                self.counts[table * alphabet + rank(symbol)] += 1;
            }
        }
        for (table, &total) in self.counts.chunks_exact_mut(alphabet).zip(&self.totals) {
            table[0] = total - table.iter().sum::<u32>();
        }
    }

    /// Adds every element to the total of its classes, as if all neighbours were zero.
    fn count_elements(&mut self, geometry: &Geometry) {
        let count = |channels: &[u8]| {
            let mut counts = [0; 16];
            for &class in channels {
                counts[usize::from(class)] += 1;
            }
            counts
        };
        let (whole, rest) = (
            geometry.elements / geometry.width,
            geometry.elements % geometry.width,
        );
        let (all, last) = (count(&self.channels), count(&self.channels[..rest]));
        for (r, &row_class) in self.rows.iter().enumerate() {
            let counts = if r < whole { &all } else { &last };
            for (class, &count) in (0..self.channel_classes as u8).zip(counts) {
                let table = self.table(row_class, class);
                self.totals[table] += count;
            }
        }
    }

    fn normalise(&mut self) {
        self.frequencies.clear();
        for counts in self.counts.chunks_exact(self.alphabet()) {
            normalise(counts, &mut self.frequencies);
        }
    }

    /// Appends the classes and the tables. `bits` is memory to work in.
    pub(crate) fn write(&self, out: &mut Vec<u8>, bits: &mut Vec<u8>) {
        out.extend([self.row_classes, self.channel_classes, self.neighbours].map(|n| n as u8));
        out.push(self.max_token);
        let mut writer = BitWriter::reusing(std::mem::take(bits));
        write_classes(&mut writer, &self.rows, self.row_classes);
        write_classes(&mut writer, &self.channels, self.channel_classes);
        for table in self.frequencies.chunks_exact(self.alphabet()) {
            write_table(&mut writer, table);
        }
        *bits = writer.finish();
        put_varint(out, bits.len() as u64);
        out.extend_from_slice(bits);
    }

    /// Reads what [`write`](Self::write) appended.
    pub(crate) fn read(&mut self, body: &mut ByteReader<'_>, geometry: &Geometry) -> Result<()> {
        let [rows, channels, neighbours, max_token] =
            [body.u8()?, body.u8()?, body.u8()?, body.u8()?];
        let tables = usize::from(rows) * usize::from(channels) * usize::from(neighbours);
        if !(1..=16).contains(&rows)
            || !(1..=16).contains(&channels)
            || !matches!(neighbours, 1 | 3)
            || !(1..=token::MAX).contains(&max_token)
            || tables > (geometry.elements / ELEMENTS_PER_TABLE).max(1)
        {
            return Err(Error::corrupt(format!(
                "a model of {rows} x {channels} x {neighbours} tables of {max_token} tokens"
            )));
        }
        (self.row_classes, self.channel_classes) = (rows.into(), channels.into());
        (self.neighbours, self.max_token) = (neighbours.into(), max_token);
        let len = body.varint_up_to(body.remaining(), "the length of the model")?;
        let mut bits = BitReader::new(body.take(len)?);
        read_classes(&mut bits, geometry.rows(), self.row_classes, &mut self.rows)?;
        read_classes(
            &mut bits,
            geometry.width,
            self.channel_classes,
            &mut self.channels,
        )?;
        self.frequencies.clear();
        for _ in 0..tables {
            read_table(&mut bits, self.alphabet(), &mut self.frequencies)?;
        }
        bits.finish()
    }
}

/// Where the kept elements of each row start, and their number behind the last.
fn row_starts(geometry: &Geometry, positions: &[u32], starts: &mut Vec<u32>) {
    starts.clear();
    let mut next = 0;
    for row in 0..geometry.rows() {
        starts.push(next as u32);
        let end = (row + 1) * geometry.width;
        while positions.get(next).is_some_and(|&p| (p as usize) < end) {
            next += 1;
        }
    }
    starts.push(next as u32);
}

/// Scales counts to frequencies that add up to [`SCALE`] and stay positive
/// where the count is; an unused table expects zero.
///
/// Each is rounded to the nearest integer. What that leaves over or lacks in
/// the sum falls on the largest, where it costs least.
fn normalise(counts: &[u32], out: &mut Vec<u16>) {
    let start = out.len();
    let total = counts.iter().map(|&n| u64::from(n)).sum::<u64>();
    out.extend(counts.iter().map(|&count| {
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

fn write_classes(out: &mut BitWriter, of: &[u8], classes: usize) {
    let bits = class_bits(classes);
    for &class in of {
        out.write(class.into(), bits);
    }
}

fn read_classes(
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
fn write_table(out: &mut BitWriter, table: &[u16]) {
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

fn read_table(bits: &mut BitReader<'_>, alphabet: usize, out: &mut Vec<u16>) -> Result<()> {
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
    fn ranks_number_all_symbols() {
        for (expected, s) in [0, 1, -1, 2, -2, 3].into_iter().enumerate() {
            assert_eq!((rank(s), symbol(expected)), (expected, s));
        }
        for s in -70..=70 {
            assert_eq!(symbol(rank(s)), s);
        }
    }

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
            normalise(&counts, &mut frequencies);
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

    #[test]
    fn sparse_counting_equals_counting_every_element() {
        let geometry = Geometry {
            elements: 64 * 50 - 7,
            row_len: 50,
            width: 50,
            chunk_len: 50 * 20,
            lanes: 1,
        };
        let plane: Vec<i8> = (0..geometry.elements as u32)
            .map(|i| match i.wrapping_mul(0x9e37_79b9) >> 28 {
                kind @ 1..=2 => kind as i8 - 3,
                3 if i % 50 < 20 => 2,
                _ => 0,
            })
            .collect();
        let (positions, symbols): (Vec<u32>, Vec<i8>) =
            (0..).zip(&plane).filter(|(_, s)| **s != 0).unzip();
        let kept = Kept {
            positions: &positions,
            symbols: &symbols,
        };
        let mut model = Model {
            channels: (0..50).map(|c| u8::from(c < 20)).collect(),
            rows: (0..64).map(|r| (r % 3) as u8).collect(),
            row_classes: 3,
            channel_classes: 2,
            neighbours: 3,
            max_token: 2,
            ..Model::default()
        };
        let mut starts = Vec::new();
        row_starts(&geometry, &positions, &mut starts);
        model.count(&geometry, kept, &plane, &starts);
        let mut expected = vec![0; model.counts.len()];
        for (i, &s) in plane.iter().enumerate() {
            let above = if i % geometry.chunk_len < 50 {
                0
            } else {
                plane[i - 50]
            };
            let table = model.table(model.rows[i / 50], model.channels[i % 50]) + kind(above);
            expected[table * 5 + rank(s)] += 1;
        }
        assert_eq!(model.counts, expected);
    }
}
