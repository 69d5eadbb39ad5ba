//! Which entries of a folder are classes and images, and what is left out.

use std::io::Read;
use std::path::{Path, PathBuf};

use image::ImageFormat;

use crate::{Error, Result};

/// What is read, for messages.
const FORMATS: &str = "BMP, GIF, JPEG, PNG, PNM, TIFF or WebP";
/// Endings of pictures that are not read, beside those that the decoders' crate knows.
const PICTURES: [&str; 12] = [
    "arw", "cr2", "cr3", "dng", "heic", "heif", "jp2", "jxl", "nef", "psd", "raw", "svg",
];
/// Folders that file managers and archives leave behind, beside hidden ones.
const SYSTEM: [&str; 5] = [
    "$RECYCLE.BIN",
    "@eaDir",
    "System Volume Information",
    "__MACOSX",
    "lost+found",
];
/// Formats whose first bytes no text has by chance.
const CERTAIN: [ImageFormat; 5] = [
    ImageFormat::Gif,
    ImageFormat::Jpeg,
    ImageFormat::Png,
    ImageFormat::Tiff,
    ImageFormat::WebP,
];
/// As many first bytes as tell a format.
const START: u64 = 64;
/// How many of the entries that were left out a message names.
const NAMED: usize = 5;

/// What was found in a folder of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The folder that holds the set: `train`, `test`, or `val` where there is no `test`.
    pub folder: PathBuf,
    /// Number of images.
    pub images: usize,
    /// Number of classes that have images here.
    pub classes: usize,
    /// Entries that are neither image nor class: hidden ones, such of the system, files that hold
    /// no picture, folders within a class.
    pub skipped: Vec<PathBuf>,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (images, classes, folder) = (self.images, self.classes, self.folder.display());
        let skipped = self.skipped.len();
        write!(
            f,
            "{images} images of {classes} classes in {folder}, {skipped} entries skipped"
        )?;
        for (i, path) in self.skipped.iter().take(NAMED).enumerate() {
            let name = path.strip_prefix(&self.folder).unwrap_or(path);
            let start = if i == 0 { ": " } else { ", " };
            write!(f, "{start}{}", name.display())?;
        }
        f.write_str(if skipped > NAMED { ", ..." } else { "" })
    }
}

/// The names of the folders in a folder, in order.
///
/// # Errors
/// A folder that cannot be read, or a folder in it whose name is not UTF-8.
pub(super) fn folders(dir: &Path, skipped: &mut Vec<PathBuf>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for path in entries(dir)? {
        if left_out(&path) || !path.is_dir() {
            skipped.push(path);
            continue;
        }
        match path.file_name().and_then(|name| name.to_str()) {
            Some(name) => names.push(name.to_string()),
            None => return Err(Error::file(&path, "the folder's name is not UTF-8")),
        }
    }
    Ok(names)
}

/// The image files of a class, in the order of their names.
///
/// # Errors
/// A class without an image, a picture of a format that is not read, or what is no regular file.
pub(super) fn images(dir: &Path, skipped: &mut Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    for path in entries(dir)? {
        let found = if left_out(&path) || path.is_dir() {
            false
        } else {
            is_image(&path)?
        };
        let list = if found { &mut images } else { &mut *skipped };
        list.push(path);
    }
    if images.is_empty() {
        let reason = format!("no image of the class: expected {FORMATS} files");
        return Err(Error::file(dir, reason));
    }
    Ok(images)
}

/// Whether a file holds a picture, by its ending or else by its first bytes.
fn is_image(path: &Path) -> Result<bool> {
    let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
    let format = ImageFormat::from_extension(&ending);
    let picture = format.is_some() || PICTURES.iter().any(|known| ending == *known);
    match std::fs::metadata(path) {
        Ok(kind) if kind.is_file() => {}
        _ if !picture => return Ok(false),
        Ok(_) => return Err(Error::file(path, "is no regular file")),
        Err(e) => return Err(Error::file(path, e)),
    }
    if !picture {
        return Ok(image::guess_format(&start(path)?).is_ok_and(|format| CERTAIN.contains(&format)));
    }
    if format.is_some_and(|format| format.reading_enabled()) {
        return Ok(true);
    }
    let reason = format!("a picture of a format that is not read: expected {FORMATS}");
    Err(Error::file(path, reason))
}

fn start(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| Error::file(path, e))?;
    let read = file.take(START).read_to_end(&mut bytes);
    read.map_err(|e| Error::file(path, e))?;
    Ok(bytes)
}

/// Hidden entries, among them Python's, macOS's and Git's, and folders of the system.
fn left_out(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || SYSTEM.contains(&name.as_ref())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = std::fs::read_dir(dir).map_err(|e| Error::file(dir, e))?;
    let paths = list.map(|entry| Ok(entry?.path()));
    let mut paths = paths
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(|e| Error::file(dir, e))?;
    paths.sort_unstable();
    Ok(paths)
}
