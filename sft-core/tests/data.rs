//! Data sets and partitions.

mod common;

use std::path::Path;

use candle_core::{Device, Tensor};
use common::{Folder, InMemory};
use sft_core::data::{
    Augment, Data, ImageInput, Images, Partition, cifar100, image_folder, tiny_imagenet,
};

fn input(side: usize, channels: usize) -> ImageInput {
    ImageInput {
        side,
        mean: vec![0.5; channels],
        std: vec![0.25; channels],
        fit: None,
    }
}

/// The model's input for some samples.
fn tensor(data: &dyn Data, indices: &[usize]) -> Tensor {
    data.batch(indices)
        .unwrap()
        .inputs
        .pixels()
        .unwrap()
        .clone()
}

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
        let images = Images::new(pixels.clone(), vec![0], 1, 6, 255, input(side, 1)).unwrap();
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
        Images::new(pixels, labels, 3, 2, 16, input(2, 1))
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

#[test]
fn every_example_goes_to_one_device_and_every_device_gets_one() {
    let data = InMemory::new(30, 3, 1);
    for partition in [
        Partition::Iid,
        Partition::Dirichlet(0.5),
        Partition::Dirichlet(1e-3),
        Partition::Shards(1),
    ] {
        for devices in [1, 2, 7, 30] {
            for seed in 0..20 {
                let parts = partition.split(&data, devices, seed).unwrap();
                assert!(
                    parts.iter().all(|part| !part.is_empty()),
                    "{partition} {devices}"
                );
                let mut all = parts.concat();
                all.sort_unstable();
                assert_eq!(all, (0..30).collect::<Vec<_>>());
                assert_eq!(parts, partition.split(&data, devices, seed).unwrap());
                if partition == Partition::Iid {
                    let sizes = parts.iter().map(Vec::len);
                    assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
                }
            }
        }
    }
}

/// With a large concentration every device sees the classes as they are, with a small one not.
#[test]
fn concentration_decides_how_uneven_the_classes_are() {
    let data = InMemory::new(300, 3, 1);
    let unevenness = |concentration| {
        let parts = Partition::Dirichlet(concentration)
            .split(&data, 4, 1)
            .unwrap();
        let largest = |part: &Vec<usize>| {
            let count = |class| part.iter().filter(|&&i| data.label(i) == class).count();
            (0..3).map(count).max().unwrap() as f64 / part.len() as f64
        };
        parts.iter().map(largest).sum::<f64>() / 4.0
    };
    assert!(unevenness(1e3) < 0.40, "{}", unevenness(1e3));
    assert!(unevenness(0.05) > 0.70, "{}", unevenness(0.05));
}

#[test]
fn partitions_that_cannot_be_made_are_refused() {
    let data = InMemory::new(5, 3, 1);
    let error =
        |partition: Partition, devices| partition.split(&data, devices, 0).unwrap_err().to_string();
    assert_eq!(
        error(Partition::Iid, 0),
        "devices must be at least 1, got 0"
    );
    let many = "devices must be at most the 5 training samples, got 6";
    assert_eq!(error(Partition::Iid, 6), many);
    for concentration in [0.0, -1.0, f64::NAN] {
        let error = error(Partition::Dirichlet(concentration), 2);
        assert!(
            error.starts_with("partition needs a positive number"),
            "{error}"
        );
    }
    for text in [
        "",
        "iid:1",
        "dirichlet",
        "dirichlet:0",
        "dirichlet:x",
        "dirichlet:inf",
    ] {
        assert!(text.parse::<Partition>().is_err(), "{text}");
    }
    assert_eq!("dirichlet:0.5".parse(), Ok(Partition::Dirichlet(0.5)));
    for text in ["shards", "shards:0", "shards:-1", "shards:x"] {
        assert!(text.parse::<Partition>().is_err(), "{text}");
    }
    assert_eq!("shards:2".parse(), Ok(Partition::Shards(2)));
    let message = "partition needs 1 to 5 shards in all, got 3 on 2 devices";
    assert_eq!(error(Partition::Shards(3), 2), message);
    assert!(error(Partition::Shards(0), 2).starts_with("partition needs 1 to 5"));
}

/// With as many shards as classes in all, and classes of one size, a shard is a class.
#[test]
fn shards_hold_one_class_each() {
    let data = InMemory::new(300, 3, 1);
    for (devices, each) in [(3, 1), (1, 3)] {
        let parts = Partition::Shards(each).split(&data, devices, 4).unwrap();
        for part in parts {
            let mut classes: Vec<u32> = part.iter().map(|&i| data.label(i)).collect();
            classes.dedup();
            assert_eq!((part.len(), classes.len()), (300 / devices, each));
        }
    }
}

fn refused(folder: &Folder) -> String {
    cifar100(&folder.0, &input(32, 3)).unwrap_err().to_string()
}

fn record(coarse: u8, fine: u8, pixel: u8) -> Vec<u8> {
    [vec![coarse, fine], vec![pixel; 3072]].concat()
}

#[test]
fn cifar100_reads_the_official_layout() {
    let folder = Folder::new("cifar");
    let mut image = record(3, 42, 0);
    image[2 + 1024] = 255; // the first green pixel
    folder.write("train.bin", &[record(0, 1, 9), image].concat());
    folder.write("test_one.bin", &record(19, 99, 255));
    let (train, test) = cifar100(&folder.0, &input(32, 3)).unwrap();
    assert_eq!((train.len(), test.len(), train.classes()), (2, 1, 100));
    assert_eq!((train.label(0), train.label(1), test.label(0)), (1, 42, 99));
    let pixels = tensor(&train, &[1]);
    let at = |channel: usize, row: usize| {
        let rows = pixels
            .squeeze(0)
            .unwrap()
            .get(channel)
            .unwrap()
            .get(row)
            .unwrap();
        rows.to_vec1::<f32>().unwrap()[0]
    };
    assert_eq!((at(0, 0), at(1, 0), at(1, 1)), (-2.0, 2.0, -2.0));
}

#[test]
fn what_is_not_cifar100_is_refused() {
    let folder = Folder::new("not-cifar");
    assert!(
        refused(&folder).contains("expected one train*.bin, found 0"),
        "{}",
        refused(&folder)
    );
    folder.write("train.bin", &record(0, 1, 9));
    folder.write("train_2.bin", &record(0, 1, 9));
    assert!(
        refused(&folder).contains("expected one train*.bin, found 2"),
        "{}",
        refused(&folder)
    );
    std::fs::remove_file(folder.0.join("train_2.bin")).unwrap();
    assert!(
        refused(&folder).contains("expected one test*.bin, found 0"),
        "{}",
        refused(&folder)
    );
    for (bytes, message) in [
        (
            record(0, 1, 9)[1..].to_vec(),
            "not a CIFAR-100 file: 3073 bytes",
        ),
        (vec![], "not a CIFAR-100 file: 0 bytes"),
        (
            record(0, 100, 9),
            "labels 0, 100 of image 0 are out of range",
        ),
        (record(20, 0, 9), "labels 20, 0 of image 0 are out of range"),
    ] {
        folder.write("test.bin", &bytes);
        let error = refused(&folder);
        assert!(
            error.contains(message) && error.contains("test.bin"),
            "{error}"
        );
    }
    let grey = cifar100(&folder.0, &input(32, 1)).unwrap_err().to_string();
    assert!(
        grey.contains("cifar100 has 3 channels, the model 1"),
        "{grey}"
    );
    let missing = cifar100(Path::new("no/such/folder"), &input(32, 3))
        .unwrap_err()
        .to_string();
    assert!(missing.starts_with("no/such/folder"), "{missing}");
}

/// A string as Python 2 pickles it.
fn python2(text: &[u8]) -> Vec<u8> {
    let length = (text.len() as u32).to_le_bytes();
    [b"T".as_slice(), &length, text].concat()
}

/// The same bytes as Python 3 pickles them under protocol 2: encoded from text.
fn python3(bytes: &[u8]) -> Vec<u8> {
    let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
    let length = (text.len() as u32).to_le_bytes();
    let text = [b"X".as_slice(), &length, text.as_bytes()].concat();
    [
        b"c_codecs\nencode\n".as_slice(),
        &text,
        b"X\x06\0\0\0latin1\x86R",
    ]
    .concat()
}

/// A set as the official file for Python holds it: `data`, a NumPy array, and `fine_labels`.
fn pickled(string: impl Fn(&[u8]) -> Vec<u8>, pixels: &[u8], labels: &[u8]) -> Vec<u8> {
    let mut file = b"\x80\x02}(".to_vec();
    file.extend(string(b"data"));
    file.extend(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85");
    file.extend(
        [
            string(b"b"),
            b"\x87R(K\x01K".to_vec(),
            vec![labels.len() as u8],
        ]
        .concat(),
    );
    file.extend(b"M\0\x0c\x86cnumpy\ndtype\n");
    file.extend([string(b"u1"), b"K\0K\x01\x87R(K\x03".to_vec(), string(b"|")].concat());
    file.extend(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89");
    file.extend(
        [
            string(pixels),
            b"tb".to_vec(),
            string(b"fine_labels"),
            b"](".to_vec(),
        ]
        .concat(),
    );
    file.extend(labels.iter().flat_map(|&label| [b'K', label]));
    file.extend(b"eu.");
    file
}

#[test]
fn cifar100_reads_the_official_python_layout() {
    let mut image = vec![0; 3072];
    image[1024] = 255; // the first green pixel
    let pixels = [image, vec![9; 3072]].concat();
    for string in [python2, python3] {
        let folder = Folder::new("cifar-python");
        folder.write("train", &pickled(string, &pixels, &[42, 7]));
        folder.write("test", &pickled(string, &[200; 3072], &[99]));
        let (train, test) = cifar100(&folder.0, &input(32, 3)).unwrap();
        assert_eq!((train.len(), test.len(), train.classes()), (2, 1, 100));
        assert_eq!((train.label(0), train.label(1), test.label(0)), (42, 7, 99));
        assert_eq!(train.pixels(0), &pixels[..3072]);
        assert_eq!(train.pixels(1), &pixels[3072..]);

        let whole = pickled(string, &[200; 3072], &[99]);
        for (bytes, message) in [
            (whole[..whole.len() / 2].to_vec(), ""),
            (b"".to_vec(), ""),
            (b"\x80\x02].".to_vec(), "expected a dictionary"),
            (b"\x80\x02}.".to_vec(), "expected a list named fine_labels"),
            (
                pickled(string, &[200; 3072], &[100]),
                "label 100 of image 0 is out of range 0..100",
            ),
            (
                pickled(string, &[200; 3000], &[99]),
                "1 images need 3072 bytes of data, got 3000",
            ),
        ] {
            folder.write("test", &bytes);
            let error = refused(&folder);
            let start = "test: not a CIFAR-100 file for Python: ";
            assert!(error.contains(start) && error.contains(message), "{error}");
        }
    }
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
    let (train, val) = tiny_imagenet(&folder.0, &input(32, 3)).unwrap();
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
    let want = Images::new(want, vec![0], 1, 64, 255, input(32, 1)).unwrap();
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
        let sets = tiny_imagenet(&folder.0, &input(32, 3));
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
    let grey = tiny_imagenet(&tiny().0, &input(32, 1))
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
    let (train, test) = image_folder(&folder.0, &input(14, 3)).unwrap();
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
        let error = image_folder(&folder.0, &input(14, 3))
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
    for seed in 0..200 {
        let got = images
            .training_batch(&[1, 0], seed)
            .unwrap()
            .inputs
            .pixels()
            .unwrap()
            .clone();
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
        mirrors += usize::from(found[0].2);
        shifts.insert((found[0].0, found[0].1));
    }
    assert_eq!(shifts.len(), 9);
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
