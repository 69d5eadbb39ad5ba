//! Digests of data sets and models: contents count, names do not.

mod common;

use common::{Folder, InMemory, base, config};
use sft_core::Digest;
use sft_core::data::{Batch, Data, ImageInput, Images, image_folder};

fn of(data: &(impl Data + ?Sized)) -> String {
    let mut digest = Digest::default();
    data.digest(&mut digest).unwrap();
    digest.to_string()
}

fn input(mean: f32) -> ImageInput {
    ImageInput {
        side: 4,
        mean: vec![mean; 3],
        std: vec![0.5; 3],
        fit: None,
    }
}

fn png(value: u8) -> Vec<u8> {
    let image = image::RgbImage::from_pixel(6, 5, image::Rgb([value; 3]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[test]
fn a_folder_of_images_is_its_files_and_classes() {
    let with = |test: u8, classes: [&str; 2], mean: f32| {
        let folder = Folder::new("digest");
        for (i, class) in classes.iter().enumerate() {
            folder.write(&format!("train/{class}/1.png"), &png(i as u8));
            folder.write(&format!("test/{class}/1.png"), &png(test));
        }
        let (train, test) = image_folder(&folder.0, &input(mean)).unwrap();
        (of(&train), of(&test))
    };
    let one = with(7, ["cat", "dog"], 0.5);
    assert_eq!(one, with(7, ["cat", "dog"], 0.5), "in another folder");
    assert_eq!(one, with(7, ["ape", "bee"], 0.5), "names of classes");
    let other = with(8, ["cat", "dog"], 0.5);
    assert!(one.0 == other.0 && one.1 != other.1);
    let swapped = with(7, ["dog", "cat"], 0.5);
    assert!(one.0 != swapped.0 && one.1 == swapped.1, "labels");
    assert!(one.0 != with(7, ["cat", "dog"], 0.4).0, "normalisation");
}

#[test]
fn images_are_their_pixels_labels_and_scale() {
    let with = |pixel: u8, label: u32, classes: usize, full: u8| {
        let pixels = vec![pixel; 2 * 3 * 16];
        let labels = vec![0, label];
        of(&Images::new(pixels, labels, classes, 4, full, input(0.5)).unwrap())
    };
    let all = [
        with(1, 1, 2, 255),
        with(2, 1, 2, 255),
        with(1, 0, 2, 255),
        with(1, 1, 3, 255),
        with(1, 1, 2, 254),
    ];
    assert_eq!(all[0], with(1, 1, 2, 255));
    for (i, digest) in all.iter().enumerate() {
        assert!(!all[..i].contains(digest), "{i}");
    }
}

/// One label other than the data set that it is made of.
struct Relabelled(InMemory);

impl Data for Relabelled {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn classes(&self) -> usize {
        self.0.classes()
    }

    fn label(&self, index: usize) -> u32 {
        let other = u32::from(index == 2);
        (self.0.label(index) + other) % self.0.classes() as u32
    }

    fn batch(&self, samples: &[usize]) -> sft_core::Result<Batch> {
        self.0.batch(samples)
    }
}

#[test]
fn a_data_set_of_any_kind_has_a_digest() {
    let data = |seed| InMemory::new(5, 3, seed);
    assert_eq!(of(&data(1)), of(&data(1)));
    assert_ne!(of(&data(1)), of(&data(2)));
    assert_ne!(of(&data(1)), of(&Relabelled(data(1))));
}

#[test]
fn a_model_is_its_weights_sizes_and_input() {
    let of = |change: &dyn Fn(&mut sft_core::model::PretrainedVit)| {
        let mut model = base(&config());
        change(&mut model);
        let mut digest = Digest::default();
        sft_core::model::digest(&model, &mut digest).unwrap();
        digest.to_string()
    };
    let all = [
        of(&|_| ()),
        of(&|model| model.weights = common::weights(&config(), 9)),
        of(&|model| model.config.layer_norm_eps *= 2.0),
        of(&|model| model.input.mean[0] += 0.1),
        of(&|model| model.head = Some(sft_core::adapter::Head::new(3, 12, 1))),
    ];
    assert_eq!(all[0], of(&|_| ()));
    for (i, digest) in all.iter().enumerate() {
        assert!(!all[..i].contains(digest), "{i}");
    }
}
