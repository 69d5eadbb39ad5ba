//! Data sets and partitions.

mod common;

use std::path::{Path, PathBuf};

use candle_core::Device;
use common::InMemory;
use sft_core::{Data, ImageInput, Images, Partition, cifar100};

fn input(side: usize, channels: usize) -> ImageInput {
    ImageInput {
        side,
        mean: vec![0.5; channels],
        std: vec![0.25; channels],
    }
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
        let got = images.inputs(&[0]).unwrap();
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
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("sft-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.join(name), bytes).unwrap();
    }

    fn error(&self) -> String {
        cifar100(&self.0, &input(32, 3)).unwrap_err().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
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
    let pixels = train.inputs(&[1]).unwrap();
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
        folder.error().contains("expected one train*.bin, found 0"),
        "{}",
        folder.error()
    );
    folder.write("train.bin", &record(0, 1, 9));
    folder.write("train_2.bin", &record(0, 1, 9));
    assert!(
        folder.error().contains("expected one train*.bin, found 2"),
        "{}",
        folder.error()
    );
    std::fs::remove_file(folder.0.join("train_2.bin")).unwrap();
    assert!(
        folder.error().contains("expected one test*.bin, found 0"),
        "{}",
        folder.error()
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
        let error = folder.error();
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
