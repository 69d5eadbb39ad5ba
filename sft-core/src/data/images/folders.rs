//! Data sets laid out as folders of image files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::files::{Fit, ImageFiles};
use super::memory::ImageInput;
use crate::{Error, Result};

/// Side of Tiny-ImageNet's images, pixels.
const TINY_SIDE: usize = 64;
/// Endings of the files that are read, in lower case.
const ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];

/// Training and test images of one folder per class: `dir/train/CLASS/*` and `dir/test/CLASS/*`,
/// or `val` where there is no `test`.
///
/// Classes are numbered in the order of their names in `train`. Files with other endings than
/// `jpg`, `jpeg` and `png` are passed over.
///
/// # Errors
/// A missing folder, a class without an image, a test class that has no training images, or a
/// model that does not take three channels.
pub fn image_folder(dir: &Path, input: &ImageInput) -> Result<(ImageFiles, ImageFiles)> {
    three_channels(dir, input)?;
    let train = dir.join("train");
    let test = match dir.join("test") {
        test if test.is_dir() => test,
        _ => dir.join("val"),
    };
    let classes: Vec<String> = folders(&train)?;
    if classes.is_empty() {
        return Err(Error::file(&train, "no folder of a class"));
    }
    let numbers = numbered(&classes);
    let read = |root: &Path, classes: &[String]| -> Result<ImageFiles> {
        let mut files = Vec::new();
        for class in classes {
            let folder = root.join(class);
            let Some(&number) = numbers.get(class.as_str()) else {
                return Err(Error::file(&folder, "the class has no training images"));
            };
            files.extend(images(&folder)?.into_iter().map(|path| (path, number)));
        }
        Ok(ImageFiles::new(files, numbers.len(), Fit::Crop, input))
    };
    Ok((read(&train, &classes)?, read(&test, &folders(&test)?)?))
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
    let mut train = Vec::new();
    for class in &classes {
        let paths = images(&dir.join("train").join(class).join("images"))?;
        train.extend(
            paths
                .into_iter()
                .map(|path| (path, numbers[class.as_str()])),
        );
    }
    let val = annotated(&dir.join("val"), &numbers)?;
    let files = |files| ImageFiles::new(files, classes.len(), Fit::Square(TINY_SIDE), input);
    Ok((files(train), files(val)))
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

/// The names of the folders in a folder, in order.
fn folders(dir: &Path) -> Result<Vec<String>> {
    let paths = entries(dir)?.into_iter().filter(|path| path.is_dir());
    let name = |path: PathBuf| match path.file_name().and_then(|name| name.to_str()) {
        Some(name) => Ok(name.to_string()),
        None => Err(Error::file(&path, "the folder's name is not UTF-8")),
    };
    paths.map(name).collect()
}

/// The image files of a class, in the order of their names.
fn images(dir: &Path) -> Result<Vec<PathBuf>> {
    let is_image = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        ending.is_some_and(|ending| ENDINGS.contains(&ending.to_ascii_lowercase().as_str()))
    };
    let images: Vec<_> = entries(dir)?.into_iter().filter(is_image).collect();
    if images.is_empty() {
        return Err(Error::file(
            dir,
            "no image of the class: expected jpg, jpeg or png files",
        ));
    }
    Ok(images)
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
