//! How well a model does that stays split, with what crosses the cut compressed as in training.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::Job;
use super::calibrate::BasesByCut;
use super::evaluate::Adapted;
use super::local::Participant;
use crate::adapter::Adapters;
use crate::parallel::parallel;
use crate::split::{LabelSide, RoundPlan, ThroughCut, Work, forward};
use crate::task::Score;
use crate::{Error, Result, seed};

/// How well the model does through the cuts of a round's devices, in the mean over them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ThroughCutScore {
    pub(super) accuracy: f64,
    /// Mean cross-entropy of a label, nat.
    pub(super) loss: f64,
}

/// The same where it is asked for and the model is split.
///
/// Samples come in mini-batches of the training's size, by streams that remember nothing.
pub(super) fn through_cut(
    job: &Job<'_>,
    round: usize,
    adapters: &Adapters,
    bases: &BasesByCut,
) -> Result<Option<ThroughCutScore>> {
    if !(job.settings.evaluate_through_cut && job.settings.scheme.is_split()) {
        return Ok(None);
    }
    let mut by_cut = BTreeMap::<usize, Vec<usize>>::new();
    for device in job.participants(round) {
        by_cut.entry(job.cut(device)).or_default().push(device);
    }
    let all: usize = by_cut.values().map(Vec::len).sum();
    let mut mean = ThroughCutScore::default();
    for (cut, devices) in by_cut {
        let first = Participant {
            job,
            round,
            device: devices[0],
            since: 0,
        };
        let seed = seed::derive(job.settings.seed, &[seed::THROUGH_CUT, round as u64]);
        let through = ThroughCut {
            plan: RoundPlan {
                seed,
                ..first.plan(Work::Split { cut })
            },
            bases: bases.get(&cut).cloned().unwrap_or_default(),
        };
        let share = devices.len() as f64 / all as f64;
        let score = score(job, adapters, cut, &through)?;
        mean.accuracy += share * score.accuracy();
        mean.loss += share * score.mean_loss();
    }
    Ok(Some(mean))
}

fn score(job: &Job<'_>, adapters: &Adapters, cut: usize, through: &ThroughCut) -> Result<Score> {
    let (model, lora, test) = (job.model, job.settings.lora, job.test);
    let adapted = Adapted::new(model, lora, adapters)?;
    let of_tokens = adapted.head.reads_tokens();
    let (below, above) = adapted.vectors[..=model.spec().depth].split_at(1 + cut);
    let batch = job.settings.batch;
    let scores = parallel(job.settings.threads, test.len().div_ceil(batch), |number| {
        if job.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let indices: Vec<usize> = (number * batch..test.len().min((number + 1) * batch)).collect();
        let batch = test.batch(&indices)?;
        let these = (batch.samples.as_slice(), number as u32);
        let inputs = batch.inputs.to_device(model.device())?;
        let hidden = forward::lower(model, lora, below, &inputs)?;
        let hidden = through.activation(&hidden, these)?;
        let mut features = forward::upper(model, lora, above, of_tokens, &hidden)?;
        if through.plan.labels == LabelSide::Device {
            features = through.features(&features, (&hidden, of_tokens), these)?;
        }
        adapted.score_of(&features, &batch.labels)
    })?;
    Ok(scores.into_iter().sum())
}
