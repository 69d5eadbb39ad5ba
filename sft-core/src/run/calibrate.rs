//! Bases for the transform codecs, before the first round that needs them.

use std::collections::BTreeMap;

use super::local::Participant;
use super::{Job, Run};
use crate::Result;
use crate::data::mean_tokens;
use crate::parallel::parallel;
use crate::split::{Bases, Traffic, calibration};

/// What the transform codecs are relative to, by cut layer.
pub(super) type BasesByCut = BTreeMap<usize, Bases>;

/// What calibration cost the devices that showed some activations.
pub(super) type Costs = BTreeMap<usize, Traffic>;

/// The bases so far and what was missing for the cuts of a round's devices, each learnt from
/// activations of the devices that have it.
pub(super) fn calibrate(job: &Job<'_>, round: usize, run: &Run) -> Result<(BasesByCut, Costs)> {
    let (mut bases_by_cut, mut costs) = (run.bases.clone(), Costs::new());
    let (up, down) = job.settings.codecs();
    if up.step().or(down.step()).is_none() {
        return Ok((bases_by_cut, costs));
    }
    let mut by_cut = BTreeMap::<usize, Vec<usize>>::new();
    for device in job.participants(round) {
        by_cut.entry(job.cut(device)).or_default().push(device);
    }
    by_cut.retain(|cut, _| !bases_by_cut.contains_key(cut));
    for (cut, devices) in by_cut {
        let spec = job.model.spec();
        let all = calibration::samples(spec, mean_tokens(job.train).unwrap_or(spec.tokens));
        let samples = all.div_ceil(devices.len());
        // More devices than samples would cost more than they tell.
        let devices = &devices[..devices.len().min(all)];
        let shown = parallel(job.settings.threads, devices.len(), |n| {
            Participant {
                job,
                round,
                device: devices[n],
            }
            .calibrate(samples)
        })?;
        let mut activations = calibration::ShownActivations::default();
        for (&device, (values, traffic)) in devices.iter().zip(shown) {
            activations.append(values);
            costs.insert(device, traffic);
        }
        let settings = job.settings;
        let bases = calibration::learn_bases(
            job.model,
            settings.lora,
            cut,
            job.head.is_none(),
            &[(up, down)],
            &activations,
            settings.seed,
        )?;
        bases_by_cut.extend(bases.into_iter().map(|bases| (cut, bases)));
    }
    Ok((bases_by_cut, costs))
}
