//! One split training step, device and server half, without the codec.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use sft_benches::shapes::Shape;
use sft_benches::train::Halves;

fn split_step(c: &mut Criterion) {
    let mut group = c.benchmark_group("split step");
    group.sample_size(10);
    for shape in [Shape::digits(), Shape::tiny()] {
        let model = shape.model().expect("a model of these sizes");
        let mut halves = Halves::new(&shape, &model).expect("halves of the model");
        group.bench_function(shape.title(), |b| {
            b.iter(|| black_box(halves.step()).expect("a step"));
        });
    }
    group.finish();
}

criterion_group!(benches, split_step);
criterion_main!(benches);
