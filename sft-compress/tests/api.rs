//! Arguments, limits and messages.

use sft_compress::{
    Codec, Decoder, ErrorKind, Range, Tensor, TensorView, decode, decode_expected, decode_limited,
};

fn message<T: std::fmt::Debug>(result: sft_compress::Result<T>, kind: ErrorKind) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind);
    error.to_string()
}

#[test]
fn settings_out_of_range_are_named() {
    for (keep, levels, expected) in [
        (1.5, 8, "keep must be in (0, 1], got 1.5"),
        (0.0, 8, "keep must be in (0, 1], got 0"),
        (-0.2, 8, "keep must be in (0, 1], got -0.2"),
        (f64::NAN, 8, "keep must be in (0, 1], got NaN"),
        (0.2, 1, "levels must be in 2..=256, got 1"),
        (0.2, 257, "levels must be in 2..=256, got 257"),
    ] {
        assert_eq!(
            message(Codec::paper(keep, levels), ErrorKind::InvalidArgument),
            expected
        );
    }
    for levels in [2, 256] {
        Codec::paper(f64::MIN_POSITIVE, levels).unwrap();
    }
}

#[test]
fn shapes_must_fit_the_data() {
    let invalid = |shape: &[usize]| {
        message(
            TensorView::new(&[1.0; 6], shape),
            ErrorKind::InvalidArgument,
        )
    };
    assert_eq!(
        invalid(&[2, 4]),
        "shape [2, 4] has 8 elements, but data has 6"
    );
    assert_eq!(invalid(&[]), "shape must have 1 to 8 dimensions, got 0");
    assert_eq!(invalid(&[1; 9]), "shape must have 1 to 8 dimensions, got 9");
    for shape in [&[usize::MAX, usize::MAX, 0][..], &[1 << 31]] {
        message(TensorView::new(&[], shape), ErrorKind::TooLarge);
    }
    TensorView::new(&[], &[0, 3]).unwrap();
    TensorView::new(&[1.0], &[1; 8]).unwrap();
}

#[test]
fn non_finite_elements_are_located() {
    let codec = Codec::paper(0.2, 8).unwrap();
    for (index, bad) in [
        (0, f32::NAN),
        (1500, f32::INFINITY),
        (2999, f32::NEG_INFINITY),
    ] {
        let mut data = vec![1.0; 3000];
        data[index] = bad;
        let result = codec.encode(TensorView::new(&data, &[3000]).unwrap(), 0);
        let expected =
            format!("element {index} is {bad}, but only finite elements can be quantized");
        assert_eq!(message(result, ErrorKind::NonFinite), expected);
    }
}

#[test]
fn a_codec_tells_its_settings() {
    let codec = Codec::paper(0.2, 8).unwrap();
    assert_eq!(
        (codec.keep(), codec.levels(), codec.range()),
        (0.2, Some(8), Some(Range::Tensor))
    );
    assert_eq!(codec.to_string(), "paper:0.2:8");
    let raw = Codec::raw().with_range(Range::Row);
    assert_eq!((raw.keep(), raw.levels(), raw.range()), (1.0, None, None));
    assert_eq!(raw.to_string(), "raw");
    assert_eq!(raw, Codec::raw());
}

#[test]
fn values_can_be_shared_between_threads() {
    fn shared<T: Copy + Send + Sync + 'static>() {}
    fn sent<T: Send + Sync + 'static>() {}
    shared::<Codec>();
    sent::<Tensor>();
    sent::<sft_compress::Error>();
}

#[test]
fn the_number_of_elements_is_limited() {
    let codec = Codec::paper(0.2, 8).unwrap();
    let zeros = vec![0.0; 1000];
    let frame = codec
        .encode(TensorView::new(&zeros, &[10, 100]).unwrap(), 0)
        .unwrap();
    assert_eq!(decode_limited(&frame, 1000).unwrap().data(), zeros);
    assert_eq!(
        message(decode_limited(&frame, 999), ErrorKind::TooLarge),
        "a tensor of 1000 elements, above the limit of 999"
    );
}

/// More zeros than any frame of so few bytes may claim by itself.
#[test]
fn a_receiver_that_knows_the_shape_decodes_what_the_limit_refuses() {
    let shape = [17_000, 1000];
    let zeros = vec![0.0; 17_000_000];
    let codec = Codec::dead_zone(1.25).unwrap();
    let frame = codec
        .encode(TensorView::new(&zeros, &shape).unwrap(), 0)
        .unwrap();
    let refused = message(decode(&frame), ErrorKind::TooLarge);
    assert!(
        refused.contains("a tensor of 17000000 elements, above the limit of 16")
            && refused.contains("for a frame of 24 bytes: few bytes can stand for any number")
            && refused.contains("expected shape or a limit of the receiver's own"),
        "{refused}"
    );
    assert_eq!(decode_expected(&frame, &shape).unwrap().data(), zeros);
    assert_eq!(
        message(
            decode_expected(&frame, &[1000, 17_000]),
            ErrorKind::OtherShape
        ),
        "a tensor of shape [17000, 1000], where [1000, 17000] is expected"
    );
}

#[test]
fn a_tensor_is_empty_after_an_error() {
    let data = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let view = TensorView::new(&data, &[2, 3]).unwrap();
    for codec in ["raw", "paper:0.5:8", "activation:0.5:8", "dead-zone:1"] {
        let codec: Codec = codec.parse().unwrap();
        let frame = codec.encode(view, 1).unwrap();
        let body = frame.len() - 4;
        for cut in 0..frame.len() {
            // A right envelope around a body that is too short.
            let mut damaged = frame[..cut.max(9)].to_vec();
            let length = (damaged.len() - 9).min(body) as u32;
            damaged[5..9].copy_from_slice(&length.to_le_bytes());
            damaged.extend(crc32fast::hash(&damaged).to_le_bytes());
            let mut tensor = Tensor::new(data.to_vec(), &[3, 2]).unwrap();
            if Decoder::new().decode_into(&damaged, &mut tensor).is_err() {
                assert_eq!(tensor, Tensor::default());
            }
        }
    }
}

#[test]
fn tensors_are_made_of_data_that_fits() {
    let tensor = Tensor::new(vec![1.0, 2.0], &[2, 1]).unwrap();
    assert_eq!(
        (tensor.shape(), tensor.data()),
        (&[2, 1][..], &[1.0, 2.0][..])
    );
    assert_eq!(
        message(Tensor::new(vec![1.0], &[2]), ErrorKind::InvalidArgument),
        "shape [2] has 2 elements, but data has 1"
    );
}

#[test]
fn tensors_give_back_what_they_hold() {
    let frame = Codec::raw()
        .encode(TensorView::new(&[1.0, 2.0], &[2, 1]).unwrap(), 0)
        .unwrap();
    let tensor = decode(&frame).unwrap();
    assert_eq!(
        tensor.view(),
        TensorView::new(&[1.0, 2.0], &[2, 1]).unwrap()
    );
    assert_eq!(tensor.view().shape(), tensor.shape());
    assert_eq!(tensor.clone().into_data(), tensor.data());
}
