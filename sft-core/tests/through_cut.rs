//! Accuracy of a model that stays split.
// Settings are written where they are used.
#![allow(clippy::large_types_passed_by_value)]

mod common;

use common::{Bench, settings};
use sft_compress::{Codec, TensorView, decode};
use sft_core::data::Data;
use sft_core::optim::Optimizer;
use sft_core::run::{Job, Run, Scheme, Settings};
use sft_core::split::{CutCodec, DeviceHalf, LabelSide, ServerHalf, Step};

fn evaluated(settings: Settings) -> Settings {
    Settings {
        evaluate_through_cut: true,
        ..settings
    }
}

fn through(run: &Run) -> Vec<Option<f64>> {
    run.rounds
        .iter()
        .map(|round| round.accuracy_through_cut)
        .collect()
}

/// So coarse that it changes answers.
fn coarse(labels: LabelSide) -> Settings {
    evaluated(Settings {
        activation: Codec::for_error(0.15).unwrap().into(),
        features: Codec::dead_zone(2.5).unwrap(),
        labels,
        lr: 1e-3,
        lr_server: 1e-3,
        ..settings(Scheme::Sft)
    })
}

/// The samples that are right after every mini-batch crossed by hand.
fn by_hand(bench: &Bench, run: &Run, cut: usize) -> f64 {
    let Settings {
        lora,
        batch,
        activation,
        features,
        labels,
        ..
    } = bench.settings;
    let (adapters, sgd) = (&run.adapters, Optimizer::sgd(0.0));
    let (low, high) = adapters.blocks.split_at(cut);
    let device = DeviceHalf::new(&bench.vit, lora, &adapters.embedding, low, None, sgd).unwrap();
    let server = ServerHalf::new(
        &bench.vit,
        lora,
        high,
        &adapters.head,
        LabelSide::Device,
        sgd,
    )
    .unwrap();
    let step = Step {
        learning_rate: 0.0,
        dropout_seed: 0,
    };
    let crossed = |tensor: &candle_core::Tensor, codec: Codec| {
        let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let frame = codec
            .encode(TensorView::new(&values, tensor.dims()).unwrap(), 0)
            .unwrap();
        let values = decode(&frame).unwrap().into_data();
        candle_core::Tensor::from_vec(values, tensor.dims(), tensor.device()).unwrap()
    };
    let CutCodec::Plain(activation) = activation else {
        panic!("a codec without a basis")
    };
    let (all, mut right) = (bench.test.labels.len(), 0);
    for first in (0..all).step_by(batch) {
        let samples: Vec<usize> = (first..all.min(first + batch)).collect();
        let inputs = bench.test.batch(&samples).unwrap().inputs;
        let hidden = device.forward(&inputs, step).unwrap();
        let hidden = hidden.with_state(crossed(&hidden.state, activation));
        let mut rows = server.forward(&hidden, step).unwrap().features;
        if labels == LabelSide::Device {
            rows = crossed(&rows, features);
        }
        for (row, &sample) in rows.to_vec2::<f32>().unwrap().iter().zip(&samples) {
            let weights = adapters
                .head
                .weight
                .chunks(row.len())
                .zip(&adapters.head.bias);
            let logit = |(weights, bias): (&[f32], &f32)| {
                bias + weights.iter().zip(row).map(|(w, x)| w * x).sum::<f32>()
            };
            let logits: Vec<f32> = weights.map(logit).collect();
            let largest = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
            right += usize::from(largest == Some(bench.test.labels[sample] as usize));
        }
    }
    right as f64 / all as f64
}

#[test]
fn it_is_what_every_mini_batch_gives_by_hand() {
    let mut differ = false;
    for labels in [LabelSide::Server, LabelSide::Device] {
        let bench = Bench::new(coarse(labels), 3);
        let run = bench.run().unwrap();
        let last = run.rounds.last().unwrap();
        assert_eq!(last.accuracy_through_cut, Some(by_hand(&bench, &run, 2)));
        differ |= last.accuracy_through_cut != Some(last.accuracy);
    }
    assert!(differ, "the codecs change some answer");
}

#[test]
fn a_cut_without_compression_changes_no_answer() {
    for scheme in [Scheme::SftRaw, Scheme::Sl] {
        for labels in [LabelSide::Server, LabelSide::Device] {
            let settings = Settings {
                labels,
                ..settings(scheme)
            };
            let run = Bench::new(evaluated(settings), 3).run().unwrap();
            let plain: Vec<_> = run
                .rounds
                .iter()
                .map(|round| Some(round.accuracy))
                .collect();
            assert_eq!(through(&run), plain, "{scheme:?}");
        }
    }
    for scheme in [Scheme::FlLora, Scheme::FlFull] {
        let run = Bench::new(evaluated(settings(scheme)), 3).run().unwrap();
        assert_eq!(through(&run), [None, None], "there is no cut");
    }
}

#[test]
fn threads_and_training_do_not_depend_on_it() {
    let by_basis = |threads, evaluate_through_cut| {
        let settings = Settings {
            activation: CutCodec::Transform(Some(0.3)),
            gradient: CutCodec::Transform(Some(1.5)),
            sample_memory_bytes: 1 << 20,
            threads,
            evaluate_through_cut,
            ..settings(Scheme::Sft)
        };
        Bench::new(settings, 3).run().unwrap()
    };
    let (one, four, without) = (by_basis(1, true), by_basis(4, true), by_basis(1, false));
    assert_eq!(through(&one), through(&four));
    assert!(through(&one).iter().all(|&accuracy| accuracy > Some(0.5)));
    assert_eq!(through(&without), [None, None]);
    assert!(one.adapters == without.adapters && one.codecs == without.codecs);
}

#[test]
fn devices_with_cuts_of_their_own_are_averaged() {
    // Squares leave three remainders: three devices.
    let bench = Bench::new(coarse(LabelSide::Server), 5);
    let cuts = [1, 3, 3];
    let job = Job {
        device_cuts: Some(&cuts),
        ..bench.job()
    };
    let run = common::run(&job).unwrap();
    let [shallow, deep] = [1, 3].map(|cut| by_hand(&bench, &run, cut));
    assert!((shallow - deep).abs() > 0.01, "{shallow} {deep}");
    let got = run.rounds[1].accuracy_through_cut.unwrap();
    assert!((got - (shallow + 2.0 * deep) / 3.0).abs() < 1e-12);
}
