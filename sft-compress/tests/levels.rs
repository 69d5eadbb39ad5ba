//! Large tensors have the same frames, whatever instructions the environment
//! variable `SFT_SIMD` allows and however many threads there are.

use crc32fast::hash;
use sft_compress::{Codec, Decoder, Encoder, Tensor, TensorView};

/// Elements like a transformer's, of several chunks and 32 lanes.
fn data() -> Vec<f32> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..3000 * 224)
        .map(|i| {
            let scale = 1.0 + (i / 224 % 7) as f32;
            let outlier = if i % 224 == 17 { 9.0 } else { 1.0 };
            (uniform() + uniform() + uniform()) * scale * outlier
        })
        .collect()
}

/// The checksums of frame and elements of each codec.
fn checksums() -> Vec<[u32; 2]> {
    let data = data();
    let view = TensorView::new(&data, &[3000, 224]).unwrap();
    let codecs = [
        Codec::paper(0.2, 8),
        Codec::activation(0.2, 8),
        Codec::activation(0.3, 40),
        Codec::gradient(0.2, 8),
        Codec::gradient(0.1, 2),
        Codec::dead_zone(1.5),
        Codec::dead_zone(0.05),
        Codec::for_error(0.02),
        Codec::unbiased(0.3),
        Codec::unbiased(8.0),
    ];
    let checksum = |codec: Codec| {
        let (mut frame, mut tensor) = (Vec::new(), Tensor::default());
        Encoder::new(codec)
            .encode_into(view, 3, &mut frame)
            .unwrap();
        Decoder::new().decode_into(&frame, &mut tensor).unwrap();
        let elements: Vec<u8> = tensor.data().iter().flat_map(|x| x.to_le_bytes()).collect();
        // Without the frame's own checksum, behind which all are alike.
        [hash(&frame[..frame.len() - 4]), hash(&elements)]
    };
    codecs.map(|codec| checksum(codec.unwrap())).into()
}

#[test]
fn frames_do_not_depend_on_the_instructions() {
    let expected = [
        [0x1ef3_1e05, 0x74e9_1684],
        [0x241d_5ac5, 0x0070_32ae],
        [0x9e74_7c81, 0x521b_a6dd],
        [0x43bf_e6de, 0x63fa_8595],
        [0x4f20_e8ea, 0x5629_2de0],
        [0x2e19_8c03, 0x72c1_0dc7],
        [0x7062_3145, 0x5cd8_d33d],
        [0x70db_ddfd, 0x9aa6_2220],
        [0x8d74_1845, 0xfd62_43ec],
        [0x598d_68b5, 0x6c20_45b6],
    ];
    assert_eq!(checksums(), expected, "of this processor and `SFT_SIMD`");
}

#[cfg(feature = "rayon")]
#[test]
fn frames_do_not_depend_on_the_threads() {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(checksums)
    };
    let alone = on(1);
    assert!(on(2) == alone && on(5) == alone);
}
