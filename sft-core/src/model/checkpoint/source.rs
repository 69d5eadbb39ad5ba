//! The bytes of a file that stays open, or the same in memory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use candle_core::{Result as TensorResult, bail};

use crate::mapped::{MappedFile, MappedFloats};

/// Reading at a place was chosen over mapping the file: values of a mapping change with the file, which ends the
/// process when it is cut short. Files that are this program's own are mapped where
/// [`floats`](Self::floats) are asked for.
#[derive(Debug)]
pub(crate) enum Source {
    File {
        file: Mutex<File>,
        path: PathBuf,
        /// None where it cannot be mapped.
        mapped: OnceLock<Option<MappedFile>>,
    },
    Bytes(Vec<u8>),
}

impl Source {
    /// Opens a regular file: reading a pipe would wait for who writes into it.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        if !path.metadata().map_err(|e| e.to_string())?.is_file() {
            return Err("must be a regular file".into());
        }
        let file = File::open(path).map_err(|e| e.to_string())?;
        Ok(Self::File {
            file: Mutex::new(file),
            path: path.into(),
            mapped: OnceLock::new(),
        })
    }

    pub(super) fn len(&self) -> std::io::Result<u64> {
        match self {
            Self::File { file, .. } => Ok(lock(file).metadata()?.len()),
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// The bytes at a place, which are `what`.
    pub(super) fn read(&self, from: u64, len: usize, what: &str) -> TensorResult<Vec<u8>> {
        match self {
            Self::File { file, path, .. } => {
                let mut file = lock(file);
                let mut bytes = vec![0; len];
                let place = file.seek(SeekFrom::Start(from));
                let read = place.and_then(|_| file.read_exact(&mut bytes));
                match read {
                    Ok(()) => Ok(bytes),
                    Err(e) => bail!("{}: {what}: {e}", path.display()),
                }
            }
            Self::Bytes(bytes) => {
                let end = (from as usize).checked_add(len);
                let part = end.and_then(|end| bytes.get(from as usize..end));
                match part {
                    Some(part) => Ok(part.to_vec()),
                    None => bail!("{what}: the bytes end before it does"),
                }
            }
        }
    }

    /// The f32 in so many bytes at a place of a mapped file, where they can be used as they lie.
    pub(super) fn floats(&self, from: u64, bytes: usize) -> Option<MappedFloats> {
        let Self::File { file, mapped, .. } = self else {
            return None;
        };
        let mapped = mapped.get_or_init(|| MappedFile::new(&lock(file)).ok());
        mapped.as_ref()?.floats(from, bytes)
    }
}

fn lock(file: &Mutex<File>) -> std::sync::MutexGuard<'_, File> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}
