//! Arguments, limits and messages.

use sft_compress::{Codec, ErrorKind, Range, Tensor, TensorView, decode, decode_limited};

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
    assert_eq!(codec.to_string(), "paper(keep 0.2, levels 8, range tensor)");
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
