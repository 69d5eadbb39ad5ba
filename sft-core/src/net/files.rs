//! A device's half of the model as files, told apart by their digests.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::PREFIX;
use crate::{Digest, Error, Result};

/// The file that the frozen weights are in.
pub(super) const WEIGHTS: &str = "model.safetensors";
/// Bytes of a part of a file in a message, which a piece has place for.
pub(super) const PART_BYTES: usize = 15 << 10;
/// What a half is at most believed to be.
const MAX_BYTES: u64 = 1 << 40;

/// A file of a half of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HalfFile {
    /// Its name in the folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// The [`Digest`] of its contents.
    pub digest: String,
}

impl HalfFile {
    /// Checks a file that someone else names.
    ///
    /// # Errors
    /// A name that leads out of a folder, a digest of another kind, or a length beyond belief.
    pub(super) fn check(&self) -> Result<()> {
        let parts: Vec<_> = Path::new(&self.name).components().collect();
        let plain = matches!(parts[..], [Component::Normal(name)] if name == self.name.as_str());
        let digits = self.digest.strip_prefix(PREFIX).unwrap_or_default();
        let digest = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if plain && !self.name.starts_with('.') && digest && self.bytes <= MAX_BYTES {
            return Ok(());
        }
        let (name, bytes) = (&self.name, self.bytes);
        Err(Error::protocol(format!(
            "named the file {name:?} of {bytes} bytes"
        )))
    }
}

/// The files of a folder, in the order of their names.
///
/// # Errors
/// A folder that cannot be read.
pub(super) fn files(folder: &Path) -> Result<Vec<HalfFile>> {
    let failed = |e| Error::file(folder, e);
    let mut paths = std::fs::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<Vec<_>, _>>()
        })
        .map_err(failed)?;
    paths.sort();
    let file = |path: &PathBuf| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        Ok(HalfFile {
            name: name.into(),
            bytes: path.metadata().map_err(failed)?.len(),
            digest: digest(path)?,
        })
    };
    paths.iter().map(file).collect()
}

/// The digest of a file, which is read a part at a time.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn digest(path: &Path) -> Result<String> {
    let mut digest = Digest::default();
    let mut part = vec![0; PART_BYTES];
    let mut file = File::open(path).map_err(|e| Error::file(path, e))?;
    loop {
        let count = file.read(&mut part).map_err(|e| Error::file(path, e))?;
        if count == 0 {
            return Ok(digest.to_string());
        }
        digest.raw(&part[..count]);
    }
}

/// A folder for the files of halves, each in a folder named by what it holds.
pub(super) struct Cache(PathBuf);

impl Cache {
    pub(super) fn new(folder: &Path) -> Self {
        Self(folder.into())
    }

    /// The folder for a half, made where it is not there.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub(super) fn folder(&self, files: &[HalfFile]) -> Result<PathBuf> {
        let mut all = Digest::default();
        for file in files {
            all.bytes(file.name.as_bytes());
            all.bytes(file.digest.as_bytes());
        }
        let name = all.to_string();
        let folder = self.0.join(name.strip_prefix(PREFIX).unwrap_or(&name));
        std::fs::create_dir_all(&folder).map_err(|e| Error::file(&folder, e))?;
        Ok(folder)
    }
}

/// The files that a folder does not have as they should be.
pub(super) fn missing<'f>(folder: &Path, files: &'f [HalfFile]) -> Vec<&'f HalfFile> {
    let differs = |file: &&HalfFile| {
        let path = folder.join(&file.name);
        let length = path.metadata().map(|data| data.len());
        length.ok() != Some(file.bytes) || digest(&path).ok().as_ref() != Some(&file.digest)
    };
    files.iter().filter(differs).collect()
}

/// A file on its way into a folder, which appears there whole or not at all.
pub(super) struct Incoming<'f> {
    file: &'f HalfFile,
    path: PathBuf,
    temporary: PathBuf,
    open: File,
    written: u64,
    digest: Digest,
}

impl<'f> Incoming<'f> {
    pub(super) fn new(folder: &Path, file: &'f HalfFile) -> Result<Self> {
        let path = folder.join(&file.name);
        let temporary = folder.join(format!(".{}.{}", file.name, std::process::id()));
        let open = File::create(&temporary).map_err(|e| Error::file(&temporary, e))?;
        Ok(Self {
            file,
            path,
            temporary,
            open,
            written: 0,
            digest: Digest::default(),
        })
    }

    /// Takes the next part; whether it was the last.
    ///
    /// # Errors
    /// A part of another place or beyond the end, or a full disk.
    pub(super) fn take(&mut self, offset: u64, bytes: &[u8]) -> Result<bool> {
        let end = self.written + bytes.len() as u64;
        if offset != self.written
            || end > self.file.bytes
            || (bytes.is_empty() && end < self.file.bytes)
        {
            let (name, all) = (&self.file.name, self.file.bytes);
            let reason = format!("sent bytes {offset} to {end} of {all} of {name}");
            return Err(Error::protocol(reason));
        }
        let wrote = self.open.write_all(bytes);
        wrote.map_err(|e| Error::file(&self.temporary, e))?;
        self.digest.raw(bytes);
        self.written = end;
        Ok(end == self.file.bytes)
    }

    /// Puts the whole file in its place.
    ///
    /// # Errors
    /// Contents of another digest, or a disk that fails.
    pub(super) fn finish(self) -> Result<()> {
        let (want, got) = (&self.file.digest, self.digest.to_string());
        if *want != got {
            let name = &self.file.name;
            return Err(Error::protocol(format!(
                "sent {name} with digest {got}, not {want}"
            )));
        }
        let kept = self
            .open
            .sync_all()
            .and_then(|()| std::fs::rename(&self.temporary, &self.path));
        kept.map_err(|e| Error::file(&self.path, e))
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        // Renamed away where it is whole.
        let _ = std::fs::remove_file(&self.temporary);
    }
}
