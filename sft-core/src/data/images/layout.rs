//! The data sets that are known by the layout of their folder.

use std::path::Path;
use std::str::FromStr;

use super::augment::Augment;
use super::cifar::cifar100;
use super::folders::{image_folder, tiny_imagenet};
use super::input::ImageInput;
use crate::Result;
use crate::data::Data;

/// Training and test examples.
pub type Examples = (Box<dyn Data + Send>, Box<dyn Data + Send>);

/// How a folder holds a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataLayout {
    /// As [`cifar100`] reads it.
    Cifar100,
    /// As [`tiny_imagenet`] reads it.
    TinyImagenet,
    /// As [`image_folder`] reads it.
    Folder,
}

impl DataLayout {
    /// Training and test images of a folder as a model wants them, the training images changed at
    /// random where `augment` says how.
    ///
    /// # Errors
    /// Files that do not hold the data set.
    pub fn open(
        self,
        dir: &Path,
        input: &ImageInput,
        augment: Option<Augment>,
    ) -> Result<Examples> {
        Ok(match self {
            Self::Cifar100 => {
                let (train, test) = cifar100(dir, input)?;
                (Box::new(train.with_augmentation(augment)), Box::new(test))
            }
            Self::TinyImagenet => {
                let (train, test) = tiny_imagenet(dir, input)?;
                (Box::new(train.with_augmentation(augment)), Box::new(test))
            }
            Self::Folder => {
                let (train, test) = image_folder(dir, input)?;
                (Box::new(train.with_augmentation(augment)), Box::new(test))
            }
        })
    }
}

impl FromStr for DataLayout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cifar100" => Ok(Self::Cifar100),
            "tiny-imagenet" => Ok(Self::TinyImagenet),
            "folder" => Ok(Self::Folder),
            _ => Err("expected cifar100, tiny-imagenet or folder".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_has_one_name_and_names_what_it_lacks() {
        let input = ImageInput {
            side: 8,
            mean: vec![0.5; 3],
            std: vec![0.5; 3],
            fit: None,
        };
        let dir = Path::new("there-is-no-such-folder");
        for name in ["cifar100", "tiny-imagenet", "folder"] {
            let layout: DataLayout = name.parse().unwrap();
            let error = layout.open(dir, &input, None).map(|_| ()).unwrap_err();
            assert!(
                error.to_string().contains("there-is-no-such-folder"),
                "{error}"
            );
        }
        for name in ["", "Cifar100", "folder:"] {
            assert!(name.parse::<DataLayout>().is_err(), "{name}");
        }
    }
}
