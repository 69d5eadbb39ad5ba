//! The folder that gets a run's files.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::checkpoint::{difference, saved_configuration};
use super::{RunConfig, Scheme};
use crate::{Error, Result};

/// The file that tells what a run was and did.
const RUN: &str = "run.json";

/// A folder that can be written and holds no other run.
pub(super) struct Folder {
    /// Itself and its parents, as far as they were made for this run.
    made: Vec<PathBuf>,
}

impl Folder {
    /// Makes the folder that the configuration names, if it names one.
    ///
    /// A folder with the files of a run of the same configuration gets them anew; those of another
    /// are not touched.
    pub(super) fn make<'a>(
        config: &RunConfig,
        deciding_rounds: &dyn Fn() -> Result<&'a Map<String, Value>>,
    ) -> Result<Option<Self>> {
        let Some(path) = config.folder() else {
            return Ok(None);
        };
        if config.resume.as_deref() != Some(path) {
            refuse_other_run(path, config, deciding_rounds)?;
        }
        let new = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        let made = (path.ancestors().take_while(new))
            .map(Path::to_path_buf)
            .collect();
        let probe = path.join(format!(".probe.{}", std::process::id()));
        std::fs::create_dir_all(path)
            .and_then(|()| std::fs::write(&probe, b""))
            .and_then(|()| std::fs::remove_file(&probe))
            .map_err(|e| Error::file(path, e))?;
        Ok(Some(Self { made }))
    }

    /// Removes what was made and is still empty.
    pub(super) fn remove_if_empty(&self) {
        for folder in &self.made {
            // One that holds something stays.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// The file of a scheme's checkpoint.
pub(super) fn checkpoint(folder: &Path, scheme: Scheme) -> PathBuf {
    folder.join(format!("checkpoint-{}.safetensors", scheme.name()))
}

fn refuse_other_run<'a>(
    folder: &Path,
    config: &RunConfig,
    deciding_rounds: &dyn Fn() -> Result<&'a Map<String, Value>>,
) -> Result<()> {
    let run = folder.join(RUN);
    if run.exists() {
        refuse(&run, difference(&saved_settings(&run)?, &config.deciding()))?;
    }
    for path in Scheme::ALL.map(|scheme| checkpoint(folder, scheme)) {
        if path.exists() {
            let theirs = saved_configuration(&path)?;
            refuse(&path, difference(&theirs, deciding_rounds()?))?;
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
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    match serde_json::from_slice(&bytes).map(|mut run: Value| run["settings"].take()) {
        Ok(Value::Object(settings)) => Ok(settings),
        _ => Err(Error::file(
            path,
            "is not the file of a run; name another folder for this one",
        )),
    }
}
