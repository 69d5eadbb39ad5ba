//! Accuracy of a model that stays split, with what crosses the cut compressed as in training.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use candle_core::Tensor;

use super::Job;
use super::calibrate::BasesByCut;
use super::local::Participant;
use crate::adapter::Adapters;
use crate::parallel::parallel;
use crate::split::{LabelSide, RoundPlan, ThroughCut, Work, forward};
use crate::task::{Classifier, correct};
use crate::{Error, Result, seed};

/// The mean accuracy through the cuts of a round's devices, where it is asked for and the model is
/// split.
///
/// Samples come in mini-batches of the training's size, by streams that remember nothing.
pub(super) fn accuracy_through_cut(
    job: &Job<'_>,
    round: usize,
    adapters: &Adapters,
    bases: &BasesByCut,
) -> Result<Option<f64>> {
    if !(job.settings.evaluate_through_cut && job.settings.scheme.is_split()) {
        return Ok(None);
    }
    let mut by_cut = BTreeMap::<usize, Vec<usize>>::new();
    for device in job.participants(round) {
        by_cut.entry(job.cut(device)).or_default().push(device);
    }
    let (mut sum, mut all) = (0.0, 0.0);
    for (cut, devices) in by_cut {
        let first = Participant {
            job,
            round,
            device: devices[0],
        };
        let seed = seed::derive(job.settings.seed, &[seed::THROUGH_CUT, round as u64]);
        let through = ThroughCut {
            plan: RoundPlan {
                seed,
                ..first.plan(Work::Split { cut })
            },
            bases: bases.get(&cut).cloned().unwrap_or_default(),
        };
        let weight = devices.len() as f64;
        sum += weight * accuracy(job, adapters, cut, &through)?;
        all += weight;
    }
    Ok(Some(sum / all))
}

fn accuracy(job: &Job<'_>, adapters: &Adapters, cut: usize, through: &ThroughCut) -> Result<f64> {
    let (model, lora, test) = (job.model, job.settings.lora, job.test);
    let classifier = Classifier::new(&adapters.head, model.backend())?;
    let vectors = adapters
        .vectors()
        .map(|values| Tensor::from_slice(values, values.len(), model.device()))
        .collect::<Result<Vec<_>, _>>()?;
    let (below, above) = vectors.split_at(1 + cut);
    let (above, head) = above.split_at(above.len() - classifier.trained());
    let batch = job.settings.batch;
    let right = parallel(job.settings.threads, test.len().div_ceil(batch), |number| {
        if job.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let indices: Vec<usize> = (number * batch..test.len().min((number + 1) * batch)).collect();
        let batch = test.batch(&indices)?;
        let these = (batch.samples.as_slice(), number as u32);
        let inputs = batch.inputs.to_device(model.device())?;
        let hidden = forward::lower(model, lora, below, &inputs)?;
        let hidden = through.activation(&hidden, these)?;
        let mut features = forward::features(model, lora, above, &hidden)?;
        if through.plan.labels == LabelSide::Device {
            features = through.features(&features, these)?;
        }
        correct(&classifier.logits(&features, head, lora)?, &batch.labels)
    })?;
    Ok(right.iter().sum::<usize>() as f64 / test.len() as f64)
}
