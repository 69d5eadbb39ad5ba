use crate::coding::bits::{BitReader, BitWriter};
use crate::coding::bytes::{ByteReader, put_varint};
use crate::error::{Error, Result};
use crate::simd::{self, Level, RowCodes};

use super::geometry::Geometry;
use super::{classes, tables};
use crate::value::token;

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
    /// How often each code comes.
    totals: Vec<u32>,
    per_row: Vec<u32>,
    /// The first code of each channel's class.
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

/// How often each code comes: in four parts, as counting the same code twice in
/// a row is slow.
#[derive(Debug, Default)]
pub(crate) struct Counts(Vec<[u32; 4]>);

impl Counts {
    /// Counts the codes of a `model`.
    pub(crate) fn fill(&mut self, model: &Model, codes: &[u16]) {
        self.0.clear();
        self.0.resize(model.tables() * model.alphabet(), [0; 4]);
        let counts = &mut self.0[..];
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
    }
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

    /// Chooses what shares statistics, by the symbols of all chunks, and by how
    /// many elements each row keeps.
    pub(crate) fn choose_classes<'a>(
        &mut self,
        geometry: &Geometry,
        planes: impl Iterator<Item = &'a [i8]>,
        per_row: impl Iterator<Item = &'a u32>,
        max_token: u8,
    ) {
        self.max_token = max_token;
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
        let width = geometry.width;
        self.per_row.clear();
        self.per_row.extend(per_row);
        classes::of_rows(&self.per_row, width, self.row_classes, &mut self.rows);
        let (channels, memory) = (&mut self.channels, &mut self.clusters);
        let rows = planes.flat_map(|plane| plane.chunks(width));
        let shape = (geometry.rows(), width);
        classes::of_channels(rows, shape, self.channel_classes, channels, memory);
        let mut channel_codes = std::mem::take(&mut self.channel_codes);
        channel_codes.clear();
        channel_codes.extend(self.channels.iter().map(|&class| self.first_code(0, class)));
        self.channel_codes = channel_codes;
    }

    /// The code of the first symbol in the table of a class for a neighbour of kind 0.
    fn first_code(&self, row_class: u8, channel_class: u8) -> u16 {
        (self.table(row_class, channel_class) * self.alphabet()) as u16
    }

    /// The codes of a chunk's elements: the number of an element's table times
    /// the alphabet, plus the rank of its symbol.
    pub(crate) fn codes(&self, first_row: usize, plane: &[i8], codes: &mut [u16]) {
        let width = self.channels.len();
        let rows = plane.chunks(width).zip(codes.chunks_mut(width));
        for (r, (symbols, codes)) in rows.enumerate() {
            let row = RowCodes {
                row: self.first_code(self.rows[first_row + r], 0),
                channels: &self.channel_codes,
                alphabet: self.alphabet() as u16,
            };
            let above = (r > 0 && self.uses_neighbours()).then(|| &plane[(r - 1) * width..]);
            simd::fill_codes(Level::best(), row, symbols, above, codes);
        }
    }

    /// Makes the counts of all chunks frequencies.
    pub(crate) fn choose_frequencies<'a>(&mut self, counts: impl Iterator<Item = &'a Counts>) {
        self.totals.clear();
        self.totals.resize(self.tables() * self.alphabet(), 0);
        for counts in counts {
            for (total, parts) in self.totals.iter_mut().zip(&counts.0) {
                *total += parts.iter().sum::<u32>();
            }
        }
        self.frequencies.clear();
        for totals in self
            .totals
            .chunks_exact(2 * usize::from(self.max_token) + 1)
        {
            tables::normalise(totals.iter().copied(), &mut self.frequencies);
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
impl Model {
    /// The model of a plane of symbols.
    pub(crate) fn of(geometry: &Geometry, plane: &[i8]) -> Self {
        let mut model = Self::default();
        let rows = plane.chunks(geometry.width);
        let kept = rows.map(|row| simd::count_nonzero(Level::SCALAR, row));
        let kept: Vec<u32> = kept.collect();
        let max_token = simd::max_magnitude(Level::SCALAR, plane);
        model.choose_classes(geometry, [plane].into_iter(), kept.iter(), max_token);
        let chunks = (0..geometry.chunks()).map(|index| {
            let elements = geometry.chunk(index);
            let (mut codes, mut counts) = (vec![0; elements.len()], Counts::default());
            let first_row = elements.start / geometry.width;
            model.codes(first_row, &plane[elements], &mut codes);
            counts.fill(&model, &codes);
            counts
        });
        let chunks: Vec<Counts> = chunks.collect();
        model.choose_frequencies(chunks.iter());
        model
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
        let plane: Vec<i8> = (0..64 * 50 - 7_u32)
            .map(|i| match i.wrapping_mul(0x9e37_79b9) >> 28 {
                kind @ 1..=2 => kind as i8 - 3,
                3 if i % 50 < 20 => 2,
                _ => 0,
            })
            .collect();
        let mut model = Model {
            channels: (0..50).map(|c| u8::from(c < 20)).collect(),
            rows: (0..70).map(|r| (r % 3) as u8).collect(),
            row_classes: 3,
            channel_classes: 2,
            neighbours: 3,
            max_token: 2,
            ..Model::default()
        };
        let channels = model.channels.iter();
        model.channel_codes = channels.map(|&class| model.first_code(0, class)).collect();
        let (mut codes, mut counts) = (vec![0; plane.len()], Counts::default());
        model.codes(6, &plane, &mut codes);
        counts.fill(&model, &codes);
        let mut expected = vec![0; 3 * 2 * 3 * 5];
        for (i, &s) in plane.iter().enumerate() {
            let above = if i < 50 { 0 } else { plane[i - 50] };
            let table = model.table(model.rows[6 + i / 50], model.channels[i % 50]) + kind(above);
            assert_eq!(usize::from(codes[i]), table * 5 + rank(s));
            expected[table * 5 + rank(s)] += 1;
        }
        let counts = counts.0.iter().map(|parts| parts.iter().sum::<u32>());
        assert!(counts.eq(expected));
    }
}
