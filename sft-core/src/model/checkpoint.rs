//! A safetensors file whose tensors are read when they are asked for.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Result as TensorResult, Tensor, bail};
use safetensors::tensor::{Metadata, TensorInfo};

/// Bytes before the header: its length.
const LENGTH_BYTES: u64 = 8;

/// A safetensors file that stays open, or the same in memory.
///
/// Only its header is kept. Reading at a place was chosen over mapping the file: pages of a mapping
/// count as this process's memory once they were read, and end it when the file is cut short.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    source: Source,
    header: Metadata,
    /// Where the tensors' bytes begin.
    start: u64,
}

#[derive(Debug)]
enum Source {
    File(Mutex<File>, PathBuf),
    Bytes(Vec<u8>),
}

impl Source {
    fn len(&self) -> std::io::Result<u64> {
        match self {
            Self::File(file, _) => Ok(lock(file).metadata()?.len()),
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// The bytes at a place, which are `what`.
    fn read(&self, from: u64, len: usize, what: &str) -> TensorResult<Vec<u8>> {
        match self {
            Self::File(file, path) => {
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
}

fn lock(file: &Mutex<File>) -> std::sync::MutexGuard<'_, File> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Checkpoint {
    /// Opens a file and reads its header.
    ///
    /// Nothing else is opened: reading a pipe would wait for who writes into it.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        if !path.metadata().map_err(|e| e.to_string())?.is_file() {
            return Err("must be a regular file".into());
        }
        let file = File::open(path).map_err(|e| e.to_string())?;
        Self::new(Source::File(Mutex::new(file), path.into()))
    }

    /// The same of a file's contents.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        Self::new(Source::Bytes(bytes.to_vec()))
    }

    fn new(source: Source) -> Result<Self, String> {
        let incomplete = |reason: &str| format!("not a complete safetensors file: {reason}");
        let all = source.len().map_err(|e| e.to_string())?;
        let read = |from, len| {
            let bytes = source.read(from, len, "the header");
            bytes.map_err(|e| incomplete(&e.to_string()))
        };
        let length = read(0, LENGTH_BYTES as usize)?;
        let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
        let start = length.saturating_add(LENGTH_BYTES);
        if start > all {
            return Err(incomplete(&format!(
                "the header has {length} bytes, the file {all}"
            )));
        }
        let header = read(LENGTH_BYTES, length as usize)?;
        let header: Metadata =
            serde_json::from_slice(&header).map_err(|e| incomplete(&format!("the header: {e}")))?;
        let data = header.data_len() as u64;
        if start + data != all {
            let held = all - start;
            return Err(incomplete(&format!(
                "the tensors have {data} bytes, the file {held}"
            )));
        }
        Ok(Self {
            source,
            header,
            start,
        })
    }

    /// Every tensor by its name, as weights that are read when they are asked for.
    pub(crate) fn weights(self) -> Vec<(String, Weight)> {
        let file = Arc::new(self);
        let names = file.header.offset_keys();
        let weight = |name: String| {
            let (file, info) = (file.clone(), file.header.info(&name)?.clone());
            Some((name, Weight(Place::Stored { file, info })))
        };
        names.into_iter().filter_map(weight).collect()
    }

    fn read(&self, info: &TensorInfo) -> TensorResult<Tensor> {
        let (from, to) = info.data_offsets;
        let what = format!("a tensor of shape {:?}", info.shape);
        let bytes = self
            .source
            .read(self.start + from as u64, to - from, &what)?;
        let dtype = DType::try_from(info.dtype)?;
        Tensor::from_raw_buffer(&bytes, dtype, &info.shape, &Device::Cpu)
    }
}

/// A tensor in memory, or in a file that it is read from when it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Weight(Place);

#[derive(Clone, Debug)]
enum Place {
    Memory(Tensor),
    Stored {
        file: Arc<Checkpoint>,
        info: TensorInfo,
    },
}

impl From<Tensor> for Weight {
    fn from(tensor: Tensor) -> Self {
        Self(Place::Memory(tensor))
    }
}

impl Weight {
    pub(crate) fn dims(&self) -> &[usize] {
        match &self.0 {
            Place::Memory(tensor) => tensor.dims(),
            Place::Stored { info, .. } => &info.shape,
        }
    }

    /// Its kind of number, and whether that is a float.
    pub(crate) fn dtype(&self) -> (String, bool) {
        match &self.0 {
            Place::Memory(tensor) => {
                let dtype = tensor.dtype();
                (format!("{dtype:?}"), dtype.is_float())
            }
            Place::Stored { info, .. } => {
                let float = DType::try_from(info.dtype).is_ok_and(|dtype| dtype.is_float());
                (format!("{:?}", info.dtype), float)
            }
        }
    }

    /// Three tensors of as many rows each; none where the rows are no multiple of three.
    pub(crate) fn thirds(&self) -> TensorResult<Option<[Self; 3]>> {
        let rows = self.dims().first().copied().unwrap_or(0);
        if rows == 0 || !rows.is_multiple_of(3) {
            return Ok(None);
        }
        let third = |i: usize| match &self.0 {
            Place::Memory(tensor) => {
                TensorResult::Ok(tensor.narrow(0, i * rows / 3, rows / 3)?.into())
            }
            Place::Stored { file, info } => {
                let (mut info, (from, to)) = (info.clone(), info.data_offsets);
                let len = (to - from) / 3;
                info.shape[0] = rows / 3;
                info.data_offsets = (from + i * len, from + (i + 1) * len);
                let file = file.clone();
                Ok(Self(Place::Stored { file, info }))
            }
        };
        Ok(Some([third(0)?, third(1)?, third(2)?]))
    }

    /// The tensor as f32; a variable stays one.
    pub(crate) fn load(&self) -> TensorResult<Tensor> {
        match &self.0 {
            Place::Memory(tensor) => tensor.to_dtype(DType::F32),
            Place::Stored { file, info } => file.read(info)?.to_dtype(DType::F32),
        }
    }
}
