//! `ndarray` in and out.
#![cfg(feature = "ndarray")]

use ndarray::{Array0, Array1, Array2, Array4, ArrayD, IxDyn, ShapeBuilder, s};
use sft_compress::{Codec, Dtype, ErrorKind, TensorView, decode};

fn array() -> Array4<f32> {
    Array4::from_shape_fn((2, 3, 4, 5), |(a, b, c, d)| {
        (60 * a + 20 * b + 5 * c + d) as f32 - 50.0
    })
}

#[test]
fn arrays_encode_as_their_elements_do() {
    let array = array();
    let plain = TensorView::new(array.as_slice().unwrap(), &[2, 3, 4, 5]).unwrap();
    let dynamic = array.clone().into_dyn();
    let shared = array.clone().into_shared();
    assert_eq!(TensorView::of_array(&array).unwrap(), plain);
    assert_eq!(TensorView::of_array(&dynamic).unwrap(), plain);
    assert_eq!(TensorView::of_array(&shared).unwrap(), plain);
    assert_eq!(TensorView::of_array(&array.view()).unwrap(), plain);
    let back = decode(&Codec::raw().encode(plain, 0).unwrap()).unwrap();
    assert_eq!(back.into_array(), dynamic);
}

#[test]
fn a_part_without_gaps_is_viewed_in_place() {
    let array = array();
    let part = array.slice(s![1, 1.., .., ..]);
    let view = TensorView::of_array(&part).unwrap();
    assert_eq!(view.shape(), [2, 4, 5]);
    assert_eq!(view.elements().to_f32().as_ref(), part.as_slice().unwrap());
}

#[test]
fn halves_keep_their_bits_and_type() {
    let bits = Array2::from_shape_fn((4, 8), |(i, j)| 0x3c00 + (8 * i + j) as u16);
    for (view, dtype) in [
        (TensorView::of_f16_array(&bits).unwrap(), Dtype::F16),
        (TensorView::of_bf16_array(&bits).unwrap(), Dtype::Bf16),
    ] {
        let back = decode(&Codec::raw().encode(view, 0).unwrap()).unwrap();
        assert_eq!(back.dtype(), dtype);
        let back_bits = match dtype {
            Dtype::F16 => back.to_f16_bits(),
            _ => back.to_bf16_bits(),
        };
        assert_eq!(back_bits, bits.as_slice().unwrap());
        assert_eq!(back.into_array().shape(), [4, 8]);
    }
}

#[test]
fn other_orders_are_refused_with_the_remedy() {
    let array = array();
    let transposed = array.t();
    let error = TensorView::of_array(&transposed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(
        error.to_string(),
        "array must be in row-major order without gaps, got shape [5, 4, 3, 2] with strides \
         [1, 5, 20, 60]; as_standard_layout() makes it so"
    );
    let remedied = transposed.as_standard_layout();
    let view = TensorView::of_array(&remedied).unwrap();
    assert_eq!(view.shape(), [5, 4, 3, 2]);
    let gaps = array.slice(s![.., .., .., ..;2]);
    assert!(TensorView::of_array(&gaps).is_err());
    let backward = array.slice(s![..;-1, .., .., ..]);
    assert!(TensorView::of_array(&backward).is_err());
    let fortran = Array2::<u16>::zeros((3, 4).f());
    assert!(TensorView::of_f16_array(&fortran).is_err());
    assert!(TensorView::of_bf16_array(&fortran).is_err());
}

#[test]
fn dimensions_are_one_to_eight_and_may_be_zero() {
    let scalar = Array0::<f32>::zeros(());
    assert_eq!(
        TensorView::of_array(&scalar).unwrap_err().to_string(),
        "shape must have 1 to 8 dimensions, got 0"
    );
    assert!(TensorView::of_array(&ArrayD::zeros(IxDyn(&[1; 9]))).is_err());
    for shape in [&[0][..], &[3, 0, 2], &[1; 8]] {
        let array = ArrayD::<f32>::zeros(IxDyn(shape));
        let view = TensorView::of_array(&array).unwrap();
        let frame = Codec::dead_zone(1.0).unwrap().encode(view, 0).unwrap();
        assert_eq!(decode(&frame).unwrap().into_array(), array);
    }
    let empty = Array1::<f32>::zeros(0);
    assert_eq!(TensorView::of_array(&empty).unwrap().shape(), [0]);
}
