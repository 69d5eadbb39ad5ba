//! Frames written once must decode to the same elements forever, and the
//! encoder must still write them.

mod common;

use std::fs;

use sft_compress::decode;

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn golden_frames_decode_to_the_stored_elements() {
    for case in common::cases() {
        let tensor = decode(&case.frame()).unwrap();
        assert_eq!(tensor.shape(), case.shape, "{}", case.name);
        assert_eq!(bits(tensor.data()), bits(&case.output()), "{}", case.name);
    }
}

#[test]
fn the_encoder_still_writes_the_golden_frames() {
    for case in common::cases() {
        assert!(case.encode() == case.frame(), "{}", case.name);
    }
}

#[test]
#[ignore = "adds the files of new lines in cases.tsv; never changes existing ones"]
fn write_missing_golden_files() {
    for case in common::cases() {
        let frame = case.encode();
        if !case.frame_path().exists() {
            let output = decode(&frame).unwrap().into_data();
            let bytes: Vec<u8> = output.iter().flat_map(|x| x.to_le_bytes()).collect();
            fs::write(case.frame_path(), frame).unwrap();
            fs::write(case.output_path(), bytes).unwrap();
        }
    }
}
