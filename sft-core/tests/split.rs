//! Training split between device and server is training unsplit.

mod common;

use common::{Bench, InMemory, config, settings, vit};
use sft_core::adapter::{Adapters, Head, Lora, Targets};
use sft_core::data::{Batch, Data, Inputs, Labels};
use sft_core::model::{Model, Vit};
use sft_core::optim::Optimizer;
use sft_core::run::Scheme;
use sft_core::split::{DeviceHalf, LabelSide, ServerHalf, Step, WholeModel};

fn assert_close(a: &[Vec<f32>], b: &[Vec<f32>], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.concat().iter().zip(b.concat()) {
        assert!((a - b).abs() <= tolerance, "{a} and {b}");
    }
}

/// The paper's targets, and every layer that can be one.
fn all_targets() -> [Targets; 2] {
    [
        "q_proj,k_proj,v_proj,o_proj,fc1,fc2",
        "q_proj,k_proj,v_proj,o_proj,fc1,fc2,projection,classifier",
    ]
    .map(common::targets)
}

#[test]
fn five_split_steps_equal_five_unsplit_steps_wherever_the_cut_is() {
    for targets in all_targets() {
        for optimizer in [Optimizer::sgd(0.9), Optimizer::adamw()] {
            split_equals_unsplit(targets, optimizer);
        }
    }
}

fn split_equals_unsplit(targets: Targets, optimizer: Optimizer) {
    let config = config();
    // With dropout: both halves must draw the masks of the whole model.
    let lora = Lora::new(3, 6.0).unwrap().with_targets(targets);
    let lora = lora.with_dropout(0.2).unwrap();
    let model = vit(&config);
    let data = InMemory::new(20, 3, 1);
    let start = Adapters::new(model.spec(), lora, Head::new(3, config.hidden_size, 5), 9);
    let mut unsplit = WholeModel::new(&model, lora, &start, optimizer).unwrap();
    for step in 0..5 {
        let (at, (input, labels)) = (at(step), batch(&data, step));
        unsplit.step(&input, &labels, at).unwrap();
    }
    let whole = unsplit.adapters().unwrap();
    let outer = targets != Targets::ALL_LINEAR;
    assert_ne!(whole.blocks, start.blocks, "the steps change the adapters");
    assert_eq!(whole.embedding != start.embedding, outer);
    assert_eq!(whole.head.adapter != start.head.adapter, outer);
    assert_eq!(
        whole.head.weight == start.head.weight,
        outer,
        "it is frozen"
    );

    for cut in 1..config.num_hidden_layers {
        for labels in [LabelSide::Server, LabelSide::Device] {
            let at_cut = (cut, labels);
            let split = five_split_steps(&model, lora, &start, optimizer, &data, at_cut);
            assert_close(&vectors(&split), &vectors(&whole), 1e-6);
        }
    }
}

fn five_split_steps(
    model: &Vit,
    lora: Lora,
    start: &Adapters,
    optimizer: Optimizer,
    data: &InMemory,
    (cut, labels): (usize, LabelSide),
) -> Adapters {
    let (low, high) = start.blocks.split_at(cut);
    let head = &start.head;
    let below = (labels == LabelSide::Device).then_some(head);
    let embedding = &start.embedding;
    let mut device = DeviceHalf::new(model, lora, embedding, low, below, optimizer).unwrap();
    let mut server = ServerHalf::new(model, lora, high, head, labels, optimizer).unwrap();
    for step in 0..5 {
        let (at, (input, labels)) = (at(step), batch(data, step));
        let activation = device.forward(&input, at).unwrap();
        let received = activation.with_state(activation.state.detach());
        let (gradient, head) = if below.is_none() {
            let reply = server.step(&received, &labels, at).unwrap();
            (reply.gradient, None)
        } else {
            let passed = server.forward(&received, at).unwrap();
            let head = device.head(&passed.features.detach(), &labels, at).unwrap();
            let gradient = server.backward(passed, &head.gradient, at).unwrap();
            (gradient, Some(head))
        };
        device
            .backward(&activation, gradient.as_ref(), head, at)
            .unwrap();
    }
    let ((embedding, blocks), (rest, head)) =
        (device.adapters().unwrap(), server.adapters().unwrap());
    Adapters {
        embedding,
        blocks: [blocks, rest].concat(),
        head: head.or(device.trained_head().unwrap()).unwrap(),
    }
}

fn vectors(adapters: &Adapters) -> Vec<Vec<f32>> {
    let Head {
        classes: _,
        weight,
        bias,
        adapter,
    } = adapters.head.clone();
    let outer = vec![adapters.embedding.clone(), weight, bias, adapter];
    [adapters.blocks.clone(), outer].concat()
}

fn at(step: usize) -> Step {
    Step {
        learning_rate: 0.02,
        dropout_seed: step as u64,
    }
}

fn batch(data: &InMemory, step: usize) -> (Inputs, Labels) {
    let indices: Vec<usize> = (step * 4..step * 4 + 4).collect();
    let Batch { inputs, labels, .. } = data.batch(&indices).unwrap();
    (inputs, labels)
}

/// FL on one device trains the whole model there: plain fine-tuning.
#[test]
fn one_device_without_codec_is_plain_fine_tuning() {
    for targets in all_targets() {
        let outcome = |scheme, labels| {
            let mut settings = settings(scheme);
            settings.labels = labels;
            settings.lr_server = settings.lr;
            settings.lora = settings.lora.with_targets(targets);
            let bench = Bench::new(settings, 1);
            bench.run().unwrap()
        };
        let plain = outcome(Scheme::FlLora, LabelSide::Server);
        let sides = [LabelSide::Server, LabelSide::Device];
        let schemes = [Scheme::SftRaw, Scheme::Sl].map(|scheme| sides.map(|side| (scheme, side)));
        for (scheme, labels) in schemes.concat() {
            let split = outcome(scheme, labels);
            assert_close(&vectors(&split.adapters), &vectors(&plain.adapters), 1e-6);
            for (split, plain) in split.rounds.iter().zip(&plain.rounds) {
                assert!((split.loss - plain.loss).abs() < 1e-6);
                assert_eq!(split.accuracy.to_bits(), plain.accuracy.to_bits());
            }
        }
    }
}

#[test]
fn sequential_learning_passes_the_adapters_on() {
    let run = |devices| {
        let bench = Bench::new(settings(Scheme::Sl), devices);
        bench.run().unwrap()
    };
    let parallel = {
        let bench = Bench::new(settings(Scheme::SftRaw), 3);
        bench.run().unwrap()
    };
    assert_ne!(run(3).adapters, parallel.adapters);
    assert!(run(3).rounds[0].delay_s > parallel.rounds[0].delay_s);
}

#[test]
fn adapters_and_heads_that_do_not_fit_are_refused() {
    let model = vit(&config());
    let lora = Lora::new(3, 6.0).unwrap();
    let head = Head::new(3, config().hidden_size, 5);
    let start = Adapters::new(model.spec(), lora, head.clone(), 9);
    let device = |blocks: &[Vec<f32>]| {
        DeviceHalf::new(&model, lora, &[], blocks, None, Optimizer::adamw()).map(|_| ())
    };
    let server = |blocks: &[Vec<f32>], head: &Head| {
        ServerHalf::new(
            &model,
            lora,
            blocks,
            head,
            LabelSide::Server,
            Optimizer::adamw(),
        )
        .map(|_| ())
    };
    assert!(device(&start.blocks).is_ok() && server(&start.blocks, &head).is_ok());
    let five = [start.blocks.clone(), start.blocks[..1].to_vec()].concat();
    let short = vec![start.blocks[0][1..].to_vec()];
    for blocks in [&five, &short] {
        for error in [device(blocks), server(blocks, &head)] {
            let error = error.unwrap_err().to_string();
            assert!(
                error.starts_with("adapters must be at most 4 vectors of "),
                "{error}"
            );
        }
    }
    for head in [Head::new(0, 12, 5), Head::new(3, 11, 5)] {
        let error = server(&start.blocks, &head).unwrap_err().to_string();
        assert!(
            error.starts_with("head must have at least one class and width 12"),
            "{error}"
        );
    }
    let patch = lora.with_targets(common::targets("projection"));
    let error = DeviceHalf::new(&model, patch, &[], &[], None, Optimizer::adamw()).map(|_| ());
    assert_eq!(
        error.unwrap_err().to_string(),
        "adapters must have 60 values before the blocks, got 0"
    );
    let adapted = lora.with_targets(common::targets("classifier"));
    let error = ServerHalf::new(
        &model,
        adapted,
        &[],
        &head,
        LabelSide::Server,
        Optimizer::adamw(),
    )
    .map(|_| ());
    assert_eq!(
        error.unwrap_err().to_string(),
        "head must have an adapter of 45 values, got 0"
    );
}
