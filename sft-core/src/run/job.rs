//! What a fine-tuning run is made of, and whether the parts fit together.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use super::{Aggregation, Fleet, RoundRecord, Run, Scheme, Settings, Wireless, full};
use crate::adapter::{Adapters, Head, Lora, NamedShape, check_adapters, check_head, whole_layout};
use crate::data::Data;
use crate::model::{Model, Pretrained};
use crate::split::{batches, check_frozen_blocks, check_rank};
use crate::{Error, Result, seed};

/// Everything that a fine-tuning run needs.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The frozen model.
    pub model: &'a dyn Model,
    /// The same model's own weights, which [`Scheme::FlFull`] starts from; no other scheme needs
    /// them.
    pub base: Option<&'a dyn Pretrained>,
    /// The head to start from, without an adapter: it gets a new one where it is a target.
    pub head: &'a Head,
    /// The training data of all devices.
    pub train: &'a dyn Data,
    /// The indices of each device's examples, as [`Partition::split`](crate::data::Partition::split)
    /// gives them.
    pub partition: &'a [Vec<usize>],
    /// A cut layer for each device, in place of the common one of the settings.
    pub device_cuts: Option<&'a [usize]>,
    /// A rank for the adapters of each device, and of the server's half that learns from it, at most
    /// that of the settings, which the average of all has.
    pub device_ranks: Option<&'a [usize]>,
    /// The data that accuracy is measured on.
    pub test: &'a dyn Data,
    /// What to do.
    pub settings: Settings,
    /// The devices, the server and the channel, for the modelled delay.
    pub wireless: &'a Wireless,
    /// The devices where they are not in this process.
    pub fleet: Option<&'a dyn Fleet>,
    /// Called after every mini-batch, from any thread.
    pub on_batch: &'a (dyn Fn() + Sync),
    /// Once set, training ends before the next mini-batch; the round in progress is lost.
    pub stop: &'a AtomicBool,
}

impl Job<'_> {
    /// A run before its first round: new adapters with the job's head, or the model's own weights
    /// where they are tuned themselves.
    ///
    /// # Errors
    /// [`Scheme::FlFull`] without [`Job::base`].
    pub fn start(&self) -> Result<Run> {
        let Settings { lora, seed, .. } = self.settings;
        let adapters = match self.settings.scheme {
            Scheme::FlFull => full::start(self.own_weights()?, self.head.clone())?,
            _ => Adapters::new(self.model.spec(), lora, self.head.clone(), seed),
        };
        Ok(Run {
            adapters,
            rounds: Vec::new(),
            codecs: BTreeMap::new(),
            bases: BTreeMap::new(),
        })
    }

    /// Mini-batches of the rounds after `done` on all devices that take part.
    pub fn batches_after(&self, done: usize) -> usize {
        let of = |devices: &mut dyn Iterator<Item = usize>| {
            devices.fold(0, |sum: usize, device| {
                sum.saturating_add(self.batches(device))
            })
        };
        let rounds = done + 1..=self.settings.rounds;
        if self.settings.participation >= 1.0 {
            let each = of(&mut (0..self.partition.len()));
            return each.saturating_mul(rounds.count());
        }
        of(&mut rounds.flat_map(|round| self.participants(round)))
    }

    /// Mini-batches of one round on a device.
    fn batches(&self, device: usize) -> usize {
        let settings = &self.settings;
        let samples = self.partition[device].len();
        batches(samples, settings.batch, settings.local_epochs)
    }

    /// The names and shapes of all that FL trains on a device.
    pub(super) fn whole_layout(
        &self,
        device: usize,
        adapters: &Adapters,
    ) -> Result<Vec<NamedShape>> {
        match self.settings.scheme {
            Scheme::FlFull => Ok(full::layout(self.own_weights()?, &adapters.head)),
            _ => Ok(whole_layout(
                self.model.spec(),
                self.lora(device),
                &adapters.head,
            )),
        }
    }

    /// The devices that take part in a round, in order.
    pub fn participants(&self, round: usize) -> Vec<usize> {
        let devices = self.partition.len();
        let count = (self.settings.participation * devices as f64).round() as usize;
        let mut rng = seed::rng(self.settings.seed, &[seed::PARTICIPANTS, round as u64]);
        let chosen = rand::seq::index::sample(&mut rng, devices, count.max(1).min(devices));
        let mut chosen = chosen.into_vec();
        chosen.sort_unstable();
        chosen
    }

    /// The cut layer of a device.
    pub(super) fn cut(&self, device: usize) -> usize {
        let own = self.device_cuts.map(|cuts| cuts[device]);
        own.unwrap_or(self.settings.cut)
    }

    /// The adapters that a device trains, at its rank, with the scale of all.
    pub(super) fn lora(&self, device: usize) -> Lora {
        let (lora, own) = (self.settings.lora, self.device_ranks);
        own.map_or(lora, |ranks| lora.with_rank(ranks[device]))
    }

    pub(super) fn own_weights(&self) -> Result<&dyn Pretrained> {
        let missing = || Error::argument("base", "must be given for fl-full, got none");
        self.base.ok_or_else(missing)
    }

    /// Whether no round is left: all are done, or the target is reached.
    pub fn is_finished(&self, run: &Run) -> bool {
        let target = self.settings.target_accuracy;
        let reached = |round: &RoundRecord| target.is_some_and(|target| round.accuracy >= target);
        run.rounds.len() >= self.settings.rounds || run.rounds.last().is_some_and(reached)
    }

    /// Checks that adapters fit the job.
    pub(super) fn check(&self, adapters: &Adapters) -> Result<()> {
        let (got, classes) = (adapters.head.classes, self.head.classes);
        if got != classes {
            let reason = format!("must have a head of {classes} classes, got {got}");
            return Err(Error::argument("adapters", reason));
        }
        if self.settings.scheme != Scheme::FlFull {
            return check_adapters(self.model.spec(), self.settings.lora, adapters);
        }
        check_head(self.model.spec(), None, &adapters.head)?;
        full::check(self.own_weights()?, &adapters.blocks)
    }

    fn check_ranks(&self, ranks: &[usize]) -> Result<()> {
        let most = self.settings.lora.rank();
        let accepted = format!("in 1..={most}");
        for &rank in ranks {
            let fits = (1..=most).contains(&rank);
            Error::require(fits, "device_ranks", rank, &accepted)?;
        }
        let averages = self.settings.aggregation == Aggregation::Average;
        if averages && ranks.iter().any(|&rank| rank != most) {
            let reason =
                "must be product where ranks differ: A and B of other sizes have no average";
            return Err(Error::argument("aggregation", reason));
        }
        Ok(())
    }

    /// Checks that the parts fit together; [`finetune`](crate::run::finetune) does so first.
    ///
    /// # Errors
    /// The first part that does not fit, named.
    pub fn validate(&self) -> Result<()> {
        self.settings.validate(self.model.spec().depth)?;
        let samples = self.train.len();
        let known = |part: &Vec<usize>| !part.is_empty() && part.iter().all(|&i| i < samples);
        if self.partition.is_empty() || !self.partition.iter().all(known) {
            let reason = format!("must give every device some of the {samples} training samples");
            return Err(Error::argument("partition", reason));
        }
        for (name, own) in [
            ("device_cuts", self.device_cuts),
            ("device_ranks", self.device_ranks),
        ] {
            let (devices, got) = (self.partition.len(), own.map(<[usize]>::len));
            if let Some(got) = got.filter(|&got| got != devices) {
                let reason =
                    format!("must have one entry for each of {devices} devices, got {got}");
                return Err(Error::argument(name, reason));
            }
        }
        if let Some(ranks) = self.device_ranks {
            self.check_ranks(ranks)?;
        }
        if let Some(cuts) = self.device_cuts {
            for &cut in cuts {
                self.settings
                    .validate_cut("device_cuts", cut, self.model.spec().depth)?;
            }
        }
        let deepest = (0..self.partition.len())
            .map(|device| self.cut(device))
            .max();
        let deepest = deepest.filter(|_| self.settings.scheme.is_split());
        check_frozen_blocks(self.settings.lora.frozen_blocks(), deepest)?;
        if self.fleet.is_some() && !self.settings.scheme.is_split() {
            let scheme = self.settings.scheme.name();
            let reason = format!("must be sft, sft-raw or sl for devices elsewhere, got {scheme}");
            return Err(Error::argument("scheme", reason));
        }
        if self.settings.scheme == Scheme::FlFull {
            self.own_weights()?;
        } else {
            check_rank(self.settings.lora.rank(), self.model.spec())?;
        }
        if self.test.is_empty() {
            return Err(Error::argument("test", "must hold at least one sample"));
        }
        check_head(self.model.spec(), None, self.head)?;
        if self.settings.scheme == Scheme::FlFull && self.head.is_none() {
            let reason = "must not be fl-full for a language model, whose head stays frozen";
            return Err(Error::argument("scheme", reason));
        }
        let (got, classes) = (
            self.head.classes,
            self.train.classes().max(self.test.classes()),
        );
        if classes == 0 && self.settings.target_accuracy.is_some() {
            let reason = "must be left out where next tokens are told: it is for classes";
            return Err(Error::argument("target_accuracy", reason));
        }
        if got != classes {
            return Err(Error::argument(
                "head",
                format!("must have {classes} classes, got {got}"),
            ));
        }
        Ok(())
    }
}
