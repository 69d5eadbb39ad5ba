//! Bases and messages of the transform codec as they were written once: every later version, level
//! and processor reads them as the same tensors, bit for bit.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use sft_compress::{Basis, Context, Decompressor, SampleId, Tensor, TransformDecoder};

/// Name, shape, lengths and numbers of the samples of two messages.
type Case = (
    &'static str,
    &'static [usize],
    &'static [usize],
    &'static [SampleId],
);

const CASES: [Case; 3] = [
    ("grid", &[3, 10, 12], &[], &[4, 5, 6]),
    ("text", &[15, 12], &[5, 3, 7], &[4, 5, 6]),
    ("text_gradient", &[15, 12], &[5, 3, 7], &[]),
];

fn file(name: &str, end: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden_transform");
    PathBuf::from(folder).join(format!("{name}.{end}"))
}

fn read(name: &str, end: &str) -> Vec<u8> {
    fs::read(file(name, end)).unwrap()
}

/// The second message builds on the first.
#[test]
fn golden_messages_are_the_same_tensors() {
    for (name, shape, lengths, samples) in CASES {
        let basis = Arc::new(Basis::from_bytes(&read(name, "basis")).unwrap());
        let mut decoder = TransformDecoder::new(basis).with_memory(1 << 20);
        let context = Context::new(shape, 0)
            .with_lengths(lengths)
            .with_samples(samples);
        for number in ["1", "2"] {
            let (message, mut tensor) = (read(name, &format!("{number}.frame")), Tensor::default());
            decoder.decompress(&message, &context, &mut tensor).unwrap();
            let bytes: Vec<u8> = tensor.data().iter().flat_map(|x| x.to_le_bytes()).collect();
            assert_eq!(
                bytes,
                read(name, &format!("{number}.f32")),
                "{name} {number}"
            );
        }
    }
}

#[cfg(feature = "learn")]
mod written {
    use sft_compress::{Compressor, TensorView, Tokens, TransformEncoder};

    use super::*;

    fn value(i: usize, moved: usize) -> f32 {
        let (row, channel) = (i / 12, i % 12);
        let wave = ((row * 7 + channel * channel) as f32 * 0.37).sin();
        let first = if row == 0 { 40.0 } else { 1.0 };
        first * (1.0 + channel as f32 * 0.1) + 2.0 * wave + ((i * 31 + moved) % 17) as f32 * 0.02
    }

    /// Not remade: what is there already stays.
    #[test]
    #[ignore = "writes golden files that are missing"]
    fn write_missing_golden_files() {
        for (name, shape, lengths, samples) in CASES {
            let elements: usize = shape.iter().product();
            let data = |moved| (0..elements).map(|i| value(i, moved)).collect::<Vec<_>>();
            let learnt = data(0);
            let view = TensorView::new(&learnt, shape).unwrap();
            let grid = Tokens::grid(1, 3, 3).unwrap();
            let text = Tokens::sequence(1).unwrap();
            let basis = match name {
                "grid" => Basis::of_activations(view, &[], grid, 0.05, None),
                "text" => Basis::of_activations(view, lengths, text, 0.3, None),
                _ => Basis::of_gradients(view, lengths, text, 1.0),
            };
            let basis = basis.unwrap();
            let write = |end: &str, bytes: &[u8]| {
                if !file(name, end).exists() {
                    fs::write(file(name, end), bytes).unwrap();
                }
            };
            write("basis", basis.to_bytes());
            let basis = Arc::new(Basis::from_bytes(&read(name, "basis")).unwrap());
            let mut encoder = TransformEncoder::new(basis).with_memory(1 << 20);
            let context = Context::new(shape, 0)
                .with_lengths(lengths)
                .with_samples(samples);
            for (number, moved) in [("1", 0), ("2", 5)] {
                let (data, mut message) = (data(moved), Vec::new());
                let mut there = Tensor::default();
                let view = TensorView::new(&data, shape).unwrap();
                encoder
                    .compress(view, &context, &mut message, Some(&mut there))
                    .unwrap();
                write(&format!("{number}.frame"), &message);
                let bytes: Vec<u8> = there.data().iter().flat_map(|x| x.to_le_bytes()).collect();
                write(&format!("{number}.f32"), &bytes);
            }
        }
    }
}
