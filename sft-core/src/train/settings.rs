//! What a fine-tuning run is asked to do.

use std::str::FromStr;

use sft_compress::Codec;

use crate::{Error, Lora, Optimizer, Result};

/// How devices and server share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Split fine-tuning by Algorithm 1: parallel devices, compressed cut.
    Sft,
    /// The same without compression.
    SftRaw,
    /// Sequential split learning: one device after the other, no compression, no averaging.
    Sl,
    /// Federated learning with LoRA: the whole model on every device.
    FlLora,
}

impl Scheme {
    /// Every scheme, in the order of the paper's comparison.
    pub const ALL: [Self; 4] = [Self::Sft, Self::SftRaw, Self::Sl, Self::FlLora];

    /// The scheme's name in files and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::SftRaw => "sft-raw",
            Self::Sl => "sl",
            Self::FlLora => "fl-lora",
        }
    }
}

impl FromStr for Scheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scheme = Self::ALL.into_iter().find(|scheme| scheme.name() == text);
        scheme.ok_or_else(|| "expected sft, sft-raw, sl or fl-lora".into())
    }
}

/// The settings of Algorithm 1; the paper's symbols in parentheses.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Who does what.
    pub scheme: Scheme,
    /// Blocks on the device (`l`), 1..L; ignored by FL.
    pub cut: usize,
    /// Rank and scale of the adapters (`r`).
    pub lora: Lora,
    /// How activations go up; used by [`Scheme::Sft`].
    pub activation: Codec,
    /// How gradients go down; used by [`Scheme::Sft`].
    pub gradient: Codec,
    /// Rounds at most (`T`).
    pub rounds: usize,
    /// Passes over the local data in a round (`K`).
    pub local_epochs: usize,
    /// Samples of a mini-batch (`B`).
    pub batch: usize,
    /// The rule of (5) and (6).
    pub optimizer: Optimizer,
    /// The device's rate in round 1 (`ε_u`).
    pub lr: f64,
    /// The server's rate in round 1 (`ε_s`).
    pub lr_server: f64,
    /// The factor on both rates from round to round.
    pub lr_decay: f64,
    /// Stop after the first round whose test accuracy reaches this fraction.
    pub target_accuracy: Option<f64>,
    /// The seed of everything random.
    pub seed: u64,
    /// Threads that run devices and evaluation; changes no result.
    pub threads: usize,
}

impl Settings {
    /// Checks every number against its range, for a model of `depth` blocks.
    pub(crate) fn validate(&self, depth: usize) -> Result<()> {
        let counts = [
            ("rounds", self.rounds),
            ("local_epochs", self.local_epochs),
            ("batch", self.batch),
            ("threads", self.threads),
        ];
        for (name, count) in counts {
            require(count >= 1, name, count, "at least 1")?;
        }
        let split = self.scheme != Scheme::FlLora;
        let cuts = format!(
            "in 1..={} for a model of {depth} blocks",
            depth.saturating_sub(1)
        );
        require(
            !split || (1..depth).contains(&self.cut),
            "cut",
            self.cut,
            &cuts,
        )?;
        let rates = [("lr", self.lr), ("lr_server", self.lr_server)];
        for (name, rate) in rates {
            require(rate.is_finite() && rate > 0.0, name, rate, "positive")?;
        }
        let decay = self.lr_decay;
        require(decay > 0.0 && decay <= 1.0, "lr_decay", decay, "in (0, 1]")?;
        if let Optimizer::Sgd { momentum } = self.optimizer {
            require(
                (0.0..1.0).contains(&momentum),
                "momentum",
                momentum,
                "in [0, 1)",
            )?;
        }
        if let Some(target) = self.target_accuracy {
            require(
                target > 0.0 && target <= 1.0,
                "target_accuracy",
                target,
                "in (0, 1]",
            )?;
        }
        Ok(())
    }

    /// The factor on the learning rates in a round, counted from 1.
    pub(crate) fn decay(&self, round: usize) -> f64 {
        (1..round).fold(1.0, |factor, _| factor * self.lr_decay)
    }

    /// The codecs for activations and gradients that the scheme really uses.
    pub(crate) fn codecs(&self) -> (Codec, Codec) {
        match self.scheme {
            Scheme::Sft => (self.activation, self.gradient),
            _ => (Codec::raw(), Codec::raw()),
        }
    }
}

fn require(
    holds: bool,
    argument: &'static str,
    value: impl std::fmt::Display,
    accepted: &str,
) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::argument(
        argument,
        format!("must be {accepted}, got {value}"),
    ))
}
