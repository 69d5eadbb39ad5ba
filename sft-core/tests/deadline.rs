//! Devices that are late.

mod common;

use std::time::Duration;

use common::{Bench, InMemory, NEVER, settings};
use sft_core::Result;
use sft_core::data::{Batch, Data};
use sft_core::run::{Run, Scheme, Settings, finetune};
use sft_core::split::LabelSide;

/// How long a device may take: a thousand times what it needs, unless it stalls.
const DEADLINE_S: f64 = 2.0;

/// Data that one device reads too slowly.
struct Stalling<'a> {
    data: &'a InMemory,
    slow: usize,
}

impl Data for Stalling<'_> {
    fn len(&self) -> usize {
        self.data.len()
    }

    fn classes(&self) -> usize {
        self.data.classes()
    }

    fn label(&self, index: usize) -> u32 {
        self.data.label(index)
    }

    fn batch(&self, samples: &[usize]) -> Result<Batch> {
        if samples.contains(&self.slow) {
            std::thread::sleep(Duration::from_secs_f64(1.1 * DEADLINE_S));
        }
        self.data.batch(samples)
    }
}

fn one_round(scheme: Scheme, deadline_s: Option<f64>) -> Bench {
    let settings = Settings {
        rounds: 1,
        local_epochs: 1,
        threads: 1,
        ..settings(scheme)
    };
    // Squares leave three remainders: three devices.
    let mut bench = Bench::new(settings, 5);
    bench.settings.deadline_s = deadline_s;
    bench
}

fn run(bench: &Bench, train: &dyn Data, partition: &[Vec<usize>]) -> Result<Run> {
    let mut job = bench.job();
    (job.train, job.partition, job.stop) = (train, partition, &NEVER);
    finetune(&job, job.start()?, &mut |_| Ok(()))
}

#[test]
fn a_late_device_is_left_out_and_the_others_are_averaged() {
    std::thread::scope(|scope| {
        for scheme in Scheme::ALL {
            scope.spawn(move || leaves_out_who_is_late(scheme, LabelSide::Server));
        }
        scope.spawn(|| leaves_out_who_is_late(Scheme::Sft, LabelSide::Device));
    });
}

fn leaves_out_who_is_late(scheme: Scheme, labels: LabelSide) {
    let mut bench = one_round(scheme, Some(DEADLINE_S));
    bench.settings.labels = labels;
    let train = Stalling {
        data: &bench.train,
        slow: bench.partition[2][0],
    };
    let with = run(&bench, &train, &bench.partition).unwrap();
    let without = run(&bench, &bench.train, &bench.partition[..2]).unwrap();
    let (round, alone) = (&with.rounds[0], &without.rounds[0]);
    assert_eq!(
        (round.devices.as_slice(), round.late.as_slice()),
        (&[0, 1][..], &[2][..])
    );
    assert_eq!(with.adapters, without.adapters, "{}", scheme.name());
    assert_eq!((round.loss, round.accuracy), (alone.loss, alone.accuracy));
    assert!(
        round.protocol_bytes_up > alone.protocol_bytes_up,
        "it said hello"
    );
    assert!(!with.codecs.contains_key(&2), "it remembers what it did");
}

#[test]
fn a_round_without_any_device_in_time_is_an_error() {
    for scheme in Scheme::ALL {
        let bench = one_round(scheme, Some(1e-9));
        let error = bench.run().unwrap_err().to_string();
        assert!(
            error.contains("deadline_s must leave some device enough time"),
            "{error}"
        );
    }
}

#[test]
fn a_deadline_that_is_none_is_refused() {
    for deadline in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = one_round(Scheme::Sft, Some(deadline))
            .run()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("deadline_s must be positive, got"),
            "{error}"
        );
    }
}
