//! Whole runs: determinism, traffic, stop rule, divergence, refused settings.

// Settings are written where they are used.
#![allow(clippy::large_types_passed_by_value)]

mod common;

use candle_core::{Device, Tensor};
use common::{Bench, config, settings};
use sft_core::Error;
use sft_core::adapter::{Adapters, Head, Lora};
use sft_core::data::Inputs;
use sft_core::model::Model;
use sft_core::optim::Optimizer;
use sft_core::optim::{Decay, Schedule};
use sft_core::run::{RoundRecord, Scheme, Settings, fed_avg, logits};

fn run(settings: Settings, devices: usize) -> sft_core::Result<sft_core::run::Run> {
    Bench::new(settings, devices).run()
}

fn without_wall(rounds: &[RoundRecord]) -> Vec<RoundRecord> {
    rounds
        .iter()
        .map(|round| RoundRecord {
            wall_s: 0.0,
            ..round.clone()
        })
        .collect()
}

#[test]
fn the_number_of_threads_changes_nothing() {
    for scheme in Scheme::ALL {
        let one = run(
            Settings {
                threads: 1,
                ..settings(scheme)
            },
            3,
        )
        .unwrap();
        for threads in [2, 5] {
            let more = run(
                Settings {
                    threads,
                    ..settings(scheme)
                },
                3,
            )
            .unwrap();
            assert_eq!(without_wall(&one.rounds), without_wall(&more.rounds));
            assert_eq!(one.adapters, more.adapters);
        }
        let other = run(
            Settings {
                seed: 4,
                ..settings(scheme)
            },
            3,
        )
        .unwrap();
        assert_ne!(one.adapters, other.adapters, "the seed does");
    }
}

#[test]
fn every_scheme_learns() {
    for scheme in Scheme::ALL {
        let (optimizer, rate) = (Optimizer::adamw(), 3e-3);
        let settings = Settings {
            rounds: 12,
            optimizer,
            lr: rate,
            lr_server: rate,
            ..settings(scheme)
        };
        let outcome = run(settings, 3).unwrap();
        let (first, last) = (&outcome.rounds[0], &outcome.rounds[11]);
        assert!(
            last.loss < 0.7 * first.loss,
            "{scheme:?}: {} to {}",
            first.loss,
            last.loss
        );
        assert!(last.accuracy > 0.6, "{scheme:?}: {}", last.accuracy);
    }
}

#[test]
fn bytes_are_those_of_the_frames() {
    let raw = run(settings(Scheme::SftRaw), 1).unwrap().rounds.remove(1);
    let elements = 2 * 30 * (config().tokens() * config().hidden_size) as u64;
    let (labels, messages) = (2 * 30 * 4, 2 * 8);
    let overhead = raw.bytes_down - 4 * elements;
    assert!(
        overhead < 40 * messages,
        "frame headers take {overhead} bytes"
    );
    assert_eq!(raw.bytes_up, raw.bytes_down + labels);
    let lora = Lora::new(3, 6.0).unwrap();
    let adapter = 4 * 2 * lora.block_parameters(&config().spec()) as u64;
    assert!((adapter..adapter + 40).contains(&raw.adapter_bytes_up));
    assert_eq!(raw.adapter_bytes_up, raw.adapter_bytes_down);

    let compressed = run(settings(Scheme::Sft), 1).unwrap().rounds.remove(1);
    assert!(compressed.bytes_up < raw.bytes_up / 4);
    assert!(compressed.bytes_down < compressed.bytes_up);

    let fl = run(settings(Scheme::FlLora), 1).unwrap().rounds.remove(1);
    assert_eq!((fl.bytes_up, fl.bytes_down), (0, 0));
    let head = 4 * 3 * (config().hidden_size as u64 + 1);
    assert!((2 * adapter + head..2 * adapter + head + 40).contains(&fl.adapter_bytes_up));
}

#[test]
fn the_stop_rule_ends_the_run() {
    let settings = Settings {
        rounds: 30,
        target_accuracy: Some(0.6),
        ..settings(Scheme::Sft)
    };
    let rounds = run(settings, 3).unwrap().rounds;
    let (last, before) = rounds.split_last().unwrap();
    assert!(rounds.len() < 30 && last.accuracy >= 0.6);
    assert!(before.iter().all(|round| round.accuracy < 0.6));
}

#[test]
fn divergence_names_round_device_and_tensor() {
    for scheme in Scheme::ALL {
        let optimizer = Optimizer::sgd(0.9);
        let settings = Settings {
            lr: 1e20,
            lr_server: 1e20,
            optimizer,
            ..settings(scheme)
        };
        match run(settings, 2) {
            Err(error @ Error::Diverged { round: 1, .. }) => {
                let line = error.to_string();
                assert!(
                    line.starts_with("training diverged in round 1 on device "),
                    "{line}"
                );
            }
            other => panic!("{scheme:?}: {other:?}"),
        }
    }
}

#[test]
fn a_sample_that_is_not_finite_is_no_divergence() {
    let mut bench = Bench::new(settings(Scheme::Sft), 2);
    let samples = bench.train.labels.len();
    let values = bench.train.inputs.flatten_all().unwrap();
    let mut values = values.to_vec1::<f32>().unwrap();
    let first = 7 * values.len() / samples;
    values[first] = f32::NAN;
    let shape = bench.train.inputs.shape().clone();
    bench.train.inputs = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
    let error = bench.run().unwrap_err().to_string();
    assert_eq!(error, "data must be finite, got another value in sample 7");
}

#[test]
fn refused_settings_name_the_setting() {
    let good = settings(Scheme::Sft);
    let cases = [
        (
            "cut must be in 1..=3 for a model of 4 blocks, got 0",
            Settings { cut: 0, ..good },
        ),
        (
            "cut must be in 1..=3 for a model of 4 blocks, got 4",
            Settings { cut: 4, ..good },
        ),
        (
            "rounds must be at least 1, got 0",
            Settings { rounds: 0, ..good },
        ),
        (
            "batch must be at least 1, got 0",
            Settings { batch: 0, ..good },
        ),
        (
            "local_epochs must be at least 1, got 0",
            Settings {
                local_epochs: 0,
                ..good
            },
        ),
        (
            "threads must be at least 1, got 0",
            Settings { threads: 0, ..good },
        ),
        ("lr must be positive, got -1", Settings { lr: -1.0, ..good }),
        (
            "lr_server must be positive, got NaN",
            Settings {
                lr_server: f64::NAN,
                ..good
            },
        ),
        (
            "lr_decay must be in (0, 1], got 1.5",
            Settings {
                schedule: Schedule::new(Decay::Exponential(1.5)),
                ..good
            },
        ),
        (
            "momentum must be in [0, 1), got 1",
            Settings {
                optimizer: Optimizer::sgd(1.0),
                ..good
            },
        ),
        (
            "target_accuracy must be in (0, 1], got 93",
            Settings {
                target_accuracy: Some(93.0),
                ..good
            },
        ),
    ];
    assert_refused(good, cases);
}

fn assert_refused<'a>(good: Settings, cases: impl IntoIterator<Item = (&'a str, Settings)>) {
    let bench = Bench::new(good, 2);
    for (message, settings) in cases {
        let job = sft_core::run::Job {
            settings,
            ..bench.job()
        };
        let error = common::run(&job).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn absurd_sizes_are_refused_before_anything_is_made_of_them() {
    let good = settings(Scheme::Sft);
    let cases = [
        (
            "rounds must be at most 1000000, got 1000000000",
            Settings {
                rounds: 1_000_000_000,
                ..good
            },
        ),
        (
            "batch must be at most 1000000, got 1000000000",
            Settings {
                batch: 1_000_000_000,
                ..good
            },
        ),
        (
            "local_epochs must be at most 1000000, got 18446744073709551615",
            Settings {
                local_epochs: usize::MAX,
                ..good
            },
        ),
        (
            "threads must be at most 1024, got 1000000",
            Settings {
                threads: 1_000_000,
                ..good
            },
        ),
        (
            "rank must be at most 12, the model's width, got 65536",
            Settings {
                lora: sft_core::adapter::Lora::new(65_536, 1.0).unwrap(),
                ..good
            },
        ),
    ];
    assert_refused(good, cases);
}

#[test]
fn a_job_whose_parts_do_not_fit_is_refused() {
    let bench = Bench::new(settings(Scheme::Sft), 2);
    let error = |job: &sft_core::run::Job<'_>| common::run(job).unwrap_err().to_string();
    let job = bench.job();
    assert!(
        error(&sft_core::run::Job {
            partition: &[],
            ..job
        })
        .starts_with("partition must")
    );
    let far = [vec![0, 30]];
    assert!(
        error(&sft_core::run::Job {
            partition: &far,
            ..job
        })
        .starts_with("partition must")
    );
    let head = Head::new(4, 12, 0);
    assert!(
        error(&sft_core::run::Job { head: &head, ..job }).starts_with("head must have 3 classes")
    );
}

fn adapters(values: &[f32]) -> Adapters {
    let head = Head {
        classes: 1,
        weight: values.to_vec(),
        bias: vec![values[0]],
        adapter: Vec::new(),
    };
    Adapters {
        embedding: values.to_vec(),
        blocks: vec![values.to_vec(), vec![]],
        head,
    }
}

#[test]
fn averaging_equal_adapters_changes_no_bit() {
    let one = adapters(&[0.1, -3.0e-30, 7.7e20, f32::MIN_POSITIVE]);
    let sizes = [3, 1, 7, 11];
    let mean = fed_avg(sizes.iter().map(|&samples| (&one, samples)));
    assert_eq!(mean, one);
}

#[test]
fn averages_are_weighted_by_samples() {
    let (a, b) = (adapters(&[1.0, 2.0]), adapters(&[5.0, -2.0]));
    let mean = fed_avg([(&a, 3), (&b, 1)].into_iter());
    assert_eq!(mean, adapters(&[2.0, 1.0]));
}

#[test]
fn new_adapters_leave_the_model_as_it_was() {
    let bench = Bench::new(settings(Scheme::Sft), 1);
    let lora = Lora::new(3, 6.0).unwrap();
    let start = Adapters::new(bench.vit.spec(), lora, bench.head.clone(), 1);
    let mut none = start.clone();
    none.blocks.iter_mut().for_each(|block| block.fill(0.0));
    let input = Inputs::Pixels(bench.test.inputs.narrow(0, 0, 2).unwrap());
    let logits = |adapters| {
        logits(&bench.vit, lora, adapters, &input)
            .unwrap()
            .to_vec2::<f32>()
            .unwrap()
    };
    assert_eq!(logits(&start), logits(&none));
}

/// The progress of a run of absurd length is known at once, and no number wraps.
#[test]
fn batches_are_counted_without_going_through_rounds() {
    let most = Settings {
        rounds: 1_000_000,
        local_epochs: 1_000_000,
        ..settings(Scheme::Sft)
    };
    let bench = Bench::new(most, 2);
    let one = Bench::new(Settings { rounds: 1, ..most }, 2);
    assert_eq!(
        bench.job().batches_after(0),
        1_000_000 * one.job().batches_after(0)
    );
    assert_eq!(bench.job().batches_after(1_000_000), 0);
    let some = |participation| Settings {
        rounds: 3,
        participation,
        ..settings(Scheme::Sft)
    };
    let [all, half] = [1.0, 0.5].map(|part| Bench::new(some(part), 2));
    let of = |device| {
        (1..=3)
            .filter(|&r| half.job().participants(r).contains(&device))
            .count()
    };
    let each = |bench: &Bench, device: usize| bench.partition[device].len().div_ceil(most.batch);
    let epochs = settings(Scheme::Sft).local_epochs;
    let expected: usize = (0..2).map(|n| of(n) * each(&half, n) * epochs).sum();
    assert_eq!(half.job().batches_after(0), expected);
    let expected: usize = (0..2).map(|n| 3 * each(&all, n) * epochs).sum();
    assert_eq!(all.job().batches_after(0), expected);
}

/// A label that is no class sizes nothing.
#[test]
fn labels_far_above_the_samples_are_refused() {
    struct Labels(u32);
    impl sft_core::data::Data for Labels {
        fn len(&self) -> usize {
            10
        }

        fn classes(&self) -> usize {
            self.0 as usize + 1
        }

        fn label(&self, _: usize) -> u32 {
            self.0
        }

        fn batch(&self, _: &[usize]) -> sft_core::Result<sft_core::data::Batch> {
            unreachable!("nothing is trained")
        }
    }
    for partition in ["iid", "dirichlet:0.5", "shards:2"] {
        let partition: sft_core::data::Partition = partition.parse().unwrap();
        let error = partition.split(&Labels(1_000_000_000), 2, 1).unwrap_err();
        let expected = "labels must be below 32768 for 10 training samples, got 1000000000";
        assert_eq!(error.to_string(), expected);
        assert!(partition.split(&Labels(21_840), 2, 1).is_ok());
    }
}
