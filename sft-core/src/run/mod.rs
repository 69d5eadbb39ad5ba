//! Algorithm 1 and the schemes it is compared with.

mod checkpoint;
/// What a run is asked to do, as files, flags and Python say it.
mod config;
mod evaluate;
/// The folder that gets a run's files.
mod folder;
mod full;
/// Model and data of a run, opened.
mod inputs;
mod job;
mod local;
mod schedule;
/// A run from its configuration to its files.
mod session;
mod settings;
mod wireless;

use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use checkpoint::{load_checkpoint, save_checkpoint};
pub use config::{Backend, FadingKind, OptimizerKind, RunConfig, ScheduleKind};
pub use evaluate::{accuracy, logits};
pub use inputs::{Inputs, open_data, open_model};
pub use job::Job;
pub use schedule::{Decay, Schedule};
pub use session::{Progress, SchemeRun, Session, Setup};
pub use settings::{Scheme, Settings};
pub use wireless::{Channel, DeviceRound, Wireless};

use self::evaluate::accuracy_until;
use self::full::FullModel;
use self::local::{Part, Turn};
use crate::adapter::{Adapters, Targets};
use crate::kernels::one_thread_per_product;
use crate::model::{Model, Vit};
use crate::parallel::{parallel, with_threads};
use crate::split::{Traffic, WholeModel};
use crate::{Error, Result};

/// What a round did; every number is the round's own, not cumulative.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// From 1.
    pub round: usize,
    /// The devices that took part, from 0.
    pub devices: Vec<usize>,
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

/// A fine-tuning run after any of its rounds.
///
/// It is all that the rest of the run depends on: optimizers start anew with each round, and
/// random streams are keyed by seed, round, device and step.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The aggregated adapters and head after the last round.
    pub adapters: Adapters,
    /// One record per round.
    pub rounds: Vec<RoundRecord>,
}

/// Fine-tunes by the scheme of the settings, going on from `run`; `on_round` sees the run so far
/// after every round and may save it.
///
/// A run that went on from [`Outcome`] of an earlier one equals, bit for bit, the one that never
/// stopped. Where [`Job::stop`] was set, the result is what the finished rounds left.
///
/// # Errors
/// A setting outside its range, a run that diverges, an example that cannot be read, or what
/// `on_round` returns.
pub fn finetune(
    job: &Job<'_>,
    mut run: Outcome,
    on_round: &mut dyn FnMut(&Outcome) -> Result<()>,
) -> Result<Outcome> {
    one_thread_per_product();
    job.validate()?;
    job.check(&run.adapters)?;
    while !job.is_finished(&run) {
        match next_round(job, &mut run) {
            Ok(()) => on_round(&run)?,
            Err(Error::Stopped) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(run)
}

/// One more round of Algorithm 1, or of what it is compared with.
fn next_round(job: &Job<'_>, run: &mut Outcome) -> Result<()> {
    let (start, round) = (Instant::now(), run.rounds.len() + 1);
    let parts = train_round(job, round, &run.adapters)?;
    for Part {
        device,
        samples,
        loss,
        ..
    } in &parts
    {
        tracing::debug!(round, device, samples, loss, "device finished");
    }
    let adapters = aggregate(job, &parts);
    let accuracy = test_accuracy(job, &adapters)?;
    let record = record(job, round, accuracy, &parts, start)?;
    tracing::info!(
        scheme = job.settings.scheme.name(),
        round,
        accuracy,
        loss = record.loss,
        "round finished"
    );
    run.adapters = adapters;
    run.rounds.push(record);
    Ok(())
}

/// Every participant's part of a round, in the order of the devices.
fn train_round(job: &Job<'_>, round: usize, start: &Adapters) -> Result<Vec<Part>> {
    let devices = job.participants(round);
    let turn = |device| Turn { job, round, device };
    let each = |task: &(dyn Fn(Turn<'_>) -> Result<Part> + Sync)| {
        parallel(job.settings.threads, devices.len(), |n| {
            task(turn(devices[n]))
        })
    };
    let Settings { scheme, lora, .. } = job.settings;
    let rule = job.settings.rule();
    match scheme {
        Scheme::Sft | Scheme::SftRaw => each(&|turn| turn.split(start)),
        Scheme::FlLora => {
            each(&|turn| turn.whole(start, |start| WholeModel::new(job.model, lora, start, rule)))
        }
        Scheme::FlFull => each(&|turn| {
            let device = job.model.device();
            turn.whole(start, |start| {
                FullModel::new(job.own_weights()?, start, rule, device)
            })
        }),
        Scheme::Sl => with_threads(job.settings.threads, || {
            let mut parts: Vec<Part> = Vec::with_capacity(devices.len());
            for &device in &devices {
                let start = parts.last().map_or(start, |part| &part.adapters);
                parts.push(turn(device).split(start)?);
            }
            Ok(parts)
        }),
    }
}

/// The adapters after a round: the average, or in SL what the last device left.
fn aggregate(job: &Job<'_>, parts: &[Part]) -> Adapters {
    let samples = |part: &Part| job.partition[part.device].len();
    match (job.settings.scheme, parts.last()) {
        (Scheme::Sl, Some(last)) => last.adapters.clone(),
        _ => fed_avg(parts.iter().map(|part| (&part.adapters, samples(part)))),
    }
}

/// Test accuracy of the aggregated model.
fn test_accuracy(job: &Job<'_>, adapters: &Adapters) -> Result<f64> {
    let Settings {
        scheme,
        lora,
        threads,
        ..
    } = job.settings;
    if scheme != Scheme::FlFull {
        return accuracy_until(job.model, lora, adapters, job.test, threads, job.stop);
    }
    let base = job.own_weights()?;
    let model = Vit::new(&base.config, &full::weights(base, &adapters.blocks)?)?;
    let plain = Adapters {
        embedding: Vec::new(),
        blocks: vec![Vec::new(); model.spec().depth],
        head: adapters.head.clone(),
    };
    let lora = lora.with_targets(Targets::NONE);
    accuracy_until(&model, lora, &plain, job.test, threads, job.stop)
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
    let vectors: Vec<Vec<_>> = all.iter().map(|(a, _)| a.vectors().collect()).collect();
    let mean = |i: usize| {
        let mut sum = vec![0.0f64; vectors[0][i].len()];
        for (vectors, (_, samples)) in vectors.iter().zip(&all) {
            assert_eq!(vectors[i].len(), sum.len(), "adapters of one size");
            for (sum, &value) in sum.iter_mut().zip(vectors[i]) {
                *sum += *samples as f64 * f64::from(value);
            }
        }
        sum.into_iter()
            .map(|sum| (sum / total as f64) as f32)
            .collect::<Vec<f32>>()
    };
    let means = (0..vectors[0].len()).map(mean).collect();
    all[0].0.with_vectors(means)
}

fn record(
    job: &Job<'_>,
    round: usize,
    accuracy: f64,
    parts: &[Part],
    start: Instant,
) -> Result<RoundRecord> {
    let total: Traffic = parts.iter().map(|part| part.traffic).sum();
    let shares = parts.iter().map(|part| DeviceRound {
        device: part.device,
        cut: job.cut(part.device),
        traffic: part.traffic,
    });
    let shares: Vec<_> = shares.collect();
    let samples: usize = parts.iter().map(|part| part.samples).sum();
    Ok(RoundRecord {
        round,
        devices: parts.iter().map(|part| part.device).collect(),
        accuracy,
        loss: parts.iter().map(|part| part.loss).sum::<f64>() / samples as f64,
        bytes_up: total.up,
        bytes_down: total.down,
        adapter_bytes_up: total.adapter_up,
        adapter_bytes_down: total.adapter_down,
        delay_s: job.wireless.delay_s(&job.settings, round, &shares)?,
        wall_s: start.elapsed().as_secs_f64(),
    })
}
