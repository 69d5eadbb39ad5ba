//! CIFAR-100 in its binary layout and in Python's.

mod common;

use std::path::Path;

use common::{Folder, image_input, tensor};
use sft_core::data::{Data, cifar100};

fn refused(folder: &Folder) -> String {
    cifar100(&folder.0, &image_input(32, 3))
        .unwrap_err()
        .to_string()
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
    let (train, test) = cifar100(&folder.0, &image_input(32, 3)).unwrap();
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
    let grey = cifar100(&folder.0, &image_input(32, 1))
        .unwrap_err()
        .to_string();
    assert!(
        grey.contains("cifar100 has 3 channels, the model 1"),
        "{grey}"
    );
    let missing = cifar100(Path::new("no/such/folder"), &image_input(32, 3))
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
        let (train, test) = cifar100(&folder.0, &image_input(32, 3)).unwrap();
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
