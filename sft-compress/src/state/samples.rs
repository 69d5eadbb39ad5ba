use std::collections::{BTreeMap, HashMap};

use super::SampleId;
use crate::coding::adaptive::{Reader, Writer};
use crate::coding::bytes::{ByteReader, put_varint};
use crate::error::{Error, Result};
use crate::transform::{Basis, Known, Models, Row};

/// The indices that samples had last, coded, the oldest forgotten first beyond so many bytes.
///
/// Both sides of a stream hold the same, as both see the same messages: all of it is integers.
#[derive(Clone, Debug, Default)]
pub(super) struct SampleMemory {
    limit_bytes: usize,
    used_bytes: usize,
    entries: HashMap<SampleId, Entry>,
    /// Samples by when they were remembered.
    by_age: BTreeMap<u64, SampleId>,
    next_age: u64,
    evicted: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    age: u64,
    /// Indices, `[S, K]`.
    len: usize,
    checksum: u32,
    coded: Vec<u8>,
}

/// What an entry takes beside its bytes.
const ENTRY_BYTES: usize = 128;

impl SampleMemory {
    /// A memory of so many bytes; of none, it remembers nothing.
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            ..Self::default()
        }
    }

    pub(super) fn is_off(&self) -> bool {
        self.limit_bytes == 0
    }

    /// Bytes in use.
    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// Samples that were forgotten for want of room.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.limit_bytes);
    }

    /// The checksum of a sample's indices, if it has as many.
    pub(super) fn checksum(&self, sample: SampleId, len: usize) -> Option<u32> {
        let entry = self.entries.get(&sample)?;
        (entry.len == len).then_some(entry.checksum)
    }

    /// The indices of a sample that has some, and its rows.
    pub(super) fn read(
        &self,
        basis: &Basis,
        sample: SampleId,
        out: &mut [i32],
        rows: &mut [Row],
    ) -> Result<()> {
        let Some(entry) = self.entries.get(&sample) else {
            return Err(Error::corrupt("a sample that is not remembered"));
        };
        decode(basis, &entry.coded, out, rows)
    }

    /// Remembers the indices of a sample in place of earlier ones.
    pub(super) fn keep(
        &mut self,
        basis: &Basis,
        sample: SampleId,
        indices: &mut [i32],
        rows: &mut [Row],
    ) -> Result<()> {
        if indices.is_empty() {
            return Ok(());
        }
        let mut coded = Vec::new();
        let mut writer = Writer::new(&mut coded);
        for row in &mut *rows {
            row.reference = None;
        }
        Models::new().code(&mut writer, basis, indices, rows, Known::Nothing)?;
        writer.finish();
        coded.shrink_to_fit();
        self.insert(sample, indices, coded);
        Ok(())
    }

    fn insert(&mut self, sample: SampleId, indices: &[i32], coded: Vec<u8>) {
        let age = self.next_age;
        self.next_age += 1;
        self.used_bytes += coded.len() + ENTRY_BYTES;
        let entry = Entry {
            age,
            len: indices.len(),
            checksum: checksum(indices),
            coded,
        };
        self.by_age.insert(age, sample);
        if let Some(old) = self.entries.insert(sample, entry) {
            self.by_age.remove(&old.age);
            self.used_bytes -= old.coded.len() + ENTRY_BYTES;
        }
        while self.used_bytes > self.limit_bytes {
            let Some((_, oldest)) = self.by_age.pop_first() else {
                break;
            };
            if let Some(old) = self.entries.remove(&oldest) {
                self.used_bytes -= old.coded.len() + ENTRY_BYTES;
                self.evicted += 1;
            }
        }
    }

    /// Every sample with its indices, the oldest first.
    pub(super) fn save(&self, out: &mut Vec<u8>) {
        put_varint(out, self.entries.len() as u64);
        for sample in self.by_age.values() {
            if let Some(entry) = self.entries.get(sample) {
                out.extend(sample.to_le_bytes());
                put_varint(out, entry.len as u64);
                put_varint(out, entry.coded.len() as u64);
                out.extend(&entry.coded);
            }
        }
    }

    /// The memory that [`save`](Self::save) wrote.
    pub(super) fn restored(&self, basis: &Basis, state: &mut ByteReader<'_>) -> Result<Self> {
        /// Indices of a sample that a state may claim.
        const MOST: usize = 1 << 24;
        let mut memory = Self::new(self.limit_bytes);
        let count = state.varint_up_to(state.remaining(), "the number of samples")?;
        let (mut indices, mut rows) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let sample = u64::from(state.u32()?) | u64::from(state.u32()?) << 32;
            let len = state.varint_up_to(MOST, "the indices of a sample")?;
            let bytes = state.varint_up_to(state.remaining(), "the length of a sample")?;
            let coded = state.take(bytes)?;
            let tokens = len / basis.channels();
            let fits = len > 0 && len.is_multiple_of(basis.channels());
            if !fits || basis.tokens().check(tokens).is_err() {
                return Err(Error::corrupt(format!("a sample of {len} indices")));
            }
            indices.clear();
            indices.resize(len, 0);
            rows.resize(len / basis.channels(), Row::default());
            decode(basis, coded, &mut indices, &mut rows)?;
            memory.insert(sample, &indices, coded.to_vec());
        }
        Ok(memory)
    }
}

fn decode(basis: &Basis, coded: &[u8], out: &mut [i32], rows: &mut [Row]) -> Result<()> {
    out.fill(0);
    rows.fill(Row::default());
    Models::new().code(&mut Reader::new(coded), basis, out, rows, Known::Nothing)
}

/// Of the indices of a sample.
fn checksum(indices: &[i32]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let mut bytes = [0; 1024];
    for part in indices.chunks(bytes.len() / 4) {
        for (bytes, index) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(part) {
            *bytes = index.to_le_bytes();
        }
        hasher.update(&bytes[..4 * part.len()]);
    }
    hasher.finalize()
}
