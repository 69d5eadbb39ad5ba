//! Files that appear whole or not at all.

use std::fs::File;
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
    write_whole_by(path, |path| std::fs::write(path, bytes))
}

/// The same by `write`, which makes the file under the temporary name.
pub(crate) fn write_whole_by(
    path: &Path,
    write: impl FnOnce(&Path) -> std::io::Result<()>,
) -> Result<()> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = write(&temporary)
        .and_then(|()| File::open(&temporary)?.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|e| {
        // The error that is reported is the first one.
        let _ = std::fs::remove_file(&temporary);
        Error::file(path, e)
    })
}
