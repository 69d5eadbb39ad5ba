//! FL with full parameters.

mod common;

use candle_core::{Tensor, Var};
use common::{Bench, config, run, settings};
use sft_core::adapter::Head;
use sft_core::model::{Backend, Vit};
use sft_core::optim::Optimizer;
use sft_core::run::{Job, Scheme, Settings};

#[test]
fn all_parameters_are_sent_and_trained() {
    let bench = Bench::new(settings(Scheme::FlFull), 2);
    let outcome = bench.run().unwrap();
    let shapes = config().parameters();
    let count = |shape: &Vec<usize>| shape.iter().product::<usize>();
    let parameters: usize = shapes.iter().map(|(_, shape)| count(shape)).sum();
    let head = 3 * (config().hidden_size + 1);
    let bytes = 4 * (bench.partition.len() * (parameters + head)) as u64;
    let round = &outcome.rounds[0];
    assert!((bytes..bytes + 80).contains(&round.adapter_bytes_up));
    assert_eq!(round.adapter_bytes_up, round.adapter_bytes_down);
    let start = bench.job().start().unwrap();
    for (i, (name, _)) in shapes.iter().enumerate() {
        // The key's bias shifts all scores of a row alike: its gradient is rounding.
        let moved = outcome.adapters.blocks[i] != start.adapters.blocks[i];
        assert!(moved || name.ends_with("key.bias"), "{name} did not move");
    }
    let job = Job {
        base: None,
        ..bench.job()
    };
    let error = run(&job).unwrap_err().to_string();
    assert_eq!(error, "base must be given for fl-full, got none");
}

/// One device, no momentum: FL with full parameters is gradient descent on the whole model.
#[test]
fn full_parameters_are_plain_gradient_descent() {
    let settings = Settings {
        optimizer: Optimizer::sgd(0.0),
        rounds: 1,
        local_epochs: 1,
        batch: 30,
        ..settings(Scheme::FlFull)
    };
    let bench = Bench::new(settings, 1);
    let got = bench.run().unwrap().adapters;
    let tensors: std::collections::HashMap<_, _> = common::tensors(&config(), 7)
        .into_iter()
        .map(|(name, tensor)| (name, Var::from_tensor(&tensor).unwrap()))
        .collect();
    let named = tensors
        .iter()
        .map(|(n, v)| (n.clone(), v.as_tensor().clone()));
    let weights = sft_core::model::VitWeights::new(&config(), &named.collect()).unwrap();
    let vit = Vit::new(
        &config(),
        &weights,
        Backend::Candle(candle_core::Device::Cpu),
    )
    .unwrap();
    let Head { weight, bias, .. } = &bench.head;
    let device = &candle_core::Device::Cpu;
    let weight = Tensor::from_slice(weight, (3, 12), device).unwrap();
    let bias = Tensor::from_slice(bias, 3, device).unwrap();
    let features = vit.features(&bench.train.inputs).unwrap();
    let logits = features
        .matmul(&weight.t().unwrap())
        .unwrap()
        .broadcast_add(&bias)
        .unwrap();
    let labels = Tensor::new(bench.train.labels.as_slice(), device).unwrap();
    let grads = candle_nn::loss::cross_entropy(&logits, &labels)
        .unwrap()
        .backward()
        .unwrap();
    for ((name, _), got) in config().parameters().iter().zip(&got.blocks) {
        let var = &tensors[name];
        let want = (var.as_tensor() - (grads.get(var).unwrap() * 0.02).unwrap()).unwrap();
        let want = want.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-5, "{name}: {got} {want}");
        }
    }
}
