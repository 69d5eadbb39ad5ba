//! The transform codec on smooth activations, beside the bare product of a square rotation (by the
//! `gemm` crate, in candle; all on as many threads as there are).

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use candle_core::{DType, Device};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sft_compress::{
    Basis, Compressor, Context, Decompressor, Tensor, TensorView, Tokens, TransformDecoder,
    TransformEncoder,
};

/// Batches of ViT-Tiny and ViT-Base.
const SHAPES: [[usize; 3]; 2] = [[16, 197, 192], [8, 197, 768]];
/// The side of the grid of tokens.
const SIDE: usize = 14;
/// Patterns of channels.
const RANK: usize = 96;
const STEP: f64 = 0.3;

/// Waves over the grid in some patterns of channels, the first the strongest, and noise.
fn activation([samples, tokens, width]: [usize; 3]) -> Vec<f32> {
    let mut state = 7_u64;
    let mut uniform = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let patterns: Vec<f32> = (0..RANK * width).map(|_| uniform()).collect();
    let mut data = Vec::with_capacity(samples * tokens * width);
    for _ in 0..samples {
        let waves: Vec<[f32; 3]> = (0..RANK)
            .map(|_| [8.0, 8.0, 6.0].map(|scale| scale * uniform()))
            .collect();
        for token in 0..tokens {
            let place = [token / SIDE, token % SIDE].map(|at| at as f32 / SIDE as f32);
            let start = data.len();
            data.extend((0..width).map(|_| 0.05 * uniform()));
            for (rank, (wave, pattern)) in waves.iter().zip(patterns.chunks(width)).enumerate() {
                let phase = wave[0] * place[0] + wave[1] * place[1] + wave[2];
                let height = phase.cos() / (1.0 + rank as f32).sqrt();
                for (x, direction) in data[start..].iter_mut().zip(pattern) {
                    *x += height * direction;
                }
            }
        }
    }
    data
}

fn transform(c: &mut Criterion) {
    for shape in SHAPES {
        let data = activation(shape);
        let view = TensorView::new(&data, &shape).expect("the shape fits the data");
        let tokens = Tokens::grid(1, SIDE, SIDE).expect("the sides are in range");
        let learn =
            || Basis::of_activations(view, &[], tokens, STEP, None).expect("all is in range");
        let mut group =
            c.benchmark_group(format!("transform/{}x{}x{}", shape[0], shape[1], shape[2]));
        group.throughput(Throughput::Bytes(size_of_val(&data[..]) as u64));
        let basis = Arc::new(learn());
        let mut encoder = TransformEncoder::new(Arc::clone(&basis));
        let mut decoder = TransformDecoder::new(basis);
        let context = Context::new(&shape, 0);
        let (mut message, mut decoded) = (Vec::new(), Tensor::default());
        group.bench_function("encode", |b| {
            b.iter(|| encoder.compress(black_box(view), &context, &mut message, None));
        });
        group.bench_function("decode", |b| {
            b.iter(|| decoder.decompress(black_box(&message), &context, &mut decoded));
        });
        assert_eq!(decoded.shape(), shape);
        let width = shape[2];
        let rows = (data.len() / width, width);
        let rows = candle_core::Tensor::from_slice(&data, rows, &Device::Cpu).expect("it fits");
        let matrix = candle_core::Tensor::ones((width, width), DType::F32, &Device::Cpu)
            .expect("there is memory");
        group.bench_function("bare rotation", |b| b.iter(|| rows.matmul(&matrix)));
        group
            .sample_size(10)
            .bench_function("learn", |b| b.iter(learn));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = transform
}
criterion_main!(benches);
