//! Safetensors files, of which only the headers are kept.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path};
use std::sync::Arc;

use safetensors::tensor::Metadata;
use serde::Deserialize;

use super::source::Source;
use super::weight::{Form, Weight};
use crate::{Error, Result as CrateResult};

/// Bytes before the header: its length.
const LENGTH_BYTES: u64 = 8;

/// A safetensors file that stays open, or the same in memory.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    source: Source,
    header: Metadata,
    /// Where the tensors' bytes begin.
    start: u64,
}

impl Checkpoint {
    /// Opens a file and reads its header.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        Self::new(Source::open(path)?)
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
        let source = Arc::new(self.source);
        let weight = |name: String| {
            let info = self.header.info(&name)?;
            let (from, to) = info.data_offsets;
            let form = Form::Safetensors(info.dtype);
            let place = (self.start + from as u64, to - from);
            let weight = Weight::stored(source.clone(), &name, form, &info.shape, place);
            Some((name, weight))
        };
        let names = self.header.offset_keys().into_iter();
        names.filter_map(weight).collect()
    }
}

/// `model.safetensors.index.json`: which file has which tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The tensors of all files that an index beside them names.
///
/// # Errors
/// An index or a file that cannot be read, or a tensor that is not where the index says.
pub(crate) fn open_shards(index: &Path) -> CrateResult<Vec<(String, Weight)>> {
    let refused = |reason: String| Error::file(index, reason);
    let text = std::fs::read_to_string(index).map_err(|e| refused(e.to_string()))?;
    let map: Index = serde_json::from_str(&text).map_err(|e| refused(e.to_string()))?;
    let mut files: HashMap<&str, HashMap<String, Weight>> = HashMap::new();
    let mut weights = Vec::with_capacity(map.weight_map.len());
    for (name, file) in &map.weight_map {
        let parts: Vec<_> = Path::new(file).components().collect();
        if !matches!(parts[..], [Component::Normal(_)]) {
            return Err(refused(format!(
                "tensor {name} must be in a file beside it, got {file:?}"
            )));
        }
        if !files.contains_key(file.as_str()) {
            let path = index.with_file_name(file);
            let shard = Checkpoint::open(&path).map_err(|reason| Error::file(&path, reason))?;
            files.insert(file, shard.weights().into_iter().collect());
        }
        let found = files
            .get_mut(file.as_str())
            .and_then(|shard| shard.remove(name));
        let weight = found.ok_or_else(|| refused(format!("missing tensor {name} in {file}")))?;
        weights.push((name.clone(), weight));
    }
    let unnamed = files
        .iter()
        .find_map(|(file, shard)| Some((file, shard.keys().min()?)));
    match unnamed {
        Some((file, name)) => Err(refused(format!("does not name tensor {name} of {file}"))),
        None => Ok(weights),
    }
}
