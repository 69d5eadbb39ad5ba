//! Devices with adapters of ranks of their own, and the average of products.

mod common;

use common::{Bench, run, settings};
use sft_core::adapter::Lora;
use sft_core::run::{Aggregation, Job, Run, Scheme, Settings, finetune};

fn product(scheme: Scheme) -> Settings {
    Settings {
        aggregation: Aggregation::Product,
        lora: Lora::new(4, 8.0).unwrap(),
        rounds: 3,
        ..settings(scheme)
    }
}

fn finite(run: &Run) -> bool {
    run.adapters.blocks.iter().flatten().all(|x| x.is_finite())
}

#[test]
fn devices_of_all_ranks_learn_in_every_scheme_on_any_number_of_threads() {
    let ranks = [1, 4, 2];
    for scheme in [Scheme::Sft, Scheme::SftRaw, Scheme::Sl, Scheme::FlLora] {
        let one = Bench::new(product(scheme), 5);
        let many = Bench::new(
            Settings {
                threads: 3,
                ..product(scheme)
            },
            5,
        );
        let [one, many] = [&one, &many].map(|bench| {
            run(&Job {
                device_ranks: Some(&ranks),
                ..bench.job()
            })
            .unwrap()
        });
        assert_eq!(one.adapters, many.adapters, "{scheme:?}");
        let lost = one.rounds[0].product_lost;
        assert_eq!(lost.is_some_and(|lost| lost > 0.0), scheme != Scheme::Sl);
        let losses: Vec<_> = one.rounds.iter().map(|round| round.loss).collect();
        assert!(
            losses[2] < losses[0] && finite(&one),
            "{scheme:?}: {losses:?}"
        );
    }
}

#[test]
fn a_run_of_ranks_goes_on_as_if_it_had_never_stopped() {
    let ranks = [2, 1, 4];
    let bench = Bench::new(product(Scheme::Sft), 5);
    let job = Job {
        device_ranks: Some(&ranks),
        ..bench.job()
    };
    let whole = run(&job).unwrap();
    let mut first = None;
    finetune(&job, job.start().unwrap(), &mut |run| {
        first.get_or_insert_with(|| run.clone());
        Ok(())
    })
    .unwrap();
    let rest = finetune(&job, first.unwrap(), &mut |_| Ok(())).unwrap();
    assert_eq!((rest.rounds.len(), &rest.adapters), (3, &whole.adapters));
}

/// What crosses of adapters is as many numbers as the device's rank says.
#[test]
fn adapters_cross_at_the_rank_of_their_device() {
    let bytes = |ranks: [usize; 3]| {
        let bench = Bench::new(product(Scheme::SftRaw), 5);
        let run = run(&Job {
            device_ranks: Some(&ranks),
            ..bench.job()
        });
        let round = &run.unwrap().rounds[0];
        (round.adapter_bytes_up, round.adapter_bytes_down)
    };
    let (most, some, least) = (bytes([4; 3]), bytes([1, 2, 3]), bytes([1; 3]));
    let step = (most.0 - least.0) / 9;
    assert_eq!((most.0 - some.0, some.0 - least.0), (6 * step, 3 * step));
    assert_eq!((most.1 - some.1, some.1 - least.1), (6 * step, 3 * step));
}

#[test]
fn equal_ranks_of_their_own_are_the_common_rank() {
    let bench = Bench::new(product(Scheme::Sft), 5);
    let job = Job {
        device_ranks: Some(&[4; 3]),
        ..bench.job()
    };
    assert_eq!(run(&job).unwrap().adapters, bench.run().unwrap().adapters);
}

/// With one device there is nothing to average: its product is kept, if by other factors.
#[test]
fn the_product_of_one_device_is_what_it_learned() {
    let with = |aggregation| {
        let settings = Settings {
            rounds: 1,
            aggregation,
            ..product(Scheme::SftRaw)
        };
        Bench::new(settings, 1).run().unwrap()
    };
    let [product, average] = [Aggregation::Product, Aggregation::Average].map(with);
    let accuracy = |run: &Run| run.rounds[0].accuracy.to_bits();
    assert_eq!(accuracy(&product), accuracy(&average));
    assert!(product.rounds[0].product_lost.unwrap() < 1e-9);
    assert_eq!(average.rounds[0].product_lost, None);
    assert_eq!(product.adapters.head, average.adapters.head);
    assert_ne!(product.adapters.blocks, average.adapters.blocks);
}

#[test]
fn ranks_that_do_not_fit_are_refused() {
    let bench = Bench::new(product(Scheme::Sft), 5);
    let average = Settings {
        aggregation: Aggregation::Average,
        ..product(Scheme::Sft)
    };
    let mean = Bench::new(average, 5);
    for (bench, ranks, message) in [
        (
            &bench,
            &[1, 2][..],
            "device_ranks must have one entry for each of 3 devices, got 2",
        ),
        (&bench, &[1, 0, 2], "device_ranks must be in 1..=4, got 0"),
        (&bench, &[1, 5, 2], "device_ranks must be in 1..=4, got 5"),
        (
            &mean,
            &[1, 4, 2],
            "aggregation must be product where ranks differ",
        ),
    ] {
        let job = Job {
            device_ranks: Some(ranks),
            ..bench.job()
        };
        let error = run(&job).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}
