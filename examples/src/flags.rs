//! The flags of `vit_finetune`.
// clap prints the documentation of a flag as it stands.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, ValueEnum};
use serde::Serialize;
use sft_compress::{Codec, Range};
use sft_core::{Channel, Error, Lora, Optimizer, Partition, Result, Scheme, Settings};

/// Split LoRA fine-tuning of a vision transformer over simulated mobile devices.
///
/// A pre-trained model is split at the cut layer between the devices and an edge
/// server and fine-tuned by Algorithm 1, with the codec on both directions of the
/// cut; the other schemes of the paper run beside it. In brackets: the paper's symbol.
#[derive(Clone, Debug, Parser, Serialize)]
#[command(name = "vit_finetune")]
pub struct Flags {
    /// Schemes to run, comma-separated: sft, sft-raw, sl, fl-lora.
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
    /// Data set: digits, digits:FILE or cifar100:DIR.
    #[arg(long, default_value = "digits")]
    pub data: String,
    /// Mobile devices [N].
    #[arg(long, default_value_t = 8)]
    pub devices: usize,
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
    /// Choose --cut, --keep and --levels for the least modelled delay; prints why.
    #[arg(long, conflicts_with_all = ["cut", "keep", "levels"])]
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
    /// Kept fraction of an activation's elements, in (0, 1] [ρ].
    #[arg(long, default_value_t = 0.5)]
    pub keep: f64,
    /// Quantization points of an activation's magnitudes, 2 to 256 [E + 1].
    #[arg(long, default_value_t = 4)]
    pub levels: u32,
    /// Kept fraction of a gradient's elements, in (0, 1] [ρ].
    #[arg(long, default_value_t = 0.05)]
    pub gradient_keep: f64,
    /// Quantization points of a gradient's magnitudes, 2 to 256 [E + 1].
    #[arg(long, default_value_t = 4)]
    pub gradient_levels: u32,
    /// Quantization range: one per tensor as in the paper, or one per row (token).
    #[arg(long, value_enum, default_value_t = RangeFlag::Row)]
    pub range: RangeFlag,
    /// Update rule of the adapters and the head.
    #[arg(long, value_enum, default_value_t = OptimizerFlag::Adamw)]
    pub optimizer: OptimizerFlag,
    /// Learning rate of the devices in round 1 [ε_u].
    #[arg(long, default_value_t = 3e-3)]
    pub lr: f64,
    /// Learning rate of the server in round 1 [ε_s]; by default that of the devices.
    #[arg(long)]
    pub lr_server: Option<f64>,
    /// Momentum of SGD, in [0, 1).
    #[arg(long, default_value_t = 0.9)]
    pub momentum: f64,
    /// Factor on the learning rates from round to round, in (0, 1].
    #[arg(long, default_value_t = 0.998)]
    pub lr_decay: f64,
    /// How the training data is spread over the devices: iid or dirichlet:CONCENTRATION.
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
    /// Threads that simulate devices; changes no result. By default one per core.
    #[arg(long)]
    #[serde(skip)]
    pub threads: Option<usize>,
    /// Folder that gets run.json, the adapters and the pictures.
    #[arg(long, default_value = "runs/vit_finetune")]
    #[serde(skip)]
    pub out: PathBuf,
}

/// Values of `--range`.
#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RangeFlag {
    /// One range for the whole tensor.
    Tensor,
    /// One range for each row of the last dimension.
    Row,
}

/// Values of `--optimizer`.
#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerFlag {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// AdamW with weight decay 0.01.
    Adamw,
}

/// Values of `--fading`.
#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FadingFlag {
    /// Every link keeps its mean.
    None,
    /// Rayleigh block fading, a new draw in every round.
    Rayleigh,
}

impl Flags {
    /// The settings of one scheme.
    ///
    /// # Errors
    /// A flag outside its range.
    pub fn settings(&self, scheme: Scheme) -> Result<Settings> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Settings {
            scheme,
            cut: self.cut,
            lora: Lora::new(self.rank, self.alpha.unwrap_or(self.rank as f64))?,
            activation: self.codec(self.keep, self.levels)?,
            gradient: self.gradient_codec()?,
            rounds: self.rounds,
            local_epochs: self.local_epochs,
            batch: self.batch,
            optimizer: match self.optimizer {
                OptimizerFlag::Sgd => Optimizer::Sgd {
                    momentum: self.momentum,
                },
                OptimizerFlag::Adamw => Optimizer::AdamW,
            },
            lr: self.lr,
            lr_server: self.lr_server.unwrap_or(self.lr),
            lr_decay: self.lr_decay,
            target_accuracy: self.target_accuracy,
            seed: self.seed,
            threads: self.threads.unwrap_or_else(cores),
        })
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

    fn gradient_codec(&self) -> Result<Codec> {
        self.codec(self.gradient_keep, self.gradient_levels)
            .map_err(|error| match error.to_string().split_once(' ') {
                Some(("keep", reason)) => Error::argument("gradient_keep", reason),
                Some(("levels", reason)) => Error::argument("gradient_levels", reason),
                _ => error,
            })
    }

    fn codec(&self, keep: f64, levels: u32) -> Result<Codec> {
        let range = match self.range {
            RangeFlag::Tensor => Range::Tensor,
            RangeFlag::Row => Range::Row,
        };
        Ok(Codec::paper(keep, levels)?.with_range(range))
    }
}

/// The line that tells a user what was wrong, with flags named as they are typed.
pub fn message(error: &Error) -> String {
    let flag = |line: &str| format!("--{line}");
    match error {
        Error::Argument { argument, reason } => {
            flag(&format!("{} {reason}", argument.replace('_', "-")))
        }
        Error::Codec(error) => flag(&error.to_string()),
        other => other.to_string(),
    }
}

fn names<S: serde::Serializer>(schemes: &[Scheme], out: S) -> Result<S::Ok, S::Error> {
    out.collect_seq(schemes.iter().map(|scheme| scheme.name()))
}

fn display<S: serde::Serializer>(value: &Partition, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(value)
}
