use crate::bits::{BitReader, BitWriter};
use crate::bytes::{ByteReader, put_varint};
use crate::error::{Error, Result};
use crate::simd::{self, Level, RowCodes};

use super::geometry::Geometry;
use super::{classes, tables, token};

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
    counts: Vec<[u32; 4]>,
    per_row: Vec<u32>,
    channel_codes: Vec<u16>,
    clusters: classes::Memory,
}

/// The symbols in the order of their slots: 0, 1, −1, 2, −2, …
#[cfg(test)]
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

    /// Fits the model to the symbols of all elements and gives each its code,
    /// which is the number of its table times the alphabet, plus its rank.
    /// Returns how many symbols are not zero; nothing is fitted if none is.
    pub(crate) fn choose(
        &mut self,
        geometry: &Geometry,
        plane: &[i8],
        codes: &mut Vec<u16>,
    ) -> usize {
        let (level, width) = (Level::best(), geometry.width);
        self.per_row.clear();
        let rows = plane.chunks(width);
        self.per_row
            .extend(rows.map(|row| simd::count_nonzero(level, row)));
        let kept = self.per_row.iter().map(|&n| n as usize).sum();
        if kept == 0 {
            return 0;
        }
        self.max_token = simd::max_magnitude(level, plane);
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
        classes::of_rows(&self.per_row, width, self.row_classes, &mut self.rows);
        let (channels, memory) = (&mut self.channels, &mut self.clusters);
        classes::of_channels(plane, width, self.channel_classes, channels, memory);
        self.fill_codes(geometry, plane, codes);
        self.count(codes);
        kept
    }

    /// The code of each element.
    fn fill_codes(&mut self, geometry: &Geometry, plane: &[i8], codes: &mut Vec<u16>) {
        let (level, width, alphabet) = (Level::best(), geometry.width, self.alphabet());
        let mut channels = std::mem::take(&mut self.channel_codes);
        let first = |row, channel| (self.table(row, channel) * alphabet) as u16;
        channels.clear();
        channels.extend(self.channels.iter().map(|&class| first(0, class)));
        codes.resize(plane.len(), 0);
        let rows = plane.chunks(width).zip(codes.chunks_mut(width));
        for (r, (symbols, codes)) in rows.enumerate() {
            let row = RowCodes {
                row: first(self.rows[r], 0),
                channels: &channels,
                alphabet: alphabet as u16,
            };
            let has_above = self.neighbours == 3 && !(r * width).is_multiple_of(geometry.chunk_len);
            let above = has_above.then(|| &plane[(r - 1) * width..]);
            simd::fill_codes(level, row, symbols, above, codes);
        }
        self.channel_codes = channels;
    }

    /// Counts the codes and makes them frequencies.
    fn count(&mut self, codes: &[u16]) {
        let alphabet = self.alphabet();
        // In four parts, as counting the same code twice in a row is slow.
        self.counts.clear();
        self.counts.resize(self.tables() * alphabet, [0; 4]);
        let counts = &mut self.counts[..];
        let (fours, rest) = codes.as_chunks::<4>();
        for &[a, b, c, d] in fours {
            counts[usize::from(a)][0] += 1;
            counts[usize::from(b)][1] += 1;
            counts[usize::from(c)][2] += 1;
            counts[usize::from(d)][3] += 1;
        }
        for &code in rest {
            counts[usize::from(code)][0] += 1;
        }
        self.frequencies.clear();
        for counts in self.counts.chunks_exact(alphabet) {
            let sums = counts.iter().map(|parts| parts.iter().sum());
            tables::normalise(sums, &mut self.frequencies);
        }
    }

    /// Appends the classes and the tables. `bits` is memory to work in.
    pub(crate) fn write(&self, out: &mut Vec<u8>, bits: &mut Vec<u8>) {
        out.extend([self.row_classes, self.channel_classes, self.neighbours].map(|n| n as u8));
        out.push(self.max_token);
        let mut writer = BitWriter::reusing(std::mem::take(bits));
        tables::write_classes(&mut writer, &self.rows, self.row_classes);
        tables::write_classes(&mut writer, &self.channels, self.channel_classes);
        for table in self.frequencies.chunks_exact(self.alphabet()) {
            tables::write_table(&mut writer, table);
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
        tables::read_classes(&mut bits, geometry.rows(), self.row_classes, &mut self.rows)?;
        tables::read_classes(
            &mut bits,
            geometry.width,
            self.channel_classes,
            &mut self.channels,
        )?;
        self.frequencies.clear();
        for _ in 0..tables {
            tables::read_table(&mut bits, self.alphabet(), &mut self.frequencies)?;
        }
        bits.finish()
    }
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
    fn codes_tell_table_and_symbol() {
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
        let mut model = Model {
            channels: (0..50).map(|c| u8::from(c < 20)).collect(),
            rows: (0..64).map(|r| (r % 3) as u8).collect(),
            row_classes: 3,
            channel_classes: 2,
            neighbours: 3,
            max_token: 2,
            ..Model::default()
        };
        let mut codes = Vec::new();
        model.fill_codes(&geometry, &plane, &mut codes);
        let mut expected = vec![0; 3 * 2 * 3 * 5];
        for (i, &s) in plane.iter().enumerate() {
            let above = if i % geometry.chunk_len < 50 {
                0
            } else {
                plane[i - 50]
            };
            let table = model.table(model.rows[i / 50], model.channels[i % 50]) + kind(above);
            assert_eq!(usize::from(codes[i]), table * 5 + rank(s));
            expected[table * 5 + rank(s)] += 1;
        }
        model.count(&codes);
        let counts = model.counts.iter().map(|parts| parts.iter().sum::<u32>());
        assert!(counts.eq(expected));
    }
}
