//! The rows that messages had last, for rows that are like one of them.

use crate::coding::adaptive::{Reader, Writer};
use crate::coding::bytes::{ByteReader, put_varint};
use crate::error::{Error, Result};
use crate::simd::{self, Level, Matrix};
use crate::transform::{Basis, Known, Models, Reference, Row};

/// What a row must save of its energy to name another.
const SAVING: f32 = 0.03;
/// Indices are remembered up to this, so that products of them stay finite.
const MOST: i32 = 1 << 15;

/// The rows of the last messages, `[n, K]`, the oldest first.
///
/// Those of a message that is not done come after `done` rows, and are forgotten if it fails. All
/// of it is integers, so that both sides hold the same.
#[derive(Clone, Debug, Default)]
pub(super) struct RowCache {
    limit: usize,
    channels: usize,
    /// Indices, as the numbers that products are made of.
    rows: Vec<f32>,
    energies: Vec<f32>,
    done: usize,
    /// Of all rows since the beginning.
    checksum: u32,
    columns: Vec<f32>,
    products: Vec<f32>,
}

impl RowCache {
    /// A cache of as many rows as the basis says; of none, it remembers nothing.
    pub(super) fn new(basis: &Basis) -> Self {
        Self {
            limit: basis.cached_rows(),
            channels: basis.channels(),
            ..Self::default()
        }
    }

    pub(super) fn is_off(&self) -> bool {
        self.limit == 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.done == 0
    }

    pub(super) fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Rows that can be named after so many of a message.
    pub(super) fn known(&self, of_message: usize) -> usize {
        self.limit.min(self.done + of_message)
    }

    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.energies.clear();
        (self.done, self.checksum) = (0, 0);
    }

    /// Forgets the rows of a message that failed.
    pub(super) fn undo(&mut self) {
        self.rows.truncate(self.done * self.channels);
        self.energies.truncate(self.done);
    }

    /// Keeps the rows of a message, and as many before as there is room for.
    pub(super) fn commit(&mut self) {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.checksum.to_le_bytes());
        for x in &self.rows[self.done * self.channels..] {
            hasher.update(&x.to_le_bytes());
        }
        self.checksum = hasher.finalize();
        let surplus = self.energies.len().saturating_sub(self.limit);
        // Seldom, so that a row is moved once on average.
        if surplus >= self.limit {
            self.rows.drain(..surplus * self.channels);
            self.energies.drain(..surplus);
        }
        self.done = self.energies.len();
    }

    /// Adds rows `[S, K]` of a message.
    pub(super) fn push(&mut self, rows: &[i32]) {
        if self.is_off() {
            return;
        }
        for row in rows.chunks_exact(self.channels) {
            let row = row.iter().map(|&index| index.clamp(-MOST, MOST) as f32);
            self.energies.push(row.clone().map(|x| x * x).sum());
            self.rows.extend(row);
        }
    }

    /// What rows `[S, K]` are expected to be by those that they name.
    pub(super) fn predict(&self, rows: &[Row], expected: &mut [i32]) -> Result<()> {
        let each = rows
            .iter()
            .zip(expected.chunks_exact_mut(self.channels.max(1)));
        for (row, expected) in each {
            let Some(Reference { back, quarters }) = row.reference else {
                continue;
            };
            let Some(at) = self.energies.len().checked_sub(back + 1) else {
                return Err(Error::corrupt("a row that is not remembered"));
            };
            let named = &self.rows[at * self.channels..];
            for (index, &x) in expected.iter_mut().zip(named) {
                // Halves of quarters away from zero, so that the sign does not matter.
                let magnitude = (x.abs() as u32 * quarters + 2) / 4;
                *index = (magnitude.cast_signed()) * if x < 0.0 { -1 } else { 1 };
            }
        }
        Ok(())
    }

    /// The best row to name for each row of coefficients in steps, `[S, K]`.
    pub(super) fn search(&mut self, steps: &[f32]) -> Vec<Option<Reference>> {
        let (count, wanted) = (
            self.energies.len().min(self.limit),
            steps.len() / self.channels,
        );
        if count == 0 {
            return vec![None; wanted];
        }
        // Whole blocks of columns are faster.
        let wide = wanted.next_multiple_of(8);
        self.columns.clear();
        self.columns.resize(self.channels * wide, 0.0);
        for (row, steps) in steps.chunks_exact(self.channels).enumerate() {
            for (channel, &x) in steps.iter().enumerate() {
                self.columns[channel * wide + row] = x;
            }
        }
        self.products.resize(count * wide, 0.0);
        let first = self.energies.len() - count;
        let rows = Matrix {
            values: &self.rows[first * self.channels..],
            stride: self.channels,
        };
        let columns = Matrix {
            values: &self.columns,
            stride: wide,
        };
        let (level, depth) = (Level::best(), self.channels);
        simd::product(level, rows, depth, columns, wide, &mut self.products);
        let each = steps.chunks_exact(self.channels).enumerate();
        each.map(|(row, steps)| self.best(steps, row, wide, first))
            .collect()
    }

    fn best(&self, steps: &[f32], row: usize, wide: usize, first: usize) -> Option<Reference> {
        let mut least = -SAVING * steps.iter().map(|x| x * x).sum::<f32>();
        let mut found = None;
        let products = self
            .products
            .chunks_exact(wide)
            .map(|products| products[row]);
        for (at, (product, energy)) in products.zip(&self.energies[first..]).enumerate() {
            for quarters in 2..=4_u32 {
                let factor = quarters as f32 / 4.0;
                let change = factor * (factor * energy - 2.0 * product);
                if change < least {
                    let back = self.energies.len() - first - 1 - at;
                    (least, found) = (change, Some(Reference { back, quarters }));
                }
            }
        }
        found
    }

    /// Rows that can be named, coded as the rows of a sample.
    pub(super) fn save(&self, basis: &Basis, out: &mut Vec<u8>) -> Result<()> {
        let count = self.known(0);
        put_varint(out, count as u64);
        let first = (self.energies.len() - count) * self.channels;
        let mut indices: Vec<i32> = self.rows[first..].iter().map(|&x| x as i32).collect();
        let (mut rows, mut coded) = (vec![Row::default(); count], Vec::new());
        let mut writer = Writer::new(&mut coded);
        Models::new().code(&mut writer, basis, &mut indices, &mut rows, Known::Nothing)?;
        writer.finish();
        put_varint(out, coded.len() as u64);
        out.extend(coded);
        out.extend(self.checksum.to_le_bytes());
        Ok(())
    }

    /// The cache that [`save`](Self::save) wrote.
    pub(super) fn restored(&self, basis: &Basis, state: &mut ByteReader<'_>) -> Result<Self> {
        let mut cache = Self::new(basis);
        let count = state.varint_up_to(self.limit, "the number of rows")?;
        let bytes = state.varint_up_to(state.remaining(), "the length of rows")?;
        // A row is at least a bit of a decision, of 2^-7 bits at best.
        if count > 64 + 1024 * bytes {
            return Err(Error::corrupt(format!("{count} rows of {bytes} bytes")));
        }
        let (mut indices, mut rows) = (vec![0; count * self.channels], vec![Row::default(); count]);
        let mut reader = Reader::new(state.take(bytes)?);
        Models::new().code(&mut reader, basis, &mut indices, &mut rows, Known::Nothing)?;
        cache.push(&indices);
        cache.done = count;
        cache.checksum = state.u32()?;
        Ok(cache)
    }
}
