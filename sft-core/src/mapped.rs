//! Numbers where a file has them: mapped into memory, not read.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Result;
use std::sync::Arc;

use memmap2::Mmap;

/// A file's contents as the system maps them; cloning shares the mapping. Pages come from the file when
/// they are read, all processes that map it share them, and the system takes them back when memory is
/// short.
///
/// The file must stay as it is: values would change with it, and where it is cut short the system ends a
/// process that reads behind its end.
#[derive(Clone, Debug)]
pub(crate) struct MappedFile(Arc<Mmap>);

/// Some of a mapped file's numbers.
#[derive(Clone, Debug)]
pub(crate) struct MappedFloats {
    file: MappedFile,
    from: usize,
    bytes: usize,
}

impl MappedFile {
    /// Maps a file that this program wrote and only ever replaces as a whole.
    pub(crate) fn new(file: &File) -> Result<Self> {
        // SAFETY: nobody writes into the file, which the caller promises.
        let map = unsafe { Mmap::map(file) }?;
        Ok(Self(Arc::new(map)))
    }

    /// The little-endian f32 in so many bytes at a place; none where this machine cannot read them as
    /// they lie.
    pub(crate) fn floats(&self, from: u64, bytes: usize) -> Option<MappedFloats> {
        let from = usize::try_from(from).ok()?;
        let place = self.0.get(from..from.checked_add(bytes)?)?;
        floats(place).filter(|_| cfg!(target_endian = "little"))?;
        Some(MappedFloats {
            file: self.clone(),
            from,
            bytes,
        })
    }
}

impl MappedFloats {
    pub(crate) fn as_slice(&self) -> &[f32] {
        floats(&self.file.0[self.from..][..self.bytes]).unwrap_or_default()
    }

    /// Takes in the numbers that follow these in the file; whether `others` are those.
    pub(crate) fn join(&mut self, others: &Self) -> bool {
        let file = Arc::ptr_eq(&self.file.0, &others.file.0);
        let follow = file && self.from + self.bytes == others.from;
        if follow {
            self.bytes += others.bytes;
        }
        follow
    }

    /// Gives the memory of the pages back, where the system can: they come anew from the file, or from what
    /// the system keeps of it, when they are read again.
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the mapping is shared and nobody writes, so pages come back as they were.
            let released = unsafe {
                self.file
                    .0
                    .unchecked_advise_range(advice, self.from, self.bytes)
            };
            // What is not given back is only kept for longer.
            let _ = released;
        }
    }
}

/// Bytes as f32, where they lie as those must.
fn floats(bytes: &[u8]) -> Option<&[f32]> {
    // SAFETY: any four bytes are a valid f32.
    let (before, floats, behind) = unsafe { bytes.align_to::<f32>() };
    (before.is_empty() && behind.is_empty()).then_some(floats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_file_where_they_are_aligned() {
        let path = std::env::temp_dir().join(format!("sft-mapped-{}", std::process::id()));
        let values = [1.5f32, -2.0, 0.25];
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        std::fs::write(&path, bytes).unwrap();
        let file = MappedFile::new(&File::open(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        let floats = |from, bytes| {
            let floats = file.floats(from, bytes);
            floats.map(|floats| floats.as_slice().to_vec())
        };
        if cfg!(target_endian = "little") {
            assert_eq!(floats(4, 8), Some(values[1..].to_vec()));
            let mut two = file.floats(0, 8).unwrap();
            assert!(!two.join(&file.floats(4, 8).unwrap()));
            assert!(two.join(&file.floats(8, 4).unwrap()));
            assert_eq!(two.as_slice(), values);
            two.release();
            assert_eq!(floats(0, 12), Some(values.to_vec()));
        }
        for (from, bytes) in [(2, 4), (0, 6), (8, 8), (u64::MAX, 4), (0, usize::MAX)] {
            assert_eq!(floats(from, bytes), None, "{bytes} bytes at {from}");
        }
    }
}
