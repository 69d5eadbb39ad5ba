//! The transform codec on sequences: massive activations, several lengths, rows that come again.
#![cfg(feature = "learn")]

use std::sync::Arc;

use sft_compress::{
    Basis, Compressor, Context, Decompressor, ErrorKind, SampleId, Stateful, Tensor, TensorView,
    Tokens, TransformDecoder, TransformEncoder,
};

fn noise(i: u64) -> f32 {
    let mut z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^= z >> 27;
    (z >> 40) as f32 / (1 << 23) as f32 - 1.0
}

const WIDTH: usize = 32;
const WORDS: u64 = 40;

/// Texts of so many tokens each, `[S, D]`: six patterns in the channels by word, and a thousandfold
/// first token, which the word 7 is like.
fn texts(lengths: &[usize], seed: u64) -> Vec<f32> {
    let value = |text: usize, at: usize, channel: u64| {
        let word = (noise(seed + 100 * text as u64 + at as u64) * 1000.0).abs() as u64 % WORDS;
        let sink = |channel: u64| 1000.0 * noise(channel) * f32::from(channel.is_multiple_of(8));
        let small = 0.05 * noise(seed * 77 + text as u64 * 9999 + at as u64 * 64 + channel);
        if at == 0 || word == 7 {
            return sink(channel) + small;
        }
        let patterns = (0..6).map(|p| noise(500 + 10 * word + p) * noise(9000 + 64 * p + channel));
        2.0 + patterns.sum::<f32>() + small
    };
    let rows = lengths.iter().enumerate().flat_map(|(text, &length)| {
        (0..length).flat_map(move |at| (0..WIDTH as u64).map(move |channel| (text, at, channel)))
    });
    rows.map(|(text, at, channel)| value(text, at, channel))
        .collect()
}

const LENGTHS: [usize; 6] = [9, 4, 12, 1, 7, 20];
const SHAPE: [usize; 2] = [53, WIDTH];

fn basis(step: f64) -> Arc<Basis> {
    let lengths: Vec<usize> = LENGTHS.repeat(4);
    let data = texts(&lengths, 1);
    let shape = [4 * SHAPE[0], WIDTH];
    let view = TensorView::new(&data, &shape).unwrap();
    let tokens = Tokens::sequence(1).unwrap();
    Arc::new(Basis::of_activations(view, &lengths, tokens, step, None).unwrap())
}

fn pair(basis: &Arc<Basis>, memory: usize) -> (TransformEncoder, TransformDecoder) {
    (
        TransformEncoder::new(Arc::clone(basis)).with_memory(memory),
        TransformDecoder::new(Arc::clone(basis)).with_memory(memory),
    )
}

/// Sends texts, and tells what came and the length of the message.
fn send(
    (encoder, decoder): (&mut TransformEncoder, &mut TransformDecoder),
    data: &[f32],
    lengths: &[usize],
    ids: &[SampleId],
) -> (Vec<f32>, usize) {
    let (mut message, mut here, mut there) = (Vec::new(), Tensor::default(), Tensor::default());
    let shape = [data.len() / WIDTH, WIDTH];
    let context = Context::new(&shape, 0)
        .with_lengths(lengths)
        .with_samples(ids);
    let view = TensorView::new(data, &shape).unwrap();
    encoder
        .compress(view, &context, &mut message, Some(&mut here))
        .unwrap();
    decoder.decompress(&message, &context, &mut there).unwrap();
    let bits = |tensor: &Tensor| {
        tensor
            .data()
            .iter()
            .map(|x| x.to_bits())
            .collect::<Vec<_>>()
    };
    assert_eq!(bits(&here), bits(&there), "both sides decode the same");
    assert_eq!(encoder.save().unwrap(), decoder.save().unwrap());
    (there.into_data(), message.len())
}

#[test]
fn tokens_with_massive_activations_do_not_starve_the_others() {
    let basis = basis(0.2);
    assert!(basis.cached_rows() > 0);
    let data = texts(&LENGTHS, 2);
    let (mut encoder, mut decoder) = pair(&basis, 0);
    let (there, bytes) = send((&mut encoder, &mut decoder), &data, &LENGTHS, &[]);
    let (mut error, mut energy) = (0.0, 0.0);
    for (x, y) in data.chunks(WIDTH).zip(there.chunks(WIDTH)) {
        let squares = |row: &mut dyn Iterator<Item = f32>| row.map(|x| x * x).sum::<f32>();
        let of_row = squares(&mut x.iter().zip(y).map(|(x, y)| x - y));
        // Rows of either kind are as exact.
        assert!(of_row < 0.1 * WIDTH as f32, "{of_row}");
        if x[0].abs() < 100.0 {
            error += of_row;
            energy += squares(&mut x.iter().copied());
        }
    }
    assert!(error < 0.01 * energy, "{error} of {energy}");
    // The plain codec needs more for the same error of the rows without.
    let plain = sft_compress::Codec::for_error(f64::from(error / energy)).unwrap();
    let frame = plain
        .encode(TensorView::new(&data, &SHAPE).unwrap(), 0)
        .unwrap();
    assert!(
        4 * bytes < 3 * frame.len(),
        "{bytes} against {}",
        frame.len()
    );
}

#[test]
fn rows_that_were_there_before_cost_less() {
    let (mut encoder, mut decoder) = pair(&basis(0.1), 0);
    let sent = |seed: u64, codecs: (&mut TransformEncoder, &mut TransformDecoder)| {
        send(codecs, &texts(&LENGTHS, seed), &LENGTHS, &[]).1
    };
    let first = sent(2, (&mut encoder, &mut decoder));
    for seed in 3..8 {
        sent(seed, (&mut encoder, &mut decoder));
    }
    // Other texts of the same words.
    let later = sent(9, (&mut encoder, &mut decoder));
    assert!(10 * later < 7 * first, "{later} of {first}");
    let (mut encoder, mut decoder) = pair(&basis(0.1), 0);
    let fresh = sent(9, (&mut encoder, &mut decoder));
    assert!(10 * later < 7 * fresh, "{later} of {fresh}");
}

#[test]
fn more_rows_than_the_cache_holds_are_sent() {
    let (mut encoder, mut decoder) = pair(&basis(0.3), 0);
    let lengths = vec![50; 60];
    for seed in 0..4 {
        let data = texts(&lengths, seed);
        send((&mut encoder, &mut decoder), &data, &lengths, &[]);
    }
    let state = encoder.save().unwrap();
    let mut again = TransformEncoder::new(Arc::clone(encoder.basis()));
    again.restore(&state).unwrap();
    assert_eq!(again.save().unwrap(), state);
    let data = texts(&LENGTHS, 9);
    let other = send((&mut again, &mut decoder.clone()), &data, &LENGTHS, &[]);
    assert_eq!(
        send((&mut encoder, &mut decoder), &data, &LENGTHS, &[]),
        other
    );
    for end in 1..state.len() {
        assert!(again.restore(&state[..end]).is_err());
    }
}

#[test]
fn texts_that_come_again_cost_next_to_nothing() {
    let (mut encoder, mut decoder) = pair(&basis(0.1), 1 << 20);
    let (data, ids) = (texts(&LENGTHS, 2), [5, 4, 3, 2, 1, 0]);
    let (first, whole) = send((&mut encoder, &mut decoder), &data, &LENGTHS, &ids);
    let (second, again) = send((&mut encoder, &mut decoder), &data, &LENGTHS, &ids);
    assert!(
        first == second && again < 60 && whole > 10 * again,
        "{whole}, {again}"
    );
    // Of another length under the same number.
    let lengths = [9, 5, 11, 1, 7, 20];
    send((&mut encoder, &mut decoder), &data, &lengths, &ids);
}

#[test]
fn a_message_that_is_missed_is_told_of() {
    let (mut encoder, mut decoder) = pair(&basis(0.1), 0);
    let data = texts(&LENGTHS, 2);
    send((&mut encoder, &mut decoder), &data, &LENGTHS, &[]);
    let context = Context::new(&SHAPE, 0).with_lengths(&LENGTHS);
    let view = TensorView::new(&data, &SHAPE).unwrap();
    let (mut message, mut tensor) = (Vec::new(), Tensor::default());
    encoder
        .compress(view, &context, &mut message, None)
        .unwrap();
    encoder
        .compress(view, &context, &mut message, None)
        .unwrap();
    let error = decoder
        .decompress(&message, &context, &mut tensor)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LostReference);
    encoder.reset();
    decoder.reset();
    send((&mut encoder, &mut decoder), &data, &LENGTHS, &[]);
}

#[test]
fn what_is_refused_leaves_the_memory_as_it_was() {
    let (mut encoder, mut decoder) = pair(&basis(0.1), 1 << 20);
    let (data, ids) = (texts(&LENGTHS, 2), [0, 1, 2, 3, 4, 5]);
    send((&mut encoder, &mut decoder), &data, &LENGTHS, &ids);
    let before = encoder.save().unwrap();
    let mut broken = texts(&LENGTHS, 3);
    broken[1000] = f32::NAN;
    let mut message = Vec::new();
    let mut refused = |data: &[f32], context: &Context<'_>| {
        let view = TensorView::new(data, context.shape).unwrap();
        let error = encoder
            .compress(view, context, &mut message, None)
            .unwrap_err();
        assert!(message.is_empty() && encoder.save().unwrap() == before);
        error.to_string()
    };
    let context = Context::new(&SHAPE, 0);
    refused(&broken, &context.with_lengths(&LENGTHS));
    broken[1000] = 1e30;
    refused(&broken, &context.with_lengths(&LENGTHS));
    let told = refused(&data, &context.with_lengths(&[9, 4]));
    assert!(told.contains("Some(13) for shape [53, 32]"), "{told}");
    let told = refused(&data, &context.with_lengths(&[53, 0]));
    assert!(told.contains("at least 1, got 0"), "{told}");
    refused(&data, &context.with_lengths(&[usize::MAX, 54]));
    refused(&data, &context.with_lengths(&LENGTHS).with_samples(&[1, 2]));
    let shape = [1, 53, WIDTH];
    refused(&data, &Context::new(&shape, 0).with_lengths(&LENGTHS));
    // Damage that the checksum does not show.
    let context = context.with_lengths(&LENGTHS).with_samples(&ids);
    let texts = texts(&LENGTHS, 4);
    let view = TensorView::new(&texts, &SHAPE).unwrap();
    encoder
        .compress(view, &context, &mut message, None)
        .unwrap();
    let mut tensor = Tensor::default();
    for at in 9..message.len() - 4 {
        let mut damaged = message.clone();
        damaged[at] ^= 0x55;
        let end = damaged.len() - 4;
        let checksum = crc32fast::hash(&damaged[..end]);
        damaged[end..].copy_from_slice(&checksum.to_le_bytes());
        let mut decoder = decoder.clone();
        let done = decoder.decompress(&damaged, &context, &mut tensor);
        assert_eq!(done.is_err(), tensor.data().is_empty());
        if done.is_err() {
            decoder.decompress(&message, &context, &mut tensor).unwrap();
            assert_eq!(decoder.save().unwrap(), encoder.save().unwrap());
        }
    }
}

#[test]
fn gradients_of_texts_cross_at_any_length() {
    let lengths: Vec<usize> = LENGTHS.repeat(4);
    let shape = [4 * SHAPE[0], WIDTH];
    let data = texts(&lengths, 1);
    let view = TensorView::new(&data, &shape).unwrap();
    let tokens = Tokens::sequence(1).unwrap();
    let basis = Arc::new(Basis::of_gradients(view, &lengths, tokens, 1.0).unwrap());
    assert_eq!(basis.cached_rows(), 0);
    let (mut encoder, mut decoder) = pair(&basis, 1 << 20);
    let gradient: Vec<f32> = (0..SHAPE[0] * WIDTH)
        .map(|i| 1e-6 * noise(i as u64) * noise((i / WIDTH) as u64).powi(3))
        .collect();
    let (there, bytes) = send((&mut encoder, &mut decoder), &gradient, &LENGTHS, &[]);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let cosine = dot(&there, &gradient).powi(2) / dot(&there, &there) / dot(&gradient, &gradient);
    assert!(
        cosine > 0.8 && bytes < gradient.len() / 4,
        "{cosine}, {bytes}"
    );
}

#[test]
fn texts_that_are_all_alike_cross() {
    for value in [0.0, 1.0, -1e-20, 1e20] {
        let (data, tokens) = (vec![value; 6 * WIDTH], Tokens::sequence(1).unwrap());
        let shape = [2, 3, WIDTH];
        let view = TensorView::new(&data, &shape).unwrap();
        let basis = Basis::of_activations(view, &[], tokens, 0.3, None).unwrap();
        let (mut encoder, mut decoder) = pair(&Arc::new(basis), 0);
        let (there, bytes) = send((&mut encoder, &mut decoder), &data, &[3, 3], &[]);
        let worst = there
            .iter()
            .fold(0.0, |worst, y| f32::max(worst, (y - value).abs()));
        assert!(
            worst <= 0.02 * value.abs() + 1e-19 && bytes < 100,
            "{value}: {worst}, {bytes}"
        );
    }
}

#[test]
fn numbers_of_samples_must_be_as_many_as_samples() {
    let basis = basis(0.3);
    let (mut encoder, data) = (
        TransformEncoder::new(basis).with_memory(1 << 20),
        [1.0; 4 * WIDTH],
    );
    for (shape, ids) in [
        (&[4, WIDTH][..], &[0, 1, 2, 3][..]),
        (&[2, 1, 2, WIDTH], &[0, 1, 2]),
        (&[1, 2, 2, WIDTH], &[0]),
    ] {
        let view = TensorView::new(&data, shape).unwrap();
        let context = Context::new(shape, 0).with_samples(ids);
        let error = encoder
            .compress(view, &context, &mut Vec::new(), None)
            .unwrap_err();
        assert!(
            error.to_string().contains("samples must be one for each"),
            "{error}"
        );
    }
}
