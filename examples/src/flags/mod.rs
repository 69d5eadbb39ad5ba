//! The flags of `vit_finetune`.
// clap prints the documentation of a flag as it stands.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

mod codec;
mod values;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Parser;
use serde::Serialize;
use serde_json::{Map, Value};
use sft_compress::Codec;
use sft_core::adapter::{Lora, ModelSpec, ModuleNames, TargetModules};
use sft_core::data::Partition;
use sft_core::optim::Optimizer;
use sft_core::run::{Channel, Decay, Schedule, Scheme, Settings};
use sft_core::{Error, Result};

pub use codec::LevelsFlag;
pub use values::{Backend, FadingFlag, NamesFlag, OptimizerFlag, ScheduleFlag};

/// Split LoRA fine-tuning of a vision transformer over simulated mobile devices.
///
/// A pre-trained model is split at the cut layer between the devices and an edge
/// server and fine-tuned by Algorithm 1, with the codec on both directions of the
/// cut; the other schemes of the paper run beside it. In brackets: the paper's symbol.
#[derive(Clone, Debug, Parser, Serialize)]
#[command(name = "vit_finetune")]
// Each is a switch of its own on the command line.
#[allow(clippy::struct_excessive_bools)]
pub struct Flags {
    /// Schemes to run, comma-separated: sft, sft-raw, sl, fl-lora, fl-full.
    #[arg(long, value_delimiter = ',', value_parser = Scheme::from_str,
          default_values = ["sft", "sft-raw", "sl", "fl-lora"])]
    #[serde(serialize_with = "names")]
    pub scheme: Vec<Scheme>,
    /// Pre-trained ViT in safetensors with Hugging Face's or timm's names, config.json beside it;
    /// without it, the embedded ViT of the digits.
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Attention heads of a model without config.json [A]; by default width / 64.
    #[arg(long)]
    pub heads: Option<usize>,
    /// Data set: digits, digits:FILE, cifar100:DIR (official binary or Python files),
    /// tiny-imagenet:DIR (official folder) or folder:DIR (DIR/train/CLASS/*, DIR/test/CLASS/*).
    #[arg(long, default_value = "digits")]
    pub data: String,
    /// Mirror half of the training images and crop them all at random, anew in every epoch.
    #[arg(long)]
    pub augment: bool,
    /// Mobile devices [N].
    #[arg(long, default_value_t = 8)]
    pub devices: usize,
    /// Fraction of the devices that take part in a round, drawn anew for each, in (0, 1].
    #[arg(long, default_value_t = 1.0)]
    pub participation: f64,
    /// Rounds at most [T].
    #[arg(long, default_value_t = 8)]
    pub rounds: usize,
    /// Stop after the round that reaches this test accuracy, a fraction.
    #[arg(long)]
    pub target_accuracy: Option<f64>,
    /// Passes over a device's data in a round [K].
    #[arg(long, default_value_t = 1)]
    pub local_epochs: usize,
    /// Samples of a mini-batch [B].
    #[arg(long, default_value_t = 16)]
    pub batch: usize,
    /// Blocks on the device, 1 to L - 1 [l].
    #[arg(long, default_value_t = 2)]
    pub cut: usize,
    /// Blocks on each device, comma-separated, in place of --cut [l_n].
    #[arg(long, value_delimiter = ',', value_name = "CUTS")]
    pub device_cuts: Option<Vec<usize>>,
    /// Choose --cut and the kept fraction and levels of --activation for the least modelled delay;
    /// prints why.
    #[arg(long, conflicts_with_all = ["cut", "device_cuts", "activation"])]
    #[serde(skip)]
    pub auto: bool,
    /// Accuracy over keep and levels for --auto, from accuracy_sweep; by default the digits'.
    #[arg(long, value_name = "FILE", requires = "auto")]
    #[serde(skip)]
    pub surface: Option<PathBuf>,
    /// Accuracy that --auto may give up for speed, a fraction.
    #[arg(long, default_value_t = 0.02, requires = "auto")]
    #[serde(skip)]
    pub accuracy_drop: f64,
    /// Memory of every device for --auto, MiB [M_max].
    #[arg(long, default_value_t = 8192.0, requires = "auto")]
    #[serde(skip)]
    pub device_memory_mib: f64,
    /// Rank of the LoRA adapters [r].
    #[arg(long, default_value_t = 8)]
    pub rank: usize,
    /// Scale of the adapters is alpha / rank; by default alpha = rank.
    #[arg(long)]
    pub alpha: Option<f64>,
    /// Layers that get an adapter, by PEFT's names of target modules with commas between: some of a
    /// ViT's q_proj,k_proj,v_proj,o_proj,fc1,fc2,projection,classifier, or all-linear for those of
    /// the blocks; the head is trained in full where it is none of them.
    #[arg(long, value_parser = TargetModules::from_str, default_value_t = TargetModules::default())]
    #[serde(serialize_with = "display")]
    pub targets: TargetModules,
    /// Fraction of an adapter's inputs dropped while training, in [0, 1).
    #[arg(long, default_value_t = 0.0)]
    pub lora_dropout: f64,
    /// PEFT folder to start the adapters and the head from, in all schemes but fl-full; it must
    /// have the flags' rank, alpha and targets.
    #[arg(long, value_name = "DIR")]
    pub adapters: Option<PathBuf>,
    /// How activations go up: dead-zone:STEP, activation:KEEP:LEVELS, gradient:KEEP:LEVELS,
    /// paper:KEEP:LEVELS or raw. STEP is the quantization step over the tensor's root mean square, 0.001 to 1000,
    /// KEEP the kept fraction of the elements, in (0, 1] [ρ], LEVELS the number of quantization
    /// points, 2 to 256 [E + 1]. activation spaces its levels logarithmically, gradient evenly in a
    /// range for each row (token), paper evenly in one range. The documentation of
    /// sft_compress::Codec has the rest of the spelling.
    #[arg(long, value_name = "CODEC", default_value_t = Codec::default_activation())]
    pub activation: Codec,
    /// How gradients come down, by the codecs of --activation.
    #[arg(long, value_name = "CODEC", default_value_t = Codec::default_gradient())]
    pub gradient: Codec,
    /// Update rule of the adapters and the head.
    #[arg(long, value_enum, default_value_t = OptimizerFlag::Adamw)]
    pub optimizer: OptimizerFlag,
    /// Peak learning rate of the devices [ε_u].
    #[arg(long, default_value_t = 3e-3)]
    pub lr: f64,
    /// Peak learning rate of the server [ε_s]; by default that of the devices.
    #[arg(long)]
    pub lr_server: Option<f64>,
    /// Momentum of SGD, in [0, 1).
    #[arg(long, default_value_t = 0.9)]
    pub momentum: f64,
    /// Weight decay per step; by default 0.01 for AdamW and 0 for SGD.
    #[arg(long)]
    pub weight_decay: Option<f64>,
    /// Largest norm of the gradient on a device, and of that on the server; by default no bound.
    #[arg(long)]
    pub clip_norm: Option<f64>,
    /// How the learning rates fall.
    #[arg(long, value_enum, default_value_t = ScheduleFlag::Exponential)]
    pub schedule: ScheduleFlag,
    /// Factor on the learning rates from round to round of --schedule exponential, in (0, 1].
    #[arg(long, default_value_t = 0.998)]
    pub lr_decay: f64,
    /// Rounds, or a fraction of one, over which the learning rates rise from 0, step by step.
    #[arg(long, default_value_t = 0.0)]
    pub warmup_rounds: f64,
    /// How the training data is spread over the devices: iid, dirichlet:CONCENTRATION or
    /// shards:NUMBER_PER_DEVICE.
    #[arg(long, value_parser = Partition::from_str, default_value = "iid")]
    #[serde(serialize_with = "display")]
    pub partition: Partition,
    /// Bandwidth that the devices share, MHz [W].
    #[arg(long, default_value_t = 30.0)]
    pub bandwidth_mhz: f64,
    /// Mean signal-to-noise ratio of every link, dB [SNR].
    #[arg(long, default_value_t = 17.0)]
    pub snr_db: f64,
    /// Fading of every link from round to round.
    #[arg(long, value_enum, default_value_t = FadingFlag::Rayleigh)]
    pub fading: FadingFlag,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Threads that devices share, and the steps of few devices; changes no result. By default one per
    /// core.
    #[arg(long)]
    #[serde(skip)]
    pub threads: Option<usize>,
    /// Where the model runs; other than cpu needs a build with the feature of that name.
    #[arg(long, value_enum, default_value_t = Backend::Cpu)]
    pub backend: Backend,
    /// Keep only each block's input for its backward pass and compute the rest again there: less
    /// memory for more time; changes no result.
    #[arg(long)]
    #[serde(skip)]
    pub gradient_checkpointing: bool,
    /// Keep a checkpoint of each scheme after every so many rounds, and after the last.
    #[arg(long, value_name = "ROUNDS")]
    #[serde(skip)]
    pub checkpoint_every: Option<usize>,
    /// Go on from the checkpoints in this folder, with the flags they were made with; more
    /// --rounds are welcome unless the schedule is cosine.
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    pub resume: Option<PathBuf>,
    /// Also write each tuned model, adapters merged, as a Hugging Face folder.
    #[arg(long)]
    #[serde(skip)]
    pub merged: bool,
    /// Module names in the adapters' PEFT folders.
    #[arg(long, value_enum, default_value_t = NamesFlag::Transformers5)]
    #[serde(skip)]
    pub peft_names: NamesFlag,
    /// Folder that gets run.json, the adapters, the pictures and the checkpoints; by default that
    /// of --resume, else runs/vit_finetune.
    #[arg(long)]
    #[serde(skip)]
    out: Option<PathBuf>,
}

impl Flags {
    /// The settings of one scheme, for a model of which `spec` tells the layers.
    ///
    /// # Errors
    /// A flag outside its range, or a target that the model does not have.
    pub fn settings(&self, scheme: Scheme, spec: &ModelSpec) -> Result<Settings> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Settings {
            scheme,
            cut: self.cut,
            lora: self.lora(spec)?,
            activation: self.activation,
            gradient: self.gradient,
            rounds: self.rounds,
            local_epochs: self.local_epochs,
            batch: self.batch,
            optimizer: match self.optimizer {
                OptimizerFlag::Sgd => Optimizer::Sgd {
                    momentum: self.momentum,
                    weight_decay: self.weight_decay.unwrap_or(0.0),
                },
                OptimizerFlag::Adamw => Optimizer::AdamW {
                    weight_decay: self.weight_decay.unwrap_or(0.01),
                },
            },
            clip_norm: self.clip_norm,
            lr: self.lr,
            lr_server: self.lr_server.unwrap_or(self.lr),
            schedule: Schedule {
                warmup_rounds: self.warmup_rounds,
                decay: match self.schedule {
                    ScheduleFlag::Constant => Decay::Constant,
                    ScheduleFlag::Exponential => Decay::Exponential(self.lr_decay),
                    ScheduleFlag::Cosine => Decay::Cosine,
                },
            },
            participation: self.participation,
            target_accuracy: self.target_accuracy,
            seed: self.seed,
            threads: self.threads.unwrap_or_else(cores),
        })
    }

    fn lora(&self, spec: &ModelSpec) -> Result<Lora> {
        let alpha = self.alpha.unwrap_or(self.rank as f64);
        let lora = Lora::new(self.rank, alpha)?.with_targets(self.targets.resolve(spec)?);
        lora.with_dropout(self.lora_dropout)
    }

    /// Whether a checkpoint is due after this many rounds.
    ///
    /// # Errors
    /// A checkpoint after every 0 rounds.
    pub fn checkpoint_is_due(&self, rounds: usize) -> Result<bool> {
        match self.checkpoint_every {
            Some(0) => {
                let reason = "must be at least 1, got 0";
                Err(Error::argument("checkpoint_every", reason))
            }
            Some(every) => Ok(rounds.is_multiple_of(every)),
            None => Ok(false),
        }
    }

    /// The folder that gets the results.
    pub fn out(&self) -> &Path {
        let default = || Path::new("runs/vit_finetune");
        let named = self.out.as_deref().or(self.resume.as_deref());
        named.unwrap_or_else(default)
    }

    /// What decides a scheme's results: a run goes on only from a checkpoint with the same.
    ///
    /// The number of rounds is not part of it, unless the schedule depends on it.
    pub fn configuration(&self) -> Map<String, Value> {
        let Ok(Value::Object(mut flags)) = serde_json::to_value(self) else {
            unreachable!("flags are an object")
        };
        flags.remove("scheme");
        flags.remove("target_accuracy");
        if self.schedule != ScheduleFlag::Cosine {
            flags.remove("rounds");
        }
        flags
    }

    /// The names of modules in PEFT folders.
    pub fn module_names(&self) -> ModuleNames {
        match self.peft_names {
            NamesFlag::Transformers5 => ModuleNames::Transformers5,
            NamesFlag::Transformers4 => ModuleNames::Transformers4,
        }
    }

    /// The channel that the devices share.
    ///
    /// # Errors
    /// A bandwidth that is not positive or a ratio that is not finite.
    pub fn channel(&self) -> Result<Channel> {
        let (bandwidth, snr_db) = (self.bandwidth_mhz, self.snr_db);
        if !(bandwidth > 0.0 && bandwidth.is_finite()) {
            let reason = format!("must be positive, got {bandwidth}");
            return Err(Error::argument("bandwidth_mhz", reason));
        }
        if !(-300.0..=300.0).contains(&snr_db) {
            let reason = format!("must be in -300..=300, got {snr_db}");
            return Err(Error::argument("snr_db", reason));
        }
        let rayleigh = matches!(self.fading, FadingFlag::Rayleigh);
        Ok(Channel {
            bandwidth_hz: bandwidth * 1e6,
            snr_db,
            rayleigh,
        })
    }
}

/// The line that tells a user what was wrong, with flags named as they are typed.
pub fn message(error: &Error) -> String {
    let flag = |line: &str| format!("--{line}");
    match error {
        Error::Argument { argument, reason } => {
            flag(&format!("{} {reason}", argument.replace('_', "-")))
        }
        other => other.to_string(),
    }
}

fn names<S: serde::Serializer>(schemes: &[Scheme], out: S) -> Result<S::Ok, S::Error> {
    out.collect_seq(schemes.iter().map(|scheme| scheme.name()))
}

fn display<S: serde::Serializer>(
    value: &impl std::fmt::Display,
    out: S,
) -> Result<S::Ok, S::Error> {
    out.collect_str(value)
}

#[cfg(test)]
mod tests {
    use sft_core::model::VitConfig;

    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_library() {
        let spec = VitConfig::default().spec();
        for scheme in Scheme::ALL {
            let flags = Flags::parse_from(["vit_finetune", "--threads", "1"]);
            let (flags, library) = (flags.settings(scheme, &spec), Settings::new(scheme, 2));
            assert_eq!(format!("{flags:?}"), format!("{library:?}"));
        }
    }
}
