//! What a device is told at the start of a round.

use serde::{Deserialize, Serialize};

use sft_compress::{Codec, Compressor, ErrorFeedback};

use super::CutCodec;
use crate::adapter::{
    Adapters, Head, Lora, ModelSpec, NamedShape, TargetModules, check_frozen, device_layout,
    device_lengths, device_vectors, head_layout,
};
use crate::optim::{OptimizerConfig, Schedule};
use crate::{Error, Result, seed};

/// What differs from one mini-batch to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The learning rate of the update.
    pub learning_rate: f64,
    /// Where the masks of LoRA dropout come from; the same on both sides of the cut.
    pub dropout_seed: u64,
}

/// Which part of the training a device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// The embedding and the first blocks, as many as the cut layer says.
    Split {
        /// Blocks on the device, l, 1 to L - 1.
        cut: usize,
    },
    /// The embedding and the first blocks, without adapters, to show the server some activations.
    Calibrate {
        /// Blocks on the device, l, 1 to L - 1.
        cut: usize,
        /// Samples that the server asks for.
        samples: usize,
    },
    /// The whole model, of which the adapters are trained.
    Adapters,
    /// The whole model with all its parameters.
    Full,
}

/// Where the labels of a model that is split are, and with them the head and the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum LabelSide {
    /// On the server, which gets them with the activations: Algorithm 1.
    #[default]
    Server,
    /// On the device, which gets the features and sends their gradient: the U-shape.
    Device,
}

/// What a device is to do in a round; all that it learns of a run beside adapters and gradients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundPlan {
    /// The round, from 1.
    pub round: usize,
    /// Rounds of the run, where the schedule depends on them.
    pub rounds: Option<usize>,
    /// The device's part.
    pub work: Work,
    /// Rank of the adapters, r.
    pub rank: usize,
    /// Their scale is alpha / r.
    pub alpha: f64,
    /// The layers that have one.
    pub targets: TargetModules,
    /// Blocks from the first on that have none: 0, or at least the cut layer. The device's half is then
    /// frozen: it gets no gradients, and no adapters but the head's.
    pub frozen_blocks: usize,
    /// The fraction of their inputs that is dropped.
    pub lora_dropout: f64,
    /// The update of the device's adapters.
    pub optimizer: OptimizerConfig,
    /// The device's peak learning rate.
    pub lr: f64,
    /// How it changes.
    pub schedule: Schedule,
    /// Where head and loss are of a model that is split.
    pub labels: LabelSide,
    /// Samples of a mini-batch, B.
    pub batch: usize,
    /// The most tokens of a sample, where samples have their own numbers of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Passes over the device's samples, K.
    pub local_epochs: usize,
    /// How activations go up.
    pub activation: CutCodec,
    /// How gradients come down.
    pub gradient: CutCodec,
    /// How features come down and their gradients go up, where the labels are on the device.
    pub features: Codec,
    /// The [name](super::Bases::name) of the bases for activations and gradients, 0 where none is needed.
    pub bases: u32,
    /// Memory for what samples were when they last crossed the cut, on each side, bytes.
    pub sample_memory_bytes: usize,
    /// Whether senders add to a tensor of the cut what they dropped of the one before.
    pub error_feedback: bool,
    /// How differences of adapters cross, both ways; raw: whole adapters, bit for bit.
    pub adapter_codec: Codec,
    /// Where everything random of this device in this round comes from.
    pub seed: u64,
}

impl RoundPlan {
    /// The adapters, their targets resolved in a model.
    ///
    /// # Errors
    /// A value outside its range, or a target that the model does not have.
    pub fn lora(&self, spec: &ModelSpec) -> Result<Lora> {
        let (rank, dropout) = (self.rank, self.lora_dropout);
        let lora = Lora::of(spec, rank, self.alpha, &self.targets, dropout)?;
        Ok(lora.with_frozen_blocks(self.frozen_blocks))
    }

    /// Checks what a model and a codec do not check by themselves.
    ///
    /// # Errors
    /// The first value outside its range, named.
    pub fn check(&self, spec: &ModelSpec) -> Result<()> {
        let counts = [
            ("round", Some(self.round)),
            ("rounds", self.rounds),
            ("batch", Some(self.batch)),
            ("tokens", self.tokens),
            ("local_epochs", Some(self.local_epochs)),
        ];
        for (name, count) in counts {
            count.map_or(Ok(()), |count| check_count(name, count))?;
        }
        let (round, rounds) = (self.round, self.rounds.unwrap_or(MAX_COUNT));
        Error::require(round <= rounds, "round", round, "at most the rounds")?;
        if self.rounds.is_none() && self.schedule.depends_on_rounds() {
            return Err(Error::argument(
                "rounds",
                "must be given for this schedule, got none",
            ));
        }
        check_rate("lr", self.lr)?;
        self.optimizer.validate()?;
        self.schedule.validate(rounds)?;
        let cut = match self.work {
            Work::Split { cut } | Work::Calibrate { cut, .. } => Some(cut),
            Work::Adapters | Work::Full => None,
        };
        cut.map_or(Ok(()), |cut| check_cut("cut", cut, spec.depth))?;
        check_frozen_blocks(self.frozen_blocks, cut)?;
        if self.work != Work::Full {
            let lora = self.lora(spec)?;
            check_rank(lora.rank(), spec)?;
            check_frozen(lora, spec.depth)?;
        }
        Ok(())
    }

    /// Whether the device's half of the blocks is frozen.
    pub fn device_is_frozen(&self) -> bool {
        self.frozen_blocks > 0
    }

    /// Whether the device trains anything: its half, or the head.
    pub fn device_trains(&self) -> bool {
        !self.device_is_frozen() || self.labels == LabelSide::Device
    }

    /// What a device trains under a cut layer, by name, and the lengths of the vectors: those before
    /// the blocks, the blocks', and the head's where the labels are on the device.
    pub(super) fn device_share(
        &self,
        spec: &ModelSpec,
        cut: usize,
        head: Option<&Head>,
    ) -> Result<(Vec<NamedShape>, Vec<usize>)> {
        let lora = self.lora(spec)?;
        let mut layout = device_layout(spec, lora, cut);
        let mut lengths = device_lengths(spec, lora, cut);
        if let Some(head) = head {
            layout.extend(head_layout(spec, lora, head));
            lengths.extend(head.trained().into_iter().map(<[f32]>::len));
        }
        Ok((layout, lengths))
    }

    /// What a device starts from under a cut layer, of the global adapters: the values that
    /// [`Self::device_share`] names, one after the other.
    pub(super) fn device_values(&self, global: &Adapters, cut: usize) -> Result<Vec<f32>> {
        let head = self.device_head(Some(&global.head))?;
        let trained = head.into_iter().flat_map(Head::trained);
        let vectors = device_vectors(&global.embedding, &global.blocks[..cut]).chain(trained);
        Ok(vectors.collect::<Vec<_>>().concat())
    }

    /// The head, if it is on the device.
    pub(super) fn device_head<'h>(&self, head: Option<&'h Head>) -> Result<Option<&'h Head>> {
        let missing = || Error::protocol("plans the labels on a device that has no head");
        match self.labels {
            LabelSide::Server => Ok(None),
            LabelSide::Device => head.ok_or_else(missing).map(Some),
        }
    }

    /// Mini-batches of the round on a device of so many samples.
    pub fn batches(&self, samples: usize) -> usize {
        batches(samples, self.batch, self.local_epochs)
    }

    /// Passes over the samples before a mini-batch, from the start of the run.
    pub(crate) fn epoch(&self, step: u32, samples: usize) -> u32 {
        let in_round = u64::from(step) / batches(samples, self.batch, 1).max(1) as u64;
        ((self.round as u64 - 1) * self.local_epochs as u64 + in_round) as u32
    }

    /// What the step of a mini-batch needs, at this peak learning rate, on a device of so many
    /// samples.
    pub(crate) fn step(&self, number: u32, peak: f64, samples: usize) -> Step {
        let (number, batches) = (u64::from(number), self.batches(samples) as u64);
        let rounds = self.rounds.unwrap_or(self.round);
        let factor = self.schedule.factor(self.round, rounds, number, batches);
        Step {
            learning_rate: peak * factor,
            dropout_seed: seed::derive(self.seed, &[seed::DROPOUT, number]),
        }
    }

    /// Whether adapters cross whole and bit for bit, and nothing of them is remembered.
    pub(crate) fn adapters_cross_raw(&self) -> bool {
        self.adapter_codec == Codec::raw()
    }

    /// The sender of updates: what it drops comes with the next one.
    pub(crate) fn update_compressor(&self) -> Box<dyn Compressor> {
        if self.adapters_cross_raw() {
            return Box::new(self.adapter_codec);
        }
        Box::new(ErrorFeedback::new(self.adapter_codec))
    }
}

/// The largest count of rounds, epochs or samples that is believed: far beyond any use, and small
/// enough for every product of two.
const MAX_COUNT: usize = 1_000_000;

/// Checks a count of rounds, epochs or samples.
pub(crate) fn check_count(name: &'static str, count: usize) -> Result<()> {
    check_between(name, count, MAX_COUNT)
}

/// Checks a count that is at least 1.
pub(crate) fn check_between(name: &'static str, count: usize, most: usize) -> Result<()> {
    Error::require(count >= 1, name, count, "at least 1")?;
    Error::require(count <= most, name, count, &format!("at most {most}"))
}

/// Checks a learning rate.
pub(crate) fn check_rate(name: &'static str, rate: f64) -> Result<()> {
    Error::require(rate.is_finite() && rate > 0.0, name, rate, "positive")
}

/// Checks a cut layer of a model of `depth` blocks.
pub(crate) fn check_cut(name: &'static str, cut: usize, depth: usize) -> Result<()> {
    let last = depth.saturating_sub(1);
    let accepted = format!("in 1..={last} for a model of {depth} blocks");
    Error::require((1..depth).contains(&cut), name, cut, &accepted)
}

/// Checks the number of frozen blocks against a cut layer, none where the model is not split.
pub(crate) fn check_frozen_blocks(frozen: usize, cut: Option<usize>) -> Result<()> {
    let holds = frozen == 0 || cut.is_some_and(|cut| frozen >= cut);
    let accepted = match cut {
        Some(cut) => format!("0, or at least {cut}, the cut layer"),
        None => "0 where the model is not split".into(),
    };
    Error::require(holds, "frozen_blocks", frozen, &accepted)
}

/// Checks a rank against a model: beyond its width an adapter gains nothing.
pub(crate) fn check_rank(rank: usize, spec: &ModelSpec) -> Result<()> {
    let width = spec.width;
    let accepted = format!("at most {width}, the model's width");
    Error::require(rank <= width, "rank", rank, &accepted)
}

/// Mini-batches of so many passes over so many samples; the last of a pass may be smaller.
pub(crate) fn batches(samples: usize, batch: usize, passes: usize) -> usize {
    passes.saturating_mul(samples.div_ceil(batch.max(1)))
}
