//! Messages of the crate, and the second decoder on them.

use std::fs;
use std::path::Path;

use super::receiver::Receiver;

#[test]
fn golden_messages() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_transform");
    for (name, shape, lengths, numbers) in [
        ("grid", &[3, 10, 12][..], &[][..], &[4, 5, 6][..]),
        ("text", &[15, 12], &[5, 3, 7], &[4, 5, 6]),
        ("text_gradient", &[15, 12], &[5, 3, 7], &[]),
    ] {
        let file = |end: &str| fs::read(folder.join(format!("{name}.{end}"))).unwrap();
        let mut receiver = Receiver::new(&file("basis"));
        for message in ["1", "2"] {
            let frame = file(&format!("{message}.frame"));
            let (found, data) = receiver.decode(&frame, lengths, numbers);
            let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
            assert_eq!(found, shape, "{name} {message}");
            assert_eq!(bytes, file(&format!("{message}.f32")), "{name} {message}");
        }
    }
}

#[cfg(feature = "learn")]
mod learnt {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use sft_compress::{
        Basis, Compressor, Context, Decompressor, Elements, Tensor, TensorView, Tokens,
        TransformDecoder, TransformEncoder,
    };

    use super::*;
    use crate::bits;

    fn noise(i: usize) -> f32 {
        let mut z = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^= z >> 27;
        (z >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Rows `[n, D]` of so many words, each of a few patterns, a thousandfold first and every now
    /// and then.
    fn rows(count: usize, width: usize, seed: usize) -> Vec<f32> {
        let value = |row: usize, channel: usize| {
            let word = (1000.0 * noise(31 * seed + row)).abs() as usize % 50;
            let small = 0.1 * noise(1_000_003 * seed + row * width + channel);
            if row == 0 || word == 7 {
                return small + 1000.0 * f32::from(channel.is_multiple_of(5));
            }
            let patterns = (0..4).map(|p| noise(100 * word + p) * noise(9000 + 100 * p + channel));
            1.0 + patterns.sum::<f32>() + small
        };
        let all = (0..count).flat_map(|row| (0..width).map(move |channel| (row, channel)));
        all.map(|(row, channel)| value(row, channel)).collect()
    }

    /// Both ends of the crate and the second receiver.
    struct Ends {
        encoder: TransformEncoder,
        decoder: TransformDecoder,
        receiver: Receiver,
    }

    impl Ends {
        fn new(basis: Basis, memory: usize) -> Self {
            let receiver = Receiver::new(basis.to_bytes());
            let basis = Arc::new(basis);
            Self {
                encoder: TransformEncoder::new(Arc::clone(&basis)).with_memory(memory),
                decoder: TransformDecoder::new(basis).with_memory(memory),
                receiver,
            }
        }

        /// Sends a tensor, and tells what came.
        fn agree(&mut self, view: TensorView<'_>, lengths: &[usize], numbers: &[u64]) -> Vec<f32> {
            let (mut message, mut tensor) = (Vec::new(), Tensor::default());
            let context = Context::new(view.shape(), 0)
                .with_lengths(lengths)
                .with_samples(numbers);
            self.encoder
                .compress(view, &context, &mut message, None)
                .unwrap();
            self.decoder
                .decompress(&message, &context, &mut tensor)
                .unwrap();
            let (shape, data) = self.receiver.decode(&message, lengths, numbers);
            assert_eq!(shape, tensor.shape());
            let (ours, theirs) = (bits(&data), bits(tensor.data()));
            let other = ours.iter().zip(&theirs).position(|(a, b)| a != b);
            let both = other.map(|at| (at, data[at], tensor.data()[at]));
            assert_eq!(both, None, "an element of {shape:?}");
            data
        }
    }

    fn view<'a>(data: &'a [f32], shape: &'a [usize]) -> TensorView<'a> {
        TensorView::new(data, shape).unwrap()
    }

    #[test]
    fn images() {
        let mut made = BTreeSet::new();
        for (prefix, height, across, width) in [(1, 4, 5, 24), (0, 3, 2, 9), (2, 1, 6, 40)] {
            let tokens = Tokens::grid(prefix, height, across).unwrap();
            let count = prefix + height * across;
            let shape = [6, count, width];
            let learnt = rows(6 * count, width, 1);
            for step in [2.0, 0.3, 0.02, 1e-3] {
                for sensitivity in [None, Some(view(&learnt, &shape))] {
                    let view = view(&learnt, &shape);
                    let basis = Basis::of_activations(view, &[], tokens, step, sensitivity);
                    let mut ends = Ends::new(basis.unwrap(), 3000);
                    for seed in 2..5 {
                        let data = rows(6 * count, width, seed);
                        let moved: Vec<f32> = data.iter().map(|x| x * 1.02).collect();
                        let numbers = [3, 1, 4, 1, 5, 9 + seed as u64];
                        for data in [&data, &data, &moved] {
                            ends.agree(TensorView::new(data, &shape).unwrap(), &[], &numbers);
                        }
                        let four = [3, 2, count, width];
                        ends.agree(TensorView::new(&data, &four).unwrap(), &[], &[]);
                    }
                    made.append(&mut ends.receiver.made);
                }
            }
        }
        let expected = [
            "below the highest",
            "empty row",
            "empty sample",
            "larger",
            "longer",
            "much larger",
            "some",
        ];
        assert!(made.iter().eq(&expected), "{made:?}");
    }

    #[test]
    fn texts() {
        const LENGTHS: [usize; 6] = [9, 4, 12, 3, 7, 20];
        let mut made = BTreeSet::new();
        for (prefix, width) in [(1, 24), (0, 9), (2, 40)] {
            let tokens = Tokens::sequence(prefix).unwrap();
            let (shape, lengths) = ([4 * 55, width], LENGTHS.repeat(4));
            let learnt = rows(shape[0], width, 1);
            for step in [2.0, 0.3, 0.02, 1e-3] {
                let view = view(&learnt, &shape);
                let basis = Basis::of_activations(view, &lengths, tokens, step, None).unwrap();
                let (mut ends, shape) = (Ends::new(basis, 20_000), [55, width]);
                for seed in 2..5 {
                    let data = rows(55, width, seed);
                    let moved: Vec<f32> = data.iter().map(|x| x * 1.02).collect();
                    let numbers = [3, 1, 4, 1, 5, 9 + seed as u64];
                    for data in [&data, &data, &moved] {
                        let view = TensorView::new(data, &shape).unwrap();
                        ends.agree(view, &LENGTHS, &numbers);
                    }
                    let even = [11, 5, width];
                    ends.agree(TensorView::new(&data, &even).unwrap(), &[], &[]);
                }
                made.append(&mut ends.receiver.made);
            }
        }
        let expected = [
            "empty sample",
            "larger",
            "more",
            "much larger",
            "names",
            "next",
            "sink",
            "some",
            "weight",
            "whole",
        ];
        assert!(made.iter().eq(&expected), "{made:?}");
    }

    #[test]
    fn gradients() {
        let mut made = BTreeSet::new();
        for tokens in [Tokens::grid(1, 2, 5).unwrap(), Tokens::sequence(1).unwrap()] {
            let shape = [12, 11, 24];
            let learnt = rows(12 * 11, 24, 1);
            for step in [8.0, 1.0, 0.1] {
                let view = view(&learnt, &shape);
                let basis = Basis::of_gradients(view, &[], tokens, step).unwrap();
                let mut ends = Ends::new(basis, 1 << 20);
                for (size, seed) in [(1e-30, 2), (1e-6, 3), (1.0, 4), (1e20, 5), (0.0, 6)] {
                    let value = |i: usize| size * noise(seed * 77 + i) * noise(i / 24).powi(5);
                    let data: Vec<f32> = (0..learnt.len()).map(value).collect();
                    let view = TensorView::new(&data, &shape).unwrap();
                    ends.agree(view, &[], &(0..12).collect::<Vec<_>>());
                }
                made.append(&mut ends.receiver.made);
            }
        }
        assert!(made.contains("row step") && made.contains("empty row"));
    }

    /// What lies beyond the largest number of the type of the elements.
    #[test]
    fn half_precision() {
        let (tokens, shape) = (Tokens::sequence(0).unwrap(), [2, 20, 8]);
        let learnt: Vec<f32> = (0..320).map(|i| 65504.0 * noise(i)).collect();
        let basis = Basis::of_activations(view(&learnt, &shape), &[], tokens, 0.7, None).unwrap();
        let mut ends = Ends::new(basis, 0);
        for bits in [0x7bff_u16, 0x7bf0, 0xfbff] {
            let halves = vec![bits; 320];
            let view = TensorView::of(Elements::F16(&halves), &shape).unwrap();
            let there = ends.agree(view, &[], &[]);
            let most = there.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
            assert_eq!(most.to_bits(), 65504.0_f32.to_bits(), "{most}");
        }
        // The same as the upper half of single precision is about 2.
        let halves = vec![0x4000_u16; 320];
        let view = TensorView::of(Elements::Bf16(&halves), &shape).unwrap();
        ends.agree(view, &[], &[]);
    }
}
