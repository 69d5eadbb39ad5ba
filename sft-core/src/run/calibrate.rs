//! Bases for the transform codecs, before the first round that needs them.

use std::collections::BTreeMap;

use super::local::Participant;
use super::rounds::each;
use super::{Job, Run};
use crate::data::mean_tokens;
use crate::split::{Bases, Traffic, calibration};
use crate::{Error, Result};

/// What the transform codecs are relative to, by cut layer.
pub(super) type BasesByCut = BTreeMap<usize, Bases>;

/// What calibration cost the devices that showed some activations.
pub(super) type Costs = BTreeMap<usize, Traffic>;

/// The bases so far and what was missing for the cuts of a round's devices, each learnt from
/// activations of the devices that have it.
pub(super) fn calibrate(
    job: &Job<'_>,
    (round, devices): (usize, &[usize]),
    run: &Run,
) -> Result<(BasesByCut, Costs)> {
    let (mut bases_by_cut, mut costs) = (run.bases.clone(), Costs::new());
    let (up, down) = job.settings.codecs(job.model.spec());
    if up.step().or(down.step()).is_none() {
        return Ok((bases_by_cut, costs));
    }
    let mut by_cut = BTreeMap::<usize, Vec<usize>>::new();
    for &device in devices {
        by_cut.entry(job.cut(device)).or_default().push(device);
    }
    by_cut.retain(|cut, _| !bases_by_cut.contains_key(cut));
    for (cut, devices) in by_cut {
        let spec = job.model.spec();
        let all = calibration::samples(spec, mean_tokens(job.train).unwrap_or(spec.tokens));
        let samples = all.div_ceil(devices.len());
        // More devices than samples would cost more than they tell.
        let devices = &devices[..devices.len().min(all)];
        let shown = each(job, devices, |device| {
            let participant = Participant {
                job,
                round,
                device,
                since: run.last_of(device),
            };
            match participant.calibrate(samples) {
                // What is not shown is missing, that is all.
                Err(error) if job.fleet.is_some() => {
                    tracing::warn!(round, device, %error, "device showed nothing");
                    Ok(None)
                }
                shown => shown.map(Some),
            }
        })?;
        let mut activations = calibration::ShownActivations::default();
        for (&device, shown) in devices.iter().zip(shown) {
            let Some((values, traffic)) = shown else {
                continue;
            };
            activations.append(values);
            costs.insert(device, traffic);
        }
        if costs.is_empty() {
            return Err(Error::Absent { round, ended: 0 });
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
