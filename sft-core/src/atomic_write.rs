//! Files that appear whole or not at all.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::{Error, Result};

/// Writes a file under a temporary name beside its own, brings it to the disk and renames it.
///
/// Whatever happens meanwhile, a full disk or a killed process, `path` holds either all of
/// `bytes` or what it held before.
///
/// # Errors
/// A folder that cannot be written, a full disk; nothing is left behind then.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|e| {
        // The error that is reported is the first one.
        let _ = std::fs::remove_file(&temporary);
        Error::file(path, e)
    })
}
