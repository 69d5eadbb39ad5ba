//! Algorithm 1 and the schemes it is compared with.

mod local;
mod settings;

use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use settings::{Scheme, Settings};

use self::local::{Part, Turn};
use crate::parallel::parallel;
use crate::split::check_head;
use crate::{Adapters, Data, Error, Head, Model, Result, Traffic, Wireless, accuracy};

/// Everything that a fine-tuning run needs.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The frozen model.
    pub model: &'a dyn Model,
    /// The head to start from.
    pub head: &'a Head,
    /// The training data of all devices.
    pub train: &'a dyn Data,
    /// The indices of each device's examples, as [`Partition::split`](crate::Partition::split)
    /// gives them.
    pub partition: &'a [Vec<usize>],
    /// The data that accuracy is measured on.
    pub test: &'a dyn Data,
    /// What to do.
    pub settings: Settings,
    /// The devices, the server and the channel, for the modelled delay.
    pub wireless: &'a Wireless,
    /// Called after every mini-batch, from any thread.
    pub on_batch: &'a (dyn Fn() + Sync),
}

/// What a round did; every number is the round's own, not cumulative.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// From 1.
    pub round: usize,
    /// Test accuracy of the aggregated model without compression, a fraction.
    pub accuracy: f64,
    /// Mean training loss over the samples of all devices.
    pub loss: f64,
    /// Activations with labels, bytes of all devices.
    pub bytes_up: u64,
    /// Gradients, bytes of all devices.
    pub bytes_down: u64,
    /// Adapters and head from the devices, bytes.
    pub adapter_bytes_up: u64,
    /// Adapters and head to the devices, bytes.
    pub adapter_bytes_down: u64,
    /// Modelled delay of the round, seconds.
    pub delay_s: f64,
    /// Time that the simulation took, seconds.
    pub wall_s: f64,
}

/// The end of a fine-tuning run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The aggregated adapters and head after the last round.
    pub adapters: Adapters,
    /// One record per round.
    pub rounds: Vec<RoundRecord>,
}

impl Job<'_> {
    /// Mini-batches of one round on all devices.
    pub fn batches_per_round(&self) -> usize {
        let Settings {
            local_epochs,
            batch,
            ..
        } = self.settings;
        self.partition
            .iter()
            .map(|part| local_epochs * part.len().div_ceil(batch))
            .sum()
    }

    fn batch_done(&self) {
        (self.on_batch)();
    }

    /// Checks that the parts fit together; [`finetune`] does so first.
    ///
    /// # Errors
    /// The first part that does not fit, named.
    pub fn validate(&self) -> Result<()> {
        self.settings.validate(self.model.depth())?;
        let samples = self.train.len();
        let known = |part: &Vec<usize>| !part.is_empty() && part.iter().all(|&i| i < samples);
        if self.partition.is_empty() || !self.partition.iter().all(known) {
            let reason = format!("must give every device some of the {samples} training samples");
            return Err(Error::argument("partition", reason));
        }
        if self.test.is_empty() {
            return Err(Error::argument("test", "must hold at least one sample"));
        }
        check_head(self.model, self.head)?;
        let (got, classes) = (
            self.head.classes(),
            self.train.classes().max(self.test.classes()),
        );
        if got != classes {
            return Err(Error::argument(
                "head",
                format!("must have {classes} classes, got {got}"),
            ));
        }
        Ok(())
    }
}

/// Fine-tunes by the scheme of the settings; `on_round` sees each round's record.
///
/// # Errors
/// A setting outside its range, or a run that diverges.
pub fn finetune(job: &Job<'_>, on_round: &mut dyn FnMut(&RoundRecord)) -> Result<Outcome> {
    job.validate()?;
    let Settings {
        lora,
        seed,
        rounds,
        threads,
        ..
    } = job.settings;
    let mut adapters = Adapters::new(job.model, lora, job.head.clone(), seed);
    let mut records = Vec::new();
    for round in 1..=rounds {
        let start = Instant::now();
        let parts = train_round(job, round, &adapters)?;
        adapters = aggregate(job, &parts);
        let accuracy = accuracy(job.model, lora, &adapters, job.test, threads)?;
        let record = record(job, round, accuracy, &parts, start)?;
        on_round(&record);
        records.push(record);
        if job
            .settings
            .target_accuracy
            .is_some_and(|target| accuracy >= target)
        {
            break;
        }
    }
    Ok(Outcome {
        adapters,
        rounds: records,
    })
}

/// Every device's part of a round, in the order of the devices.
fn train_round(job: &Job<'_>, round: usize, start: &Adapters) -> Result<Vec<Part>> {
    let devices = job.partition.len();
    let turn = |device| Turn { job, round, device };
    match job.settings.scheme {
        Scheme::Sft | Scheme::SftRaw => {
            parallel(job.settings.threads, devices, |n| turn(n).split(start))
        }
        Scheme::FlLora => parallel(job.settings.threads, devices, |n| turn(n).whole(start)),
        Scheme::Sl => {
            let mut parts: Vec<Part> = Vec::with_capacity(devices);
            for n in 0..devices {
                let start = parts.last().map_or(start, |part| &part.adapters);
                parts.push(turn(n).split(start)?);
            }
            Ok(parts)
        }
    }
}

/// The adapters after a round: the average, or in SL what the last device left.
fn aggregate(job: &Job<'_>, parts: &[Part]) -> Adapters {
    let all = parts.iter().map(|part| &part.adapters);
    match (job.settings.scheme, parts.last()) {
        (Scheme::Sl, Some(last)) => last.adapters.clone(),
        _ => fed_avg(all.zip(job.partition).map(|(a, part)| (a, part.len()))),
    }
}

/// The average of adapters weighted by numbers of samples: FedAvg, (7) and (8).
///
/// `A` and `B` are averaged separately, as in the paper.
///
/// # Panics
/// If there are none, or their sizes differ.
pub fn fed_avg<'a>(all: impl Iterator<Item = (&'a Adapters, usize)>) -> Adapters {
    let all: Vec<_> = all.collect();
    let total: usize = all.iter().map(|(_, samples)| samples).sum();
    let mean = |select: &dyn Fn(&'a Adapters) -> &'a [f32]| {
        let mut sum = vec![0.0f64; select(all[0].0).len()];
        for &(adapters, samples) in &all {
            let values = select(adapters);
            assert_eq!(values.len(), sum.len(), "adapters of one size");
            for (sum, &value) in sum.iter_mut().zip(values) {
                *sum += samples as f64 * f64::from(value);
            }
        }
        sum.into_iter()
            .map(|sum| (sum / total as f64) as f32)
            .collect::<Vec<f32>>()
    };
    let blocks = 0..all[0].0.blocks.len();
    Adapters {
        blocks: blocks.map(|i| mean(&|a| &a.blocks[i])).collect(),
        head: Head {
            weight: mean(&|a| &a.head.weight),
            bias: mean(&|a| &a.head.bias),
        },
    }
}

fn record(
    job: &Job<'_>,
    round: usize,
    accuracy: f64,
    parts: &[Part],
    start: Instant,
) -> Result<RoundRecord> {
    let traffic: Vec<Traffic> = parts.iter().map(|part| part.traffic).collect();
    let total: Traffic = traffic.iter().copied().sum();
    let samples: usize = parts.iter().map(|part| part.samples).sum();
    Ok(RoundRecord {
        round,
        accuracy,
        loss: parts.iter().map(|part| part.loss).sum::<f64>() / samples as f64,
        bytes_up: total.up,
        bytes_down: total.down,
        adapter_bytes_up: total.adapter_up,
        adapter_bytes_down: total.adapter_down,
        delay_s: job.wireless.delay_s(&job.settings, round, &traffic)?,
        wall_s: start.elapsed().as_secs_f64(),
    })
}
