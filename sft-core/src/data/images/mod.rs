//! Labelled images, in memory and in files, resized and normalised as a model wants them.

/// Random flips and crops.
mod augment;
/// CIFAR-100's files.
mod cifar;
/// Which files and folders of a folder are images and classes.
mod entries;
/// Images in files, read batch by batch.
mod files;
/// Folders of images.
mod folders;
/// What a model wants of its images.
mod input;
/// Data sets known by the layout of their folder.
mod layout;
/// Small images in memory.
mod memory;
/// Python's pickles of CIFAR-100.
mod pickle;

pub use augment::Augment;
pub use cifar::{CIFAR100_CLASSES, cifar100};
pub use entries::Found;
pub use files::ImageFiles;
pub use folders::{image_folder, tiny_imagenet};
pub use input::{Filter, Fit, ImageInput, Resize};
pub use layout::{DataLayout, Examples};
pub use memory::Images;
