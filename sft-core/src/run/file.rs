//! What a run was and did, as `run.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::SchemeRun;
use crate::{Error, Result, write_whole};

/// The contents of `run.json`, which programs and Python write alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunFile {
    /// The configuration that decides the result, [`RunConfig::deciding`](super::RunConfig::deciding).
    pub settings: Map<String, Value>,
    /// Digests of model, data and adapters, [`Session::contents`](super::Session::contents): a folder
    /// knows its run again by them, whatever their files are called.
    #[serde(default)]
    pub contents: Map<String, Value>,
    /// The most memory that was resident at once, bytes: all simulated devices, the server and
    /// evaluation; where it is known.
    #[serde(default)]
    pub peak_resident_bytes: Option<u64>,
    /// The schemes in the order they ran.
    pub schemes: Vec<SchemeRun>,
}

impl RunFile {
    /// Its name in a run's folder.
    pub const NAME: &str = "run.json";

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// A folder that cannot be written, or a full disk.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self).map_err(|e| Error::file(path, e))?;
        write_whole(path, format!("{json}\n").as_bytes())
    }

    /// Reads a file that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// A file that cannot be read or is not that of a run.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
        let run = serde_json::from_slice(&bytes);
        run.map_err(|e| Error::file(path, format!("is not the file of a run: {e}")))
    }
}
