//! CIFAR-100 in its official binary and Python layouts.

use std::path::{Path, PathBuf};

use super::input::ImageInput;
use super::memory::Images;
use super::pickle::PIXELS;
use crate::{Error, Result};

/// Number of fine classes.
pub const CIFAR100_CLASSES: usize = 100;

const SIDE: usize = 32;
/// Coarse label, fine label, then the planes R, G, B.
const RECORD: usize = 2 + PIXELS;

/// Reads the files `train` and `test` of the Python layout where `dir` has them, else the one
/// `train*.bin` and the one `test*.bin` of the binary layout; with fine labels.
///
/// # Errors
/// A folder without exactly one file of each kind, a file whose size is no
/// positive multiple of a record, a label out of range, or a model that does
/// not take three channels.
pub fn cifar100(dir: &Path, input: &ImageInput) -> Result<(Images, Images)> {
    if input.mean.len() != 3 {
        let channels = input.mean.len();
        return Err(Error::file(
            dir,
            format!("cifar100 has 3 channels, the model {channels}"),
        ));
    }
    let set = |stem: &str| {
        let pickled = dir.join(stem);
        if pickled.is_file() {
            let (pixels, labels) = super::pickle::read(&pickled)?;
            return images(&pickled, pixels, labels, input);
        }
        let path = find(dir, stem)?;
        let (pixels, labels) = read(&path)?;
        images(&path, pixels, labels, input)
    };
    Ok((set("train")?, set("test")?))
}

fn images(path: &Path, pixels: Vec<u8>, labels: Vec<u32>, input: &ImageInput) -> Result<Images> {
    Images::new(
        pixels,
        labels,
        CIFAR100_CLASSES,
        SIDE,
        u8::MAX,
        input.clone(),
    )
    .map_err(|e| Error::file(path, e))
}

fn find(dir: &Path, stem: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(dir).map_err(|e| Error::file(dir, e))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::file(dir, e))?.path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        let binary = path.extension().is_some_and(|ending| ending == "bin");
        if name.starts_with(stem) && binary && path.is_file() {
            found.push(path);
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        n => Err(Error::file(
            dir,
            format!("expected one {stem}*.bin, found {n}"),
        )),
    }
}

fn read(path: &Path) -> Result<(Vec<u8>, Vec<u32>)> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
        let size = bytes.len();
        return Err(Error::file(
            path,
            format!("not a CIFAR-100 file: {size} bytes are no multiple of a record's {RECORD}"),
        ));
    }
    let mut pixels = Vec::with_capacity(bytes.len() / RECORD * PIXELS);
    let mut labels = Vec::with_capacity(bytes.len() / RECORD);
    for (i, record) in bytes.chunks_exact(RECORD).enumerate() {
        let (coarse, fine) = (record[0], record[1]);
        if coarse >= 20 || usize::from(fine) >= CIFAR100_CLASSES {
            return Err(Error::file(
                path,
                format!(
                    "labels {coarse}, {fine} of image {i} are out of range 0..20, 0..100: \
                     not a CIFAR-100 file"
                ),
            ));
        }
        labels.push(u32::from(fine));
        pixels.extend_from_slice(&record[2..]);
    }
    Ok((pixels, labels))
}
