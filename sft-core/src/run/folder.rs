//! The folder that gets a run's files.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::checkpoint::{difference, saved_configuration};
use super::content::by_content;
use super::{RunConfig, RunFile, Scheme};
use crate::{Error, Result};

/// The file that a run holds locked in its folder while it goes on.
const LOCK: &str = ".run.lock";

/// A folder that can be written, holds no other run, and is this run's as long as this lives.
///
/// Dropping it removes the lock, and what was made and is still empty.
pub(super) struct Folder {
    path: PathBuf,
    /// Itself and its parents, as far as they were made for this run.
    made: Vec<PathBuf>,
    _lock: File,
}

impl Folder {
    /// Makes the folder that the configuration names, for a run on inputs of these contents.
    ///
    /// A folder with the files of a run of the same configuration and contents gets them anew; those
    /// of another are not touched, nor is anything while another run is in it.
    pub(super) fn make(
        path: &Path,
        config: &RunConfig,
        contents: &Map<String, Value>,
    ) -> Result<Self> {
        let new = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        let made = (path.ancestors().take_while(new))
            .map(Path::to_path_buf)
            .collect();
        let lock = std::fs::create_dir_all(path).and_then(|()| File::create(path.join(LOCK)));
        let lock = lock.map_err(|e| Error::file(path, e))?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            return Err(Error::file(path, "another run is writing to this folder"));
        }
        let folder = Self {
            path: path.into(),
            made,
            _lock: lock,
        };
        if config.resume.as_deref() != Some(path) {
            refuse_other_run(path, config, contents)?;
        }
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that holds something stays.
        let _ = std::fs::remove_file(self.path.join(LOCK));
        for folder in &self.made {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// The file of a scheme's checkpoint.
pub(super) fn checkpoint(folder: &Path, scheme: Scheme) -> PathBuf {
    folder.join(format!("checkpoint-{}.safetensors", scheme.name()))
}

fn refuse_other_run(
    folder: &Path,
    config: &RunConfig,
    contents: &Map<String, Value>,
) -> Result<()> {
    let run = folder.join(RunFile::NAME);
    if run.exists() {
        let ours = by_content(config.deciding(), contents);
        refuse(&run, difference(&saved_settings(&run)?, &ours))?;
    }
    let ours = by_content(config.deciding_rounds(), contents);
    for path in Scheme::ALL.map(|scheme| checkpoint(folder, scheme)) {
        if path.exists() {
            let theirs = saved_configuration(&path)?;
            refuse(&path, difference(&theirs, &ours))?;
        }
    }
    Ok(())
}

fn refuse(path: &Path, difference: Option<String>) -> Result<()> {
    let Some(difference) = difference else {
        return Ok(());
    };
    let reason = format!("{difference}; name another folder for this run, or remove that one");
    Err(Error::file(path, reason))
}

fn saved_settings(path: &Path) -> Result<Map<String, Value>> {
    let foreign = |error| match error {
        Error::File { path, reason } => Error::File {
            path,
            reason: format!("{reason}; name another folder for this run"),
        },
        other => other,
    };
    let run = RunFile::read(path).map_err(foreign)?;
    Ok(by_content(run.settings, &run.contents))
}
