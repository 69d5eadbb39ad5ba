//! The UCI optical digits of `data/digits.bin`, as documented beside that file.

use std::path::Path;

use sft_core::data::{ImageInput, Images};
use sft_core::{Error, Result};

/// Digits, the classes of the fine-tuning task.
pub const DIGITS: usize = 10;
/// Classes of the pre-training task: a digit and one of three rotations.
pub const ROTATED: usize = 3 * DIGITS;

const SIDE: usize = 8;
const RECORD: usize = 1 + SIDE * SIDE;
/// The value of a pixel that is fully covered by ink.
const FULL: u8 = 16;
/// One record in this many, the last of each group, is a test image.
const TEST_EVERY: usize = 5;
/// The committed file.
const EMBEDDED: &[u8] = include_bytes!("../data/digits.bin");

/// Training and test images of `path`, or of the embedded file.
///
/// # Errors
/// A file that cannot be read, is truncated or holds a label or a pixel out of
/// range, or a model that does not take one channel.
pub fn load(path: Option<&Path>, input: &ImageInput) -> Result<(Images, Images)> {
    let name = path.unwrap_or(Path::new("digits.bin"));
    let bytes = match path {
        Some(path) => &std::fs::read(path).map_err(|e| Error::file(path, e))?,
        None => EMBEDDED,
    };
    parse(bytes, input).map_err(|reason| Error::file(name, reason))
}

fn parse(bytes: &[u8], input: &ImageInput) -> Result<(Images, Images)> {
    if input.mean.len() != 1 {
        let channels = input.mean.len();
        return Err(Error::argument(
            "digits",
            format!("have 1 channel, the model takes {channels}"),
        ));
    }
    if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
        let size = bytes.len();
        let reason = format!("of {size} bytes is no multiple of a record's {RECORD}: truncated");
        return Err(Error::argument("digits file", reason));
    }
    let test = |i: usize| i % TEST_EVERY == TEST_EVERY - 1;
    Ok((
        select(bytes, |i| !test(i), input)?,
        select(bytes, test, input)?,
    ))
}

fn select(bytes: &[u8], wanted: impl Fn(usize) -> bool, input: &ImageInput) -> Result<Images> {
    let records = bytes
        .chunks_exact(RECORD)
        .enumerate()
        .filter(|(i, _)| wanted(*i));
    let (labels, pixels): (Vec<_>, Vec<_>) = records
        .map(|(_, record)| (u32::from(record[0]), &record[1..]))
        .unzip();
    Images::new(pixels.concat(), labels, DIGITS, SIDE, FULL, input.clone())
}

/// Every image turned by 90, 180 and 270 degrees, as 30 classes: digit + 10 * turn.
///
/// # Errors
/// None for images of this module.
pub fn rotated(images: &Images, input: &ImageInput) -> Result<Images> {
    use sft_core::data::Data;
    let mut pixels = Vec::with_capacity(3 * images.len() * SIDE * SIDE);
    let mut labels = Vec::with_capacity(3 * images.len());
    for i in 0..images.len() {
        let mut image = images.pixels(i).to_vec();
        for turn in 0..3 {
            image = quarter_turn(&image);
            pixels.extend_from_slice(&image);
            labels.push(images.label(i) + turn * DIGITS as u32);
        }
    }
    Images::new(pixels, labels, ROTATED, SIDE, FULL, input.clone())
}

fn quarter_turn(image: &[u8]) -> Vec<u8> {
    (0..SIDE * SIDE)
        .map(|i| image[(SIDE - 1 - i % SIDE) * SIDE + i / SIDE])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sft_core::data::Data;

    fn input() -> ImageInput {
        ImageInput {
            side: SIDE,
            mean: vec![0.5],
            std: vec![0.5],
            fit: None,
        }
    }

    #[test]
    fn the_split_is_the_documented_one() {
        let (train, test) = load(None, &input()).unwrap();
        assert_eq!((train.len(), test.len()), (1438, 359));
        assert_eq!(test.label(0), u32::from(EMBEDDED[4 * RECORD]));
    }

    #[test]
    fn four_quarter_turns_are_none() {
        let image: Vec<u8> = (0..64).collect();
        let turned = quarter_turn(&image);
        assert_eq!(turned[0], 56);
        let back = (0..3).fold(turned, |image, _| quarter_turn(&image));
        assert_eq!(back, image);
    }

    #[test]
    fn bad_bytes_are_named() {
        let error = |bytes: &[u8]| parse(bytes, &input()).unwrap_err().to_string();
        assert!(error(&EMBEDDED[..100]).contains("of 100 bytes is no multiple of a record's 65"));
        let mut bytes = EMBEDDED[..650].to_vec();
        bytes[0] = 10;
        assert!(error(&bytes).contains("label must be in 0..10, got 10 for image 0"));
        bytes[0] = 9;
        bytes[1] = 17;
        assert!(error(&bytes).contains("pixel must be in 0..=16, got 17 in image 0"));
    }
}
