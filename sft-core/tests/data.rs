//! Data sets of images.

mod common;

use std::path::Path;

use candle_core::Device;
use common::{Folder, image_input, tensor};
use sft_core::data::{Augment, Data, ImageInput, Images, image_folder, tiny_imagenet};

#[test]
fn resizing_agrees_with_pytorch() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/resize.safetensors");
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let values = |name: &str| {
        tensors[name]
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
    };
    let pixels: Vec<u8> = values("image").iter().map(|&v| v as u8).collect();
    for side in [6, 14, 4, 1] {
        let images = Images::new(pixels.clone(), vec![0], 1, 6, 255, image_input(side, 1)).unwrap();
        let got = tensor(&images, &[0]);
        assert_eq!(got.dims(), [1, 1, side, side]);
        let got = got.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (got, want) in got.iter().zip(values(&format!("to_{side}"))) {
            let want = (want / 255.0 - 0.5) / 0.25;
            assert!((got - want).abs() < 1e-5, "to {side}: {got} {want}");
        }
    }
}

#[test]
fn images_that_do_not_fit_are_refused() {
    let error = |pixels: Vec<u8>, labels: Vec<u32>| {
        Images::new(pixels, labels, 3, 2, 16, image_input(2, 1))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error(vec![0; 7], vec![0, 1]),
        "pixels must be 8 bytes, got 7"
    );
    assert_eq!(
        error(vec![0; 8], vec![0, 3]),
        "label must be in 0..3, got 3 for image 1"
    );
    let bright = vec![0, 0, 0, 0, 0, 17, 0, 0];
    assert_eq!(
        error(bright, vec![0, 1]),
        "pixel must be in 0..=16, got 17 in image 1"
    );
}

/// A picture whose red grows to the right and whose green grows downwards.
fn picture(width: u32, height: u32) -> image::RgbImage {
    image::RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, 60])
    })
}

fn encoded(width: u32, height: u32, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture(width, height).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn jpeg(width: u32, height: u32) -> Vec<u8> {
    encoded(width, height, image::ImageFormat::Jpeg)
}

fn values(tensor: &candle_core::Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// What is done to a folder.
type Change<'a> = &'a dyn Fn(&Folder);

fn tiny() -> Folder {
    let folder = Folder::new("tiny-imagenet");
    folder.write("wnids.txt", b"n02\nn01\n");
    for name in ["n01/images/n01_0", "n01/images/n01_1", "n02/images/n02_0"] {
        folder.write(&format!("train/{name}.JPEG"), &jpeg(64, 64));
        folder.write("train/n01/n01_boxes.txt", b"n01_0.JPEG\t0\t0\t9\t9\n");
    }
    folder.write("val/images/val_0.JPEG", &jpeg(64, 64));
    folder.write(
        "val/val_annotations.txt",
        b"val_0.JPEG\tn02\t0\t32\t44\t62\n",
    );
    folder
}

#[test]
fn tiny_imagenet_reads_the_official_layout() {
    let folder = tiny();
    let (train, val) = tiny_imagenet(&folder.0, &image_input(32, 3)).unwrap();
    assert_eq!((train.len(), val.len(), train.classes()), (3, 1, 2));
    let labels = [train.label(0), train.label(1), train.label(2), val.label(0)];
    assert_eq!(labels, [0, 0, 1, 1]);
    let inputs = tensor(&val, &[0]);
    assert_eq!(inputs.dims(), [1, 3, 32, 32]);
    // JPEG keeps slow gradients to a few levels of 255.
    let want = picture(64, 64)
        .into_raw()
        .chunks(3)
        .map(|rgb| rgb[0])
        .collect();
    let want = Images::new(want, vec![0], 1, 64, 255, image_input(32, 1)).unwrap();
    let want = values(&tensor(&want, &[0]));
    for (got, want) in values(&inputs).iter().zip(&want) {
        assert!((got - want).abs() < 0.15, "{got} {want}");
    }
}

#[test]
fn what_is_not_tiny_imagenet_is_named() {
    let error = |change: Change<'_>| {
        let folder = tiny();
        change(&folder);
        let sets = tiny_imagenet(&folder.0, &image_input(32, 3));
        let read = sets.and_then(|(train, val)| {
            train.batch(&[0, 1, 2])?;
            val.batch(&[0])
        });
        read.unwrap_err().to_string()
    };
    let annotations = "val/val_annotations.txt";
    let truncated = |name: &'static str| {
        move |folder: &Folder| {
            let bytes = jpeg(64, 64);
            folder.write(name, &bytes[..bytes.len() * 2 / 3]);
        }
    };

    let cases: [(Change<'_>, &str); 8] = [
        (
            &|folder| std::fs::remove_file(folder.0.join("wnids.txt")).unwrap(),
            "wnids.txt: ",
        ),
        (
            &|folder| folder.write("wnids.txt", b"n01\nn02\nn03\n"),
            "train/n03/images: ",
        ),
        (
            &|folder| std::fs::remove_file(folder.0.join("train/n02/images/n02_0.JPEG")).unwrap(),
            "train/n02/images: no image of the class",
        ),
        (
            &move |folder| folder.write(annotations, b"val_0.JPEG\tn09\t0\n"),
            "val_annotations.txt: line 1: class n09 is not in wnids.txt",
        ),
        (
            &move |folder| folder.write(annotations, b"val_7.JPEG\tn01\t0\n"),
            "val_7.JPEG does not exist",
        ),
        (
            &|folder| folder.write("train/n01/images/n01_1.JPEG", &jpeg(64, 63)),
            "n01_1.JPEG: must be 64x64 pixels, got 64x63",
        ),
        (
            &truncated("val/images/val_0.JPEG"),
            "val_0.JPEG: the image is truncated",
        ),
        (
            &|folder| folder.write("val/images/val_0.JPEG", b"not an image"),
            "val_0.JPEG: not a whole image",
        ),
    ];
    for (change, message) in cases {
        let error = error(change);
        assert!(error.contains(message), "{error} lacks {message}");
    }
    let grey = tiny_imagenet(&tiny().0, &image_input(32, 1))
        .unwrap_err()
        .to_string();
    assert!(grey.contains("3 channels, the model 1"), "{grey}");
}

fn pets() -> Folder {
    let folder = Folder::new("image-folder");
    let png = encoded(40, 30, image::ImageFormat::Png);
    for name in [
        "train/cat/1.png",
        "train/dog/1.png",
        "train/dog/2.PNG",
        "test/dog/3.png",
    ] {
        folder.write(name, &png);
    }
    folder.write("train/cat/.hidden", b"x");
    folder
}

#[test]
fn a_folder_of_images_per_class_is_cut_to_its_middle() {
    let folder = pets();
    let (train, test) = image_folder(&folder.0, &image_input(14, 3)).unwrap();
    assert_eq!((train.len(), test.len(), train.classes()), (3, 1, 2));
    assert_eq!([train.label(0), train.label(2), test.label(0)], [0, 1, 1]);
    // 40x30 becomes 21x16; columns 3 to 16 and rows 1 to 14 of it are the middle.
    let inputs = values(&tensor(&test, &[0]));
    let small = image::imageops::resize(
        &picture(40, 30),
        21,
        16,
        image::imageops::FilterType::Triangle,
    );
    for (i, got) in inputs.iter().enumerate() {
        let (channel, y, x) = (i / 196, i / 14 % 14, i % 14);
        let pixel = small.get_pixel(x as u32 + 3, y as u32 + 1)[channel];
        let want = (f32::from(pixel) / 255.0 - 0.5) / 0.25;
        assert!((got - want).abs() < 1e-5, "{i}: {got} {want}");
    }
    for (change, message) in [
        (
            "test/bird/1.png",
            "test/bird: the class has no training images",
        ),
        ("train/bird/readme.txt", "train/bird: no image of the class"),
    ] {
        let folder = pets();
        folder.write(change, b"x");
        let error = image_folder(&folder.0, &image_input(14, 3))
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{error}");
    }
    folder.write(
        "test/dog/3.png",
        &encoded(40, 30, image::ImageFormat::Png)[..60],
    );
    let error = test.batch(&[0]).unwrap_err().to_string();
    assert!(
        error.contains("test/dog/3.png: not a whole image"),
        "{error}"
    );
}

/// The change of one image is a crop of the padded image, mirrored or not, found by trying all.
#[test]
fn augmentation_is_a_crop_of_the_padded_image_and_a_mirror() {
    let side = 8;
    let pixels: Vec<u8> = (0..2 * 64).map(|i| (i * 29 % 251 + 1) as u8).collect();
    let plain = ImageInput {
        side,
        mean: vec![0.0],
        std: vec![1.0 / 255.0],
        fit: None,
    };
    let images = Images::new(pixels.clone(), vec![0, 0], 1, side, 255, plain).unwrap();
    let images = images.with_augmentation(Some(Augment::default()));
    let at = |image: usize, x: isize, y: isize| {
        let inside = (0..8).contains(&x) && (0..8).contains(&y);
        let value = || f32::from(pixels[image * 64 + (y * 8 + x) as usize]);
        if inside { value() } else { 0.0 }
    };
    let (mut mirrors, mut shifts) = (0, std::collections::HashSet::new());
    let mut numbers = std::collections::HashMap::new();
    for seed in 0..200 {
        let both = images.training_batch(&[1, 0], seed).unwrap();
        let got = both.inputs.pixels().unwrap().clone();
        let alone = images
            .training_batch(&[0], seed)
            .unwrap()
            .inputs
            .pixels()
            .unwrap()
            .clone();
        assert_eq!(values(&got)[64..], values(&alone), "whatever the batch");
        let matches = |dx: isize, dy: isize, mirrored: bool| {
            values(&alone).iter().enumerate().all(|(i, value)| {
                let (x, y) = ((i % 8).cast_signed(), (i / 8).cast_signed());
                let x = if mirrored { 7 - x } else { x };
                (value - at(0, x + dx, y + dy)).abs() < 1e-3
            })
        };
        let all = (0..18).map(|i| (i % 3 - 1, i / 3 % 3 - 1, i >= 9));
        let found: Vec<_> = all.filter(|&(dx, dy, m)| matches(dx, dy, m)).collect();
        assert_eq!(found.len(), 1, "seed {seed}");
        // Each view has its number, which tells the sample and is none of the image as it is.
        let number = both.samples[1];
        assert_eq!(*numbers.entry(found[0]).or_insert(number), number);
        assert_eq!((both.samples[0] % 2, number % 2), (1, 0));
        assert!(both.samples.iter().all(|&number| number >= 2));
        mirrors += usize::from(found[0].2);
        shifts.insert((found[0].0, found[0].1));
    }
    assert_eq!(shifts.len(), 9);
    let distinct: std::collections::HashSet<_> = numbers.values().collect();
    assert_eq!((numbers.len(), distinct.len()), (18, 18));
    assert_eq!(images.batch(&[1, 0]).unwrap().samples, [1, 0]);
    assert!(
        (70..130).contains(&mirrors),
        "{mirrors} of 200 are mirrored"
    );
    let plain = tensor(&images, &[0]);
    assert!(
        values(&plain)
            .iter()
            .zip(&pixels)
            .all(|(v, &p)| (v - f32::from(p)).abs() < 1e-3)
    );
}
