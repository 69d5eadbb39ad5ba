//! What a fine-tuning run is asked to do.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sft_compress::Codec;

use crate::adapter::{Lora, ModelSpec, check_frozen};
use crate::optim::{Decay, Optimizer, OptimizerConfig, Schedule};
use crate::split::{
    CutCodec, LabelSide, check_between, check_count, check_cut, check_frozen_blocks, check_rate,
};
use crate::{Error, Result};

/// The most threads that are started.
pub(super) const MAX_THREADS: usize = 1024;

/// How devices and server share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Split fine-tuning by Algorithm 1: parallel devices, compressed cut.
    Sft,
    /// The same without compression.
    SftRaw,
    /// Sequential split learning: one device after the other, no compression, no averaging.
    Sl,
    /// Federated learning with LoRA: the whole model on every device.
    FlLora,
    /// Federated learning of all parameters, as the paper's first baseline.
    FlFull,
}

impl Scheme {
    /// Every scheme, in the order of the paper's comparison.
    pub const ALL: [Self; 5] = [
        Self::Sft,
        Self::SftRaw,
        Self::Sl,
        Self::FlLora,
        Self::FlFull,
    ];

    /// Whether the model is split between device and server.
    pub fn is_split(self) -> bool {
        !matches!(self, Self::FlLora | Self::FlFull)
    }

    /// The scheme's name in files and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::SftRaw => "sft-raw",
            Self::Sl => "sl",
            Self::FlLora => "fl-lora",
            Self::FlFull => "fl-full",
        }
    }
}

impl FromStr for Scheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scheme = Self::ALL.into_iter().find(|scheme| scheme.name() == text);
        scheme.ok_or_else(|| "expected sft, sft-raw, sl, fl-lora or fl-full".into())
    }
}

/// What the server makes of the adapters of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Aggregation {
    /// The averages of A and of B, as in the paper.
    Average,
    /// The average of the products B A, as near to it as the rank allows.
    Product,
}

/// The settings of Algorithm 1; the paper's symbols in parentheses.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Who does what.
    pub scheme: Scheme,
    /// Blocks on the device (`l`), 1..L; ignored by FL, overruled by [`Job::device_cuts`](crate::run::Job::device_cuts).
    pub cut: usize,
    /// Rank (`r`), scale, targets and dropout of the adapters; ignored by [`Scheme::FlFull`].
    pub lora: Lora,
    /// How activations go up; used by [`Scheme::Sft`].
    pub activation: CutCodec,
    /// How gradients go down; used by [`Scheme::Sft`]. None go to a device without adapters.
    pub gradient: CutCodec,
    /// Where the labels are of a model that is split, and with them head and loss; ignored by FL, which
    /// has both on the device.
    pub labels: LabelSide,
    /// How features go down, and their gradients up, where the labels are on the device; used by
    /// [`Scheme::Sft`].
    pub features: Codec,
    /// Memory of a device, and of the server for it, for what samples were when they last crossed
    /// by a transform codec, bytes; 0 for none.
    pub sample_memory_bytes: usize,
    /// Whether senders add to a tensor of the cut what they dropped of the one before; used by
    /// [`Scheme::Sft`].
    pub error_feedback: bool,
    /// How differences of adapters cross, both ways; raw: whole adapters, bit for bit. Used by
    /// [`Scheme::Sft`]; a split device without adapters has none to send.
    pub adapter_codec: Codec,
    /// What the server makes of the adapters of a round; [`Scheme::Sl`] and [`Scheme::FlFull`] have
    /// nothing to choose.
    pub aggregation: Aggregation,
    /// Rounds at most (`T`), 1 to 1,000,000.
    pub rounds: usize,
    /// Passes over the local data in a round (`K`), 1 to 1,000,000.
    pub local_epochs: usize,
    /// Samples of a mini-batch (`B`), 1 to 1,000,000.
    pub batch: usize,
    /// The rule of (5) and (6).
    pub optimizer: Optimizer,
    /// The largest norm of a half's whole gradient; device and server clip their own.
    pub clip_norm: Option<f64>,
    /// The device's peak rate (`ε_u`); without adapters it trains nothing but the head, if it has the
    /// labels.
    pub lr: f64,
    /// The server's peak rate (`ε_s`).
    pub lr_server: f64,
    /// How both rates change over the run.
    pub schedule: Schedule,
    /// The fraction of the devices that take part in a round, in (0, 1]; at least one does.
    pub participation: f64,
    /// Seconds by the clock that a device has for its round; who is late is left out of it. What
    /// comes of a run then depends on the machine.
    pub deadline_s: Option<f64>,
    /// Whether accuracy is also measured with what crosses the cut compressed as in training; not of
    /// FL, which has no cut.
    pub evaluate_through_cut: bool,
    /// Stop after the first round whose test accuracy reaches this fraction.
    pub target_accuracy: Option<f64>,
    /// The seed of everything random.
    pub seed: u64,
    /// Threads that devices and evaluation share, and the steps of few devices, 1 to 1024; changes no
    /// result.
    pub threads: usize,
}

impl Settings {
    /// What `vit_finetune` does by default, for a scheme and a common cut layer: 8 rounds of
    /// AdamW at 3e-3, batches of 16, adapters of rank 8, the default codecs, seed 1, one thread.
    ///
    /// # Errors
    /// None: every default is in its range.
    pub fn new(scheme: Scheme, cut: usize) -> Result<Self> {
        Ok(Self {
            scheme,
            cut,
            lora: Lora::new(8, 8.0)?,
            activation: CutCodec::Transform(None),
            gradient: CutCodec::Transform(None),
            labels: LabelSide::Server,
            features: Codec::default_features(),
            sample_memory_bytes: 64_000_000,
            error_feedback: false,
            adapter_codec: Codec::default_adapter(),
            aggregation: Aggregation::Average,
            rounds: 8,
            local_epochs: 1,
            batch: 16,
            optimizer: Optimizer::adamw(),
            clip_norm: None,
            lr: 3e-3,
            lr_server: 3e-3,
            schedule: Schedule::new(Decay::Exponential(0.998)),
            participation: 1.0,
            deadline_s: None,
            evaluate_through_cut: false,
            target_accuracy: None,
            seed: 1,
            threads: 1,
        })
    }

    /// Checks every number against its range, for a model of `depth` blocks.
    pub(crate) fn validate(&self, depth: usize) -> Result<()> {
        check_count("rounds", self.rounds)?;
        check_count("local_epochs", self.local_epochs)?;
        check_count("batch", self.batch)?;
        check_between("threads", self.threads, MAX_THREADS)?;
        self.validate_cut("cut", self.cut, depth)?;
        if !self.scheme.is_split() {
            check_frozen_blocks(self.lora.frozen_blocks(), None)?;
        }
        check_frozen(self.lora, depth)?;
        check_rate("lr", self.lr)?;
        check_rate("lr_server", self.lr_server)?;
        if let Some(s) = self.deadline_s {
            Error::require(s.is_finite() && s > 0.0, "deadline_s", s, "positive")?;
        }
        self.schedule.validate(self.rounds)?;
        self.optimizer_config().validate()?;
        let fractions = [
            ("participation", Some(self.participation)),
            ("target_accuracy", self.target_accuracy),
        ];
        for (name, fraction) in fractions {
            let fraction = fraction.unwrap_or(1.0);
            let holds = fraction > 0.0 && fraction <= 1.0;
            Error::require(holds, name, fraction, "in (0, 1]")?;
        }
        Ok(())
    }

    /// Checks a cut layer, where the scheme has one.
    pub(crate) fn validate_cut(&self, name: &'static str, cut: usize, depth: usize) -> Result<()> {
        if !self.scheme.is_split() {
            return Ok(());
        }
        check_cut(name, cut, depth)
    }

    /// What turns gradients into updates.
    pub(crate) fn optimizer_config(&self) -> OptimizerConfig {
        OptimizerConfig {
            optimizer: self.optimizer,
            clip_norm: self.clip_norm,
        }
    }

    /// The codecs for activations and gradients that the scheme really uses for a model; no gradients
    /// come down to a frozen half.
    pub(crate) fn codecs(&self, spec: &ModelSpec) -> (CutCodec, CutCodec) {
        let raw = CutCodec::raw();
        let activation = self.activation.for_activations_of(spec);
        match self.scheme {
            Scheme::Sft if self.lora.frozen_blocks() > 0 => (activation, raw),
            Scheme::Sft => (activation, self.gradient.for_gradients_of(spec)),
            _ => (raw, raw),
        }
    }

    /// The codec for features and their gradients that the scheme really uses.
    pub(crate) fn feature_codec(&self) -> Codec {
        match self.scheme {
            Scheme::Sft => self.features,
            _ => Codec::raw(),
        }
    }

    /// The codec for adapters that the scheme really uses.
    pub(crate) fn adapter_codec(&self) -> Codec {
        match self.scheme {
            Scheme::Sft => self.adapter_codec,
            _ => Codec::raw(),
        }
    }
}
