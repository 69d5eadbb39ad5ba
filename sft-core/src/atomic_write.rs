//! Files that appear whole or not at all.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::path::Path;

use safetensors::View;

use crate::{Error, Result};

/// Writes a file under a temporary name beside its own, brings it to the disk and renames it.
///
/// Whatever happens meanwhile, a full disk or a killed process, `path` holds either all of
/// `bytes` or what it held before.
///
/// # Errors
/// A folder that cannot be written, a full disk; nothing is left behind then.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    write_by(path, |temporary| std::fs::write(temporary, bytes))
}

/// Writes tensors as a safetensors file in the same way, one of them at a time in memory.
pub(crate) fn write_tensors<S, V>(
    path: &Path,
    tensors: impl IntoIterator<Item = (S, V)>,
    metadata: HashMap<String, String>,
) -> Result<()>
where
    S: AsRef<str> + Ord + Display,
    V: View,
{
    write_by(path, |temporary| {
        let written = safetensors::serialize_to_file(tensors, Some(metadata), temporary);
        written.map_err(std::io::Error::other)
    })
}

fn write_by(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let whole = || {
        let permissions = File::create(&temporary)?.metadata()?.permissions();
        write(&temporary)?;
        // Another file may be there now, which its maker alone can read.
        std::fs::set_permissions(&temporary, permissions)?;
        let file = OpenOptions::new().write(true).open(&temporary)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    whole().map_err(|e| {
        // The error that is reported is the first one.
        let _ = std::fs::remove_file(&temporary);
        Error::file(path, e)
    })
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_of_tensors_can_be_read_by_whoever_reads_the_others() {
        let folder = std::env::temp_dir().join(format!("sft-atomic-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let [tensors, text] = ["tensors", "text"].map(|name| folder.join(name));
        let none = HashMap::<String, candle_core::Tensor>::new();
        write_tensors(&tensors, none, HashMap::new()).unwrap();
        write_whole(&text, b"text").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&tensors), mode(&text));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
