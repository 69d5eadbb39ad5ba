//! A device's own samples, mini-batch by mini-batch.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;

use candle_core::Device;
use rand::seq::SliceRandom;

use super::RoundPlan;
use crate::data::{Batch, Data};
use crate::parallel::spawn;
use crate::{Error, Result, seed};

/// Batches whose samples are sorted by length together.
const BUCKET: usize = 8;

/// A device's own samples, and whom to tell of progress.
#[derive(Clone, Copy)]
pub struct LocalData<'a> {
    /// A data set with the device's samples in it.
    pub data: &'a dyn Data,
    /// Which samples are the device's.
    pub samples: &'a [usize],
    /// Called after every mini-batch, from any thread.
    pub on_batch: &'a (dyn Fn() + Sync),
    /// Once set, training ends before the next mini-batch.
    pub stop: &'a AtomicBool,
}

/// A mini-batch in memory.
pub(crate) struct Loaded {
    /// From 0, within the round.
    pub(crate) number: u32,
    pub(crate) batch: Batch,
}

/// Which samples make up a mini-batch.
struct BatchOrder {
    number: u32,
    epoch: u64,
    indices: Vec<usize>,
}

impl LocalData<'_> {
    /// Calls `train` with the round's mini-batches on `device` until it breaks off, the next one being
    /// loaded meanwhile.
    pub(crate) fn each_batch(
        &self,
        plan: &RoundPlan,
        device: &Device,
        mut train: impl FnMut(Loaded) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let all = plan.batches(self.samples.len());
        if u32::try_from(all).is_err() {
            let reason = format!(
                "must leave a round of at most {} mini-batches, got {all}",
                u32::MAX
            );
            return Err(Error::argument("local_epochs", reason));
        }
        std::thread::scope(|scope| {
            // The loader makes the next batch, and waits with it until it is taken.
            let (send, loaded) = sync_channel(0);
            spawn(scope, move || {
                for order in self.batches(plan) {
                    let batch = self.load(plan, &order, device);
                    let failed = batch.is_err();
                    // Training that ended early has dropped its side.
                    if send.send(batch).is_err() || failed {
                        break;
                    }
                }
            })?;
            for batch in loaded {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Error::Stopped);
                }
                if train(batch?)?.is_break() {
                    break;
                }
                (self.on_batch)();
            }
            Ok(())
        })
    }

    /// What the mini-batches of the round hold, newly shuffled in every local epoch.
    fn batches(&self, plan: &RoundPlan) -> impl Iterator<Item = BatchOrder> {
        let epochs = (0..plan.local_epochs as u64).flat_map(move |epoch| {
            let mut rng = seed::rng(plan.seed, &[seed::ORDER, epoch]);
            let batches = self.shuffled(plan.batch, &mut rng).into_iter();
            batches.map(move |indices| (epoch, indices))
        });
        (0..)
            .zip(epochs)
            .map(|(number, (epoch, indices))| BatchOrder {
                number,
                epoch,
                indices,
            })
    }

    /// All samples in batches in a random order. Samples of several lengths come together with others
    /// of about theirs: [`BUCKET`] batches at a time are sorted by length.
    fn shuffled(&self, batch: usize, rng: &mut impl rand::Rng) -> Vec<Vec<usize>> {
        let mut order = self.samples.to_vec();
        order.shuffle(rng);
        let tokens = |&index: &usize| self.data.tokens(index);
        let ragged = order.first().and_then(tokens).is_some();
        if ragged {
            for bucket in order.chunks_mut(BUCKET.saturating_mul(batch)) {
                bucket.sort_by_key(tokens);
            }
        }
        let mut batches: Vec<_> = order.chunks(batch).map(<[usize]>::to_vec).collect();
        if ragged {
            batches.shuffle(rng);
        }
        batches
    }

    fn load(&self, plan: &RoundPlan, order: &BatchOrder, device: &Device) -> Result<Loaded> {
        let seed = seed::derive(plan.seed, &[seed::AUGMENT, order.epoch]);
        let mut batch = self.data.training_batch(&order.indices, seed)?;
        batch.inputs = batch.inputs.to_device(device)?;
        let number = order.number;
        Ok(Loaded { number, batch })
    }
}
