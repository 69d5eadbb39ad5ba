//! Encoding and decoding of activation-like tensors, every named codec.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sft_compress::{Codec, Range, Result, TensorView, decode};

/// Two message sizes: a mini-batch of ViT-Tiny, and one of a toy model.
const SHAPES: [[usize; 3]; 2] = [[32, 197, 192], [16, 17, 64]];

/// Values like a transformer's activations: bell-shaped, rows of unequal scale,
/// every 48th channel an outlier.
fn activation(shape: [usize; 3]) -> Vec<f32> {
    let [samples, tokens, width] = shape;
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut data = Vec::with_capacity(samples * tokens * width);
    for _ in 0..samples * tokens {
        let scale = 1.0 + uniform();
        for channel in 0..width {
            let bell = uniform() + uniform() + uniform() + uniform();
            data.push(bell * scale * if channel % 48 == 0 { 6.0 } else { 1.0 });
        }
    }
    data
}

fn codecs() -> Result<Vec<Codec>> {
    let paper = Codec::paper(0.2, 8)?;
    Ok(vec![
        paper,
        paper.with_range(Range::Row),
        Codec::activation(0.2, 8)?,
        Codec::gradient(0.2, 8)?,
        Codec::dead_zone(1.5)?,
        Codec::raw(),
    ])
}

fn codec(c: &mut Criterion) {
    for shape in SHAPES {
        let data = activation(shape);
        let view = TensorView::new(&data, &shape).expect("the shape fits the data");
        let mut group = c.benchmark_group(format!("codec/{}x{}x{}", shape[0], shape[1], shape[2]));
        group.throughput(Throughput::Bytes(size_of_val(&data[..]) as u64));
        for codec in codecs().expect("the settings are in range") {
            let frame = codec.encode(view, 1).expect("the data is finite");
            let decoded = decode(&frame).expect("the frame is intact");
            assert_eq!(decoded.shape(), shape, "{codec}");
            group.bench_function(BenchmarkId::new("encode", codec), |b| {
                b.iter(|| codec.encode(black_box(view), 1));
            });
            group.bench_function(BenchmarkId::new("decode", codec), |b| {
                b.iter(|| decode(black_box(&frame)));
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = codec
}
criterion_main!(benches);
