//! Algorithm 1 round by round, and the schemes it is compared with.

use std::time::Instant;

use super::aggregate::fed_avg;
use super::calibrate::{BasesByCut, calibrate};
use super::evaluate::evaluate_until;
use super::full::{self, FullModel};
use super::local::{Part, Participant};
use super::product::{at_rank, average_products};
use super::through_cut::{ThroughCutScore, through_cut};
use super::{Aggregation, DeviceRound, Job, RoundRecord, Run, Scheme, Settings};
use crate::adapter::Adapters;
use crate::kernels::one_thread_per_product;
use crate::parallel::{parallel, waiting, with_threads};
use crate::split::{Traffic, Update, WholeModel, Work};
use crate::task::Score;
use crate::{Error, Result};

/// How often a round is begun which too few devices elsewhere end.
const MAX_TRIES: usize = 10;

/// Fine-tunes by the scheme of the settings, going on from `run`; `on_round` sees the run so far
/// after every round and may save it.
///
/// A run that went on from [`Run`] of an earlier one equals, bit for bit, the one that never
/// stopped. Where [`Job::stop`] was set, the result is what the finished rounds left.
///
/// # Errors
/// A setting outside its range, a run that diverges, an example that cannot be read, or what
/// `on_round` returns.
pub fn finetune(
    job: &Job<'_>,
    mut run: Run,
    on_round: &mut dyn FnMut(&Run) -> Result<()>,
) -> Result<Run> {
    one_thread_per_product();
    job.validate()?;
    job.check(&run.adapters)?;
    let mut tries = 0;
    while !job.is_finished(&run) {
        tries += 1;
        match next_round(job, &mut run) {
            Ok(()) => {
                tries = 0;
                on_round(&run)?;
            }
            Err(Error::Stopped) => break,
            Err(Error::Absent { round, ended }) if tries < MAX_TRIES => {
                tracing::warn!(round, ended, "too few devices ended the round: once more");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(run)
}

/// One more round of Algorithm 1, or of what it is compared with.
fn next_round(job: &Job<'_>, run: &mut Run) -> Result<()> {
    let round = run.rounds.len() + 1;
    let drawn = job.participants(round);
    let here = match job.fleet {
        Some(fleet) => fleet.gather(round, &drawn, job.stop)?,
        None => drawn.clone(),
    };
    let start = Instant::now();
    let (bases, costs) = calibrate(job, (round, &here), run)?;
    let mut parts = train_round(job, (round, &here), run, &bases)?;
    let missing = drawn.into_iter().filter(|device| !here.contains(device));
    parts.extend(missing.map(Part::missing));
    parts.sort_by_key(|part| part.device);
    for part in &mut parts {
        let cost = costs.get(&part.device).copied();
        part.traffic = part.traffic + cost.unwrap_or_default();
    }
    for Part { device, update, .. } in &parts {
        if let Some(Update { counted, loss, .. }) = update {
            tracing::debug!(round, device, counted, loss, "device finished");
        } else if job.fleet.is_none() {
            tracing::warn!(round, device, "device was late");
        }
    }
    let updates: Vec<_> = parts
        .iter()
        .filter_map(|part| part.update.as_ref())
        .collect();
    // Of a round that fewer are drawn for all must end it.
    let quorum = job.fleet.map_or(0, |fleet| fleet.quorum().min(parts.len()));
    let ended = updates.len();
    if ended < quorum {
        tracing::warn!(round, ended, quorum, "round does not count");
        return Err(Error::Absent { round, ended });
    }
    let (adapters, product_lost) = aggregate(job, round, &run.adapters, &updates)?;
    let score = test_score(job, &adapters)?;
    let through_cut = through_cut(job, round, &adapters, &bases)?;
    let record = RoundRecord {
        product_lost,
        ..record(job, run, (score, through_cut), &parts, start)?
    };
    tracing::info!(
        scheme = job.settings.scheme.name(),
        round,
        accuracy = record.accuracy,
        loss = record.loss,
        "round finished"
    );
    let codecs = parts
        .into_iter()
        .filter_map(|part| Some((part.device, part.codecs?)));
    run.codecs.extend(codecs);
    run.bases = bases;
    run.adapters = adapters;
    run.rounds.push(record);
    Ok(())
}

/// Every participant's part of a round, in the order of the devices.
fn train_round(
    job: &Job<'_>,
    (round, devices): (usize, &[usize]),
    run: &Run,
    by_cut: &BasesByCut,
) -> Result<Vec<Part>> {
    let participant = |device| Participant {
        job,
        round,
        device,
        since: run.last_of(device),
    };
    let codecs = |device| run.codecs.get(&device);
    let bases = |device| {
        let bases = by_cut.get(&job.cut(device)).cloned();
        (bases.unwrap_or_default(), run.knows(device))
    };
    let (scheme, start) = (job.settings.scheme, &run.adapters);
    let all = (start, job.settings.lora);
    let spec = job.model.spec();
    // What a device starts from, at its rank.
    let own = |device: usize| at_rank(spec, all, job.lora(device), all);
    match scheme {
        Scheme::Sft | Scheme::SftRaw => each(job, devices, |device| {
            participant(device).split(&own(device), codecs(device), bases(device))
        }),
        Scheme::FlLora => each(job, devices, |device| {
            let open = |start: &Adapters, optimizer| {
                WholeModel::new(job.model, job.lora(device), start, optimizer)
            };
            participant(device).whole(Work::Adapters, &own(device), open)
        }),
        Scheme::FlFull => each(job, devices, |device| {
            let open = |start: &Adapters, optimizer| {
                FullModel::new(job.own_weights()?, start, optimizer, job.model.device())
            };
            participant(device).whole(Work::Full, start, open)
        }),
        Scheme::Sl => with_threads(job.settings.threads, || {
            let mut parts: Vec<Part> = Vec::with_capacity(devices.len());
            for &device in devices {
                let last = parts.iter().rev().find_map(|part| part.update.as_ref());
                let start = match last {
                    Some(last) => {
                        let left = (&last.adapters, job.lora(last.device));
                        at_rank(spec, left, job.lora(device), all)
                    }
                    None => own(device),
                };
                let part = participant(device).split(&start, codecs(device), bases(device))?;
                drop(start);
                parts.push(part);
            }
            Ok(parts)
        }),
    }
}

/// What `task` makes of each device, at the same time: on the threads of the job, or where devices are
/// elsewhere on one for each, which mostly waits.
pub(super) fn each<T: Send>(
    job: &Job<'_>,
    devices: &[usize],
    task: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    if job.fleet.is_some() {
        return waiting(devices.len(), |n| task(devices[n]));
    }
    parallel(job.settings.threads, devices.len(), |n| task(devices[n]))
}

/// The adapters after a round: the average, or in SL what the last device left; and what an average of
/// products lost.
fn aggregate(
    job: &Job<'_>,
    round: usize,
    before: &Adapters,
    updates: &[&Update],
) -> Result<(Adapters, Option<f64>)> {
    let [.., last] = updates else {
        let reason = format!("must leave some device enough time, in round {round} all were late");
        return Err(Error::argument("deadline_s", reason));
    };
    let (spec, settings) = (job.model.spec(), &job.settings);
    let own = |update: &Update| job.partition[update.device].len();
    // Shares of the devices' own samples are those of what they saw, unless one ended early.
    let whole = |update: &&Update| update.samples == own(update) * settings.local_epochs;
    let all_whole = updates.iter().all(whole);
    let samples = |update: &Update| {
        if all_whole {
            own(update)
        } else {
            update.samples
        }
    };
    match (settings.scheme, settings.aggregation) {
        (Scheme::Sl, _) => {
            let left = (&last.adapters, job.lora(last.device));
            let all = (before, settings.lora);
            Ok((at_rank(spec, left, settings.lora, all).into_owned(), None))
        }
        (Scheme::FlFull, _) | (_, Aggregation::Average) => {
            let all = updates
                .iter()
                .map(|update| (&update.adapters, samples(update)));
            Ok((fed_avg(all), None))
        }
        (_, Aggregation::Product) => {
            let all = updates.iter();
            let all =
                all.map(|&update| (&update.adapters, job.lora(update.device), samples(update)));
            let all: Vec<_> = all.collect();
            let average = with_threads(settings.threads, || {
                Ok(average_products(spec, settings.lora, before, &all))
            })?;
            Ok((average.adapters, Some(average.lost)))
        }
    }
}

/// How well the aggregated model does on the test data.
fn test_score(job: &Job<'_>, adapters: &Adapters) -> Result<Score> {
    let Settings {
        scheme,
        lora,
        threads,
        ..
    } = job.settings;
    if scheme != Scheme::FlFull {
        return evaluate_until(job.model, lora, adapters, job.test, threads, job.stop);
    }
    let model = full::model(job.own_weights()?, &adapters.blocks, job.model.backend())?;
    let model = model.as_ref();
    let plain = Adapters {
        embedding: Vec::new(),
        blocks: vec![Vec::new(); model.spec().depth],
        head: adapters.head.clone(),
    };
    let lora = full::without_adapters()?;
    evaluate_until(model, lora, &plain, job.test, threads, job.stop)
}

fn record(
    job: &Job<'_>,
    before: &Run,
    (score, through_cut): (Score, Option<ThroughCutScore>),
    parts: &[Part],
    start: Instant,
) -> Result<RoundRecord> {
    let round = before.rounds.len() + 1;
    let total: Traffic = parts.iter().map(|part| part.traffic).sum();
    if total.zero_up + total.zero_down > 0 {
        let (up, down) = (total.zero_up, total.zero_down);
        tracing::warn!(round, up, down, "the codec kept nothing of whole messages");
    }
    let shares = parts.iter().map(|part| DeviceRound {
        device: part.device,
        cut: job.cut(part.device),
        first: !before.knows(part.device),
        traffic: part.traffic,
    });
    let shares: Vec<_> = shares.collect();
    let updates = || parts.iter().filter_map(|part| part.update.as_ref());
    let counted: usize = updates().map(|update| update.counted).sum();
    let test_loss = score.mean_loss();
    let test_loss_through_cut = through_cut.map(|through| through.loss);
    let perplexity = |loss: f64| job.head.is_none().then(|| loss.exp());
    let late = parts.iter().filter(|part| part.update.is_none());
    Ok(RoundRecord {
        round,
        devices: updates().map(|update| update.device).collect(),
        late: late.map(|part| part.device).collect(),
        accuracy: score.accuracy(),
        accuracy_through_cut: through_cut.map(|through| through.accuracy),
        test_loss,
        test_loss_through_cut,
        perplexity: perplexity(test_loss),
        perplexity_through_cut: test_loss_through_cut.and_then(perplexity),
        loss: updates().map(|update| update.loss).sum::<f64>() / counted as f64,
        bytes_up: total.up,
        bytes_down: total.down,
        adapter_bytes_up: total.adapter_up,
        adapter_bytes_down: total.adapter_down,
        protocol_bytes_up: total.protocol_up,
        protocol_bytes_down: total.protocol_down,
        product_lost: None,
        delay_s: job.wireless.delay_s(&job.settings, round, &shares)?,
        wall_s: start.elapsed().as_secs_f64(),
    })
}
