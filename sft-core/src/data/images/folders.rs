//! Data sets laid out as folders of image files.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::entries::{Found, folders, images};
use super::files::{Augmented, ImageFiles};
use super::input::{Filter, Fit, ImageInput, Resize};
use crate::{Error, Result};

/// Side of Tiny-ImageNet's images, pixels.
const TINY_SIDE: usize = 64;
/// A crop is this much smaller than the resized image, as 224 of 256.
const RESIZED: f64 = 256.0 / 224.0;

/// Training and test images of one folder per class: `dir/train/CLASS/*` and `dir/test/CLASS/*`,
/// or `val` where there is no `test`.
///
/// Classes are numbered in the order of their names in `train`. Images are BMP, GIF, JPEG, PNG, PNM,
/// TIFF and WebP files, by their ending or, where it tells nothing, by their first bytes. Hidden
/// entries, such of the system (`__MACOSX`), files that hold no picture and folders within a class
/// are skipped; [`Found`] has them. Where the model does not say how an image becomes a square,
/// its shorter side is resized to 256/224 of what the model takes and the middle is cut out.
///
/// # Errors
/// A missing folder, a class without an image, a test class that has no training images, a picture
/// of another format, or a model that does not take three channels.
pub fn image_folder(dir: &Path, input: &ImageInput) -> Result<(ImageFiles, ImageFiles)> {
    three_channels(dir, input)?;
    let train = dir.join("train");
    let test = match dir.join("test") {
        test if test.is_dir() => test,
        _ => dir.join("val"),
    };
    let mut skipped = Vec::new();
    let classes = folders(&train, &mut skipped)?;
    let numbers = numbered(&classes);
    let train = read_classes(&train, &classes, &numbers, skipped, input)?;
    let mut skipped = Vec::new();
    let tested = folders(&test, &mut skipped)?;
    let test = read_classes(&test, &tested, &numbers, skipped, input)?;
    tracing::info!(train = %train.found(), test = %test.found(), "found images");
    Ok((train, test))
}

/// The images of these classes in a folder.
fn read_classes(
    folder: &Path,
    classes: &[String],
    numbers: &HashMap<&str, u32>,
    mut skipped: Vec<PathBuf>,
    input: &ImageInput,
) -> Result<ImageFiles> {
    if classes.is_empty() {
        return Err(Error::file(folder, "no folder of a class"));
    }
    let mut files = Vec::new();
    for class in classes {
        let path = folder.join(class);
        let Some(&number) = numbers.get(class.as_str()) else {
            return Err(Error::file(&path, "the class has no training images"));
        };
        let found = images(&path, &mut skipped)?;
        files.extend(found.into_iter().map(|path| (path, number)));
    }
    let found = Found {
        folder: folder.into(),
        images: files.len(),
        classes: classes.len(),
        skipped,
    };
    let shorter = (input.side as f64 * RESIZED).round() as usize;
    let fit = Fit {
        resize: Resize::Shorter(shorter),
        filter: Filter::Bilinear,
    };
    let input = ImageInput {
        fit: input.fit.or(Some(fit)),
        ..input.clone()
    };
    Ok(ImageFiles::new(
        files,
        numbers.len(),
        found,
        Augmented::Window,
        input,
    ))
}

/// Training and validation images of Tiny-ImageNet in its official layout: `wnids.txt`,
/// `train/WNID/images/*.JPEG`, `val/val_annotations.txt` and `val/images/*.JPEG`.
///
/// Classes are numbered in the alphabetical order of their names.
///
/// # Errors
/// A missing file or folder, a class without an image, an annotation of an unknown class or of a
/// file that is not there, or a model that does not take three channels.
pub fn tiny_imagenet(dir: &Path, input: &ImageInput) -> Result<(ImageFiles, ImageFiles)> {
    three_channels(dir, input)?;
    let list = dir.join("wnids.txt");
    let mut classes: Vec<String> = read(&list)?.lines().map(|l| l.trim().to_string()).collect();
    classes.retain(|class| !class.is_empty());
    classes.sort_unstable();
    if classes.is_empty() {
        return Err(Error::file(&list, "no class"));
    }
    let numbers = numbered(&classes);
    let (mut train, mut skipped) = (Vec::new(), Vec::new());
    for class in &classes {
        let folder = dir.join("train").join(class).join("images");
        let number = numbers[class.as_str()];
        let found = images(&folder, &mut skipped)?;
        train.extend(found.into_iter().map(|path| (path, number)));
    }
    let val = annotated(&dir.join("val"), &numbers)?;
    let set = |name: &str, files: Vec<(PathBuf, u32)>, skipped| {
        let of: HashSet<u32> = files.iter().map(|&(_, class)| class).collect();
        let found = Found {
            folder: dir.join(name),
            images: files.len(),
            classes: of.len(),
            skipped,
        };
        let input = ImageInput {
            fit: input.fit.or(Some(Fit::whole(input.side))),
            ..input.clone()
        };
        ImageFiles::new(
            files,
            classes.len(),
            found,
            Augmented::Source(TINY_SIDE),
            input,
        )
    };
    Ok((set("train", train, skipped), set("val", val, Vec::new())))
}

/// The validation images with their classes.
fn annotated(dir: &Path, numbers: &HashMap<&str, u32>) -> Result<Vec<(PathBuf, u32)>> {
    let list = dir.join("val_annotations.txt");
    let mut files = Vec::new();
    for (i, line) in read(&list)?.lines().enumerate() {
        let wrong = |reason: String| Error::file(&list, format!("line {}: {reason}", i + 1));
        let mut words = line.split('\t');
        let (Some(name), Some(class)) = (words.next(), words.next()) else {
            return Err(wrong("must be a file name, a tab and a class".into()));
        };
        let Some(&number) = numbers.get(class) else {
            return Err(wrong(format!("class {class} is not in wnids.txt")));
        };
        let path = dir.join("images").join(name);
        if !path.is_file() {
            return Err(wrong(format!("{} does not exist", path.display())));
        }
        files.push((path, number));
    }
    if files.is_empty() {
        return Err(Error::file(&list, "no image"));
    }
    Ok(files)
}

fn three_channels(dir: &Path, input: &ImageInput) -> Result<()> {
    input.check()?;
    match input.mean.len() {
        3 => Ok(()),
        channels => {
            let reason = format!("the images have 3 channels, the model {channels}");
            Err(Error::file(dir, reason))
        }
    }
}

fn numbered(classes: &[String]) -> HashMap<&str, u32> {
    classes.iter().map(String::as_str).zip(0..).collect()
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::file(path, e))
}
