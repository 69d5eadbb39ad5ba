//! One split training step, device and server half, without the codec.

use std::collections::HashMap;
use std::hint::black_box;

use candle_core::{Device, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use sft_core::{
    Adapters, DeviceHalf, Head, Lora, Model, Optimizer, ServerHalf, Step, Vit, VitConfig,
    VitWeights,
};

/// Weights of deviation 0.02 and gains of 1: their values do not matter for speed.
fn vit(config: &VitConfig) -> candle_core::Result<Vit> {
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let gain = name.contains("norm") && name.ends_with("weight");
        let mean = if gain { 1.0f32 } else { 0.0 };
        Ok((name, Tensor::randn(mean, 0.02, shape, &Device::Cpu)?))
    };
    let tensors: HashMap<_, _> = config
        .parameters()
        .into_iter()
        .map(tensor)
        .collect::<candle_core::Result<_>>()?;
    let weights = VitWeights::new(config, &tensors).map_err(candle_core::Error::msg)?;
    Vit::new(config, &weights)
}

/// The digits model of the examples, and a ViT-Tiny on 32x32 images.
fn configs() -> [(&'static str, VitConfig, usize, usize); 2] {
    let digits = VitConfig {
        hidden_size: 64,
        num_hidden_layers: 6,
        num_attention_heads: 4,
        intermediate_size: 256,
        image_size: 8,
        patch_size: 2,
        num_channels: 1,
        ..VitConfig::default()
    };
    let tiny = VitConfig {
        hidden_size: 192,
        num_attention_heads: 3,
        intermediate_size: 768,
        image_size: 32,
        patch_size: 4,
        ..VitConfig::default()
    };
    [
        ("digits, batch 16, rank 8", digits, 16, 8),
        ("tiny, 65 tokens, batch 32, rank 16", tiny, 32, 16),
    ]
}

fn split_step(c: &mut Criterion) {
    gemm::set_threading_threshold(usize::MAX);
    let mut group = c.benchmark_group("split step");
    group.sample_size(10);
    for (name, config, batch, rank) in configs() {
        let model = vit(&config).expect("a model of these sizes");
        let lora = Lora::new(rank, rank as f64).expect("a valid rank");
        let head = Head::new(10, config.hidden_size, 1);
        let start = Adapters::new(&model, lora, head, 1);
        let (low, high) = start.blocks.split_at(model.depth() / 2);
        let sgd = Optimizer::sgd(0.9);
        let mut device =
            DeviceHalf::new(&model, lora, &start.patch, low, sgd).expect("a device half");
        let mut server =
            ServerHalf::new(&model, lora, high, &start.head, sgd).expect("a server half");
        let shape = (
            batch,
            config.num_channels,
            config.image_size,
            config.image_size,
        );
        let input = Tensor::randn(0.0f32, 1.0, shape, &Device::Cpu).expect("an input");
        let labels: Vec<u32> = (0..batch as u32).map(|i| i % 10).collect();
        let at = Step {
            learning_rate: 1e-3,
            dropout_seed: 0,
        };
        group.bench_function(name, |b| {
            b.iter(|| {
                let activation = device.forward(black_box(&input), at).expect("forward");
                let step = server
                    .step(&activation.detach(), &labels, at)
                    .expect("server step");
                device
                    .backward(&activation, &step.gradient, at)
                    .expect("backward");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, split_step);
criterion_main!(benches);
