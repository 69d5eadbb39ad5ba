//! What a run is asked to do, as files, flags and Python say it.
// clap prints the documentation of a field as it stands.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

/// What no other part looks at.
mod check;
/// The fields that take one of a few words.
mod choices;
/// The fields that decide the result.
mod deciding;
/// The fields as flags of a program.
#[cfg(feature = "clap")]
mod flags;
/// From JSON and TOML.
mod read;
/// What the trainer takes of it.
mod resolve;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sft_compress::Codec;

pub use choices::{BackendKind, DeviceAdaptersKind, FadingKind, OptimizerKind, ScheduleKind};

use super::{Aggregation, Scheme};
use crate::adapter::{ModuleNames, TargetModules};
use crate::data::Partition;
use crate::model::Pooling;
use crate::split::{CutCodec, LabelSide};

/// The configuration of a run: what `vit_finetune` and `llm_finetune` take as flags, `sft.finetune` as arguments,
/// both as a file, and a checkpoint keeps. In brackets: the paper's symbol.
///
/// A field that is not given has the value that [`Default`] has, the only place where defaults
/// are. Fields are checked where they are used: [`RunConfig::settings`] and
/// [`Session`](crate::run::Session) refuse what is out of range.
///
/// ```
/// use sft_core::run::RunConfig;
///
/// # fn main() -> sft_core::Result<()> {
/// let config = RunConfig::from_toml("rounds = 2\nactivation = 'dead-zone:2'")?;
/// assert_eq!((config.rounds, config.devices), (2, 8));
/// let error = RunConfig::from_toml("round = 2").unwrap_err();
/// assert!(error.to_string().contains("rounds"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
// Each is a switch of its own.
#[allow(clippy::struct_excessive_bools)]
pub struct RunConfig {
    /// Schemes to run, comma-separated: sft, sft-raw, sl, fl-lora, fl-full.
    #[cfg_attr(feature = "clap", arg(long, value_delimiter = ',', action = clap::ArgAction::Set,
        value_parser = <Scheme as std::str::FromStr>::from_str))]
    #[serde(deserialize_with = "choices::schemes")]
    pub scheme: Vec<Scheme>,
    /// Pre-trained model: a ViT in safetensors with Hugging Face's or timm's names, config.json beside
    /// it, or a text model as a GGUF file or a Hugging Face folder.
    #[cfg_attr(feature = "clap", arg(long, value_name = "PATH"))]
    pub model: Option<PathBuf>,
    /// Attention heads of a ViT without config.json [A]; by default width / 64.
    #[cfg_attr(feature = "clap", arg(long))]
    pub heads: Option<usize>,
    /// Data set: cifar100:DIR (official binary or Python files), tiny-imagenet:DIR (official
    /// folder) or folder:DIR (DIR/train/CLASS/*, DIR/test/CLASS/*); of texts classify:FILE (.tsv with
    /// lines LABEL, tab, TEXT; .csv or .jsonl with label and text), or to tell the next tokens of
    /// text:PATH (a file, or a folder of .txt; each line is a sample, ended by the end of a text) or
    /// chat:FILE (.jsonl with messages, of role and content, or with prompt and completion; what the
    /// assistant says counts, by the tokenizer's chat template; without one the completion follows
    /// the prompt as it is); and --test.
    #[cfg_attr(feature = "clap", arg(long))]
    pub data: Option<String>,
    /// Test data where --data names training texts, by the same word: classify:FILE, text:PATH or
    /// chat:FILE.
    #[cfg_attr(feature = "clap", arg(long))]
    pub test: Option<String>,
    /// What every text is put into, in place of {text}.
    #[cfg_attr(feature = "clap", arg(long))]
    pub prompt: Option<String>,
    /// The most tokens of a text, those that the model has at its ends among them; of a longer one the
    /// end is kept where the head reads the last token, else the start. By default 512 or what the
    /// model takes.
    #[cfg_attr(feature = "clap", arg(long))]
    pub max_tokens: Option<usize>,
    /// Take each file of text:PATH as one text, line breaks and all, and cut it into samples of
    /// --max-tokens.
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL"))]
    pub pack: bool,
    /// Let each tuned model go on from so many test prompts, of a line of text from its first half.
    #[cfg_attr(feature = "clap", arg(long, value_name = "PROMPTS"))]
    pub generate: usize,
    /// The most tokens that --generate adds to a prompt.
    #[cfg_attr(feature = "clap", arg(long))]
    pub max_new_tokens: usize,
    /// What the head of a text model reads: first, last or mean of the tokens; by default the last
    /// of a decoder, else the first, behind the pooler of the family's classifiers. Only the default
    /// has a class in transformers, which --merged and equal logits through PEFT need.
    #[cfg_attr(feature = "clap", arg(long))]
    pub pooling: Option<Pooling>,
    /// Words whose rows in the language model's head the new head starts from, comma-separated, one for
    /// each class in order; of each the first token behind a space.
    #[cfg_attr(feature = "clap", arg(long, value_delimiter = ',', value_name = "WORDS",
        action = clap::ArgAction::Set))]
    pub class_words: Option<Vec<String>>,
    /// Mirror half of the training images and crop them all at random, anew in every epoch.
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL"))]
    pub augment: bool,
    /// Mobile devices [N].
    #[cfg_attr(feature = "clap", arg(long))]
    pub devices: usize,
    /// Fraction of the devices that take part in a round, drawn anew for each, in (0, 1].
    #[cfg_attr(feature = "clap", arg(long))]
    pub participation: f64,
    /// Seconds by the clock that a device has for its round; who is late is left out of the round.
    /// By default the server waits. What comes of a run then depends on the machine.
    #[cfg_attr(feature = "clap", arg(long))]
    pub deadline_s: Option<f64>,
    /// Rounds at most [T].
    #[cfg_attr(feature = "clap", arg(long))]
    pub rounds: usize,
    /// Also measure test accuracy of the model as it is split, after every round: with what crosses the
    /// cut compressed as in training. Schemes that do not split the model have no cut.
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL"))]
    pub evaluate_through_cut: bool,
    /// Stop after the round that reaches this test accuracy, a fraction.
    #[cfg_attr(feature = "clap", arg(long))]
    pub target_accuracy: Option<f64>,
    /// Passes over a device's data in a round [K].
    #[cfg_attr(feature = "clap", arg(long))]
    pub local_epochs: usize,
    /// Samples of a mini-batch [B].
    #[cfg_attr(feature = "clap", arg(long))]
    pub batch: usize,
    /// Blocks on the device, 1 to L - 1 [l].
    #[cfg_attr(feature = "clap", arg(long))]
    pub cut: usize,
    /// Blocks on each device, comma-separated, in place of --cut [l_n].
    #[cfg_attr(feature = "clap", arg(long, value_delimiter = ',', value_name = "CUTS",
        action = clap::ArgAction::Set))]
    pub device_cuts: Option<Vec<usize>>,
    /// Rank of the LoRA adapters [r].
    #[cfg_attr(feature = "clap", arg(long))]
    pub rank: usize,
    /// Rank on each device, comma-separated, in place of --rank; the largest is that of the result, of
    /// which each device gets the nearest of its own [r_n]. Needs --aggregation product.
    #[cfg_attr(feature = "clap", arg(long, value_delimiter = ',', value_name = "RANKS",
        action = clap::ArgAction::Set))]
    pub device_ranks: Option<Vec<usize>>,
    /// What the server makes of the devices' adapters: the averages of A and of B (average), as the
    /// paper, or the average of the products B A, as near to it as the rank allows (product).
    #[cfg_attr(feature = "clap", arg(long))]
    pub aggregation: Aggregation,
    /// Scale of the adapters is alpha / rank, of --device-ranks with the largest; by default alpha = rank.
    #[cfg_attr(feature = "clap", arg(long))]
    pub alpha: Option<f64>,
    /// Layers that get an adapter, by PEFT's names of target modules with commas between: some of a
    /// ViT's q_proj,k_proj,v_proj,o_proj,fc1,fc2,projection,classifier, or all-linear for those of
    /// the blocks; the head is trained in full where it is none of them.
    #[cfg_attr(feature = "clap", arg(long,
        value_parser = <TargetModules as std::str::FromStr>::from_str))]
    pub targets: TargetModules,
    /// Fraction of an adapter's inputs dropped while training, in [0, 1).
    #[cfg_attr(feature = "clap", arg(long))]
    pub lora_dropout: f64,
    /// What is trained of a device's half in the schemes that split the model: its adapters, or with
    /// none nothing: it runs forward alone, and neither gradients nor adapters cross; adapters are then
    /// on the blocks behind the deepest cut. fl-lora and fl-full stay as they are.
    #[cfg_attr(feature = "clap", arg(long))]
    pub device_adapters: DeviceAdaptersKind,
    /// PEFT folder to start the adapters and the head from, in all schemes but fl-full; it must
    /// have this run's rank, alpha, targets and blocks without adapters. A layer before the head that is
    /// in it (the pooler of an encoder) becomes the model's in all schemes.
    #[cfg_attr(feature = "clap", arg(long, value_name = "DIR"))]
    pub adapters: Option<PathBuf>,
    /// How activations go up: transform, transform:STEP, dead-zone:STEP, error:MSE, unbiased:STEP,
    /// activation:KEEP:LEVELS, gradient:KEEP:LEVELS, paper:KEEP:LEVELS or raw. transform alone takes
    /// the step of the kind of model: 0.6 of decoders, 0.3 of others. STEP is the
    /// quantization step over the tensor's root mean square without outliers, 0.001 to 1000;
    /// transform: over that of the activations that its basis is learnt from (of each gradient),
    /// with outliers, times the root of the image's tokens. MSE is the wanted error over the energy,
    /// KEEP the kept fraction of the elements, in (0, 1] [ρ], LEVELS the number of quantization
    /// points, 2 to 256 [E + 1]. unbiased rounds at random; activation spaces its levels
    /// logarithmically, gradient evenly in a range for each row (token), paper evenly in one range.
    #[cfg_attr(feature = "clap", arg(long, value_name = "CODEC"))]
    pub activation: CutCodec,
    /// How gradients come down, by the codecs of --activation; transform alone has a step of 1.5 for
    /// images and 2 for texts. None come with --device-adapters none.
    #[cfg_attr(feature = "clap", arg(long, value_name = "CODEC"))]
    pub gradient: CutCodec,
    /// Where the labels of the schemes that split the model are: with server they go up with the
    /// activations; with device they stay there with head and loss, the features that the head reads
    /// come down and their gradient goes up. fl-lora and fl-full stay as they are.
    #[cfg_attr(feature = "clap", arg(long))]
    pub labels: LabelSide,
    /// How features come down and their gradients go up with --labels device, by the codecs of
    /// --activation but transform. Schemes other than sft send both raw.
    #[cfg_attr(feature = "clap", arg(long, value_name = "CODEC"))]
    pub features: Codec,
    /// Megabytes in which a device, and the server for it, remember what samples were when they last
    /// crossed by transform:STEP, so that they cost little when they come again; 0 for none. Of
    /// images changed by --augment each view is remembered by itself, which pays only where views are
    /// few, as of small images.
    #[cfg_attr(feature = "clap", arg(long))]
    pub sample_memory_mb: usize,
    /// Add to every tensor of the cut what was dropped of the one before.
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL"))]
    pub error_feedback: bool,
    /// How differences of adapters to what the device holds cross, both ways, by the codecs of
    /// --activation; what is dropped comes with the next ones. raw sends adapters whole and bit for
    /// bit. Schemes other than sft always do; none cross with --device-adapters none but the head's
    /// with --labels device.
    #[cfg_attr(feature = "clap", arg(long, value_name = "CODEC"))]
    pub adapter_codec: Codec,
    /// Update rule of the adapters and the head.
    #[cfg_attr(feature = "clap", arg(long))]
    pub optimizer: OptimizerKind,
    /// Peak learning rate of the devices [ε_u]; with --device-adapters none they train nothing, or
    /// the head alone with --labels device.
    #[cfg_attr(feature = "clap", arg(long))]
    pub lr: f64,
    /// Peak learning rate of the server [ε_s]; by default that of the devices.
    #[cfg_attr(feature = "clap", arg(long))]
    pub lr_server: Option<f64>,
    /// Momentum of SGD, in [0, 1).
    #[cfg_attr(feature = "clap", arg(long))]
    pub momentum: f64,
    /// Weight decay per step; by default 0.01 for AdamW and 0 for SGD.
    #[cfg_attr(feature = "clap", arg(long))]
    pub weight_decay: Option<f64>,
    /// Largest norm of the gradient on a device, and of that on the server; by default no bound.
    #[cfg_attr(feature = "clap", arg(long))]
    pub clip_norm: Option<f64>,
    /// How the learning rates fall.
    #[cfg_attr(feature = "clap", arg(long))]
    pub schedule: ScheduleKind,
    /// Factor on the learning rates from round to round of --schedule exponential, in (0, 1].
    #[cfg_attr(feature = "clap", arg(long))]
    pub lr_decay: f64,
    /// Rounds, or a fraction of one, over which the learning rates rise from 0, step by step.
    #[cfg_attr(feature = "clap", arg(long))]
    pub warmup_rounds: f64,
    /// How the training data is spread over the devices: iid, dirichlet:CONCENTRATION or
    /// shards:NUMBER_PER_DEVICE.
    #[cfg_attr(feature = "clap", arg(long,
        value_parser = <Partition as std::str::FromStr>::from_str))]
    pub partition: Partition,
    /// Bandwidth that the devices share, Hz [W].
    #[cfg_attr(feature = "clap", arg(long))]
    pub bandwidth_hz: f64,
    /// Mean signal-to-noise ratio of every link, dB [SNR].
    #[cfg_attr(feature = "clap", arg(long))]
    pub snr_db: f64,
    /// Fading of every link from round to round.
    #[cfg_attr(feature = "clap", arg(long))]
    pub fading: FadingKind,
    /// Seed of everything random.
    #[cfg_attr(feature = "clap", arg(long))]
    pub seed: u64,
    /// Threads that devices share, and the steps of few devices; changes no result. By default as
    /// many as this process may use cores.
    #[cfg_attr(feature = "clap", arg(long))]
    pub threads: Option<usize>,
    /// Where the model runs; other than cpu needs a build with the feature of that name.
    #[cfg_attr(feature = "clap", arg(long))]
    pub backend: BackendKind,
    /// Keep only each block's input for its backward pass and compute the rest again there: less
    /// memory for more time, as modelled too; nothing else changes.
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL"))]
    pub gradient_checkpointing: bool,
    /// Keep a checkpoint of each scheme after every so many rounds, and after the last.
    #[cfg_attr(feature = "clap", arg(long, value_name = "ROUNDS"))]
    pub checkpoint_every: Option<usize>,
    /// Go on from the checkpoints in this folder, with the configuration they were made with; more
    /// rounds are welcome unless the schedule is cosine.
    #[cfg_attr(feature = "clap", arg(long, value_name = "DIR"))]
    pub resume: Option<PathBuf>,
    /// Also write each tuned model, adapters merged, as a Hugging Face folder.
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL"))]
    pub merged: bool,
    /// Module names in the adapters' PEFT folders.
    #[cfg_attr(feature = "clap", arg(long))]
    pub peft_names: ModuleNames,
    /// Folder that gets run.json, the adapters and the checkpoints, and holds no other run; by
    /// default that of --resume.
    #[cfg_attr(feature = "clap", arg(long))]
    pub out: Option<PathBuf>,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            scheme: vec![Scheme::Sft, Scheme::SftRaw, Scheme::Sl, Scheme::FlLora],
            model: None,
            heads: None,
            data: None,
            test: None,
            prompt: None,
            max_tokens: None,
            pack: false,
            generate: 0,
            max_new_tokens: 64,
            pooling: None,
            class_words: None,
            augment: false,
            devices: 8,
            participation: 1.0,
            deadline_s: None,
            rounds: 8,
            evaluate_through_cut: false,
            target_accuracy: None,
            local_epochs: 1,
            batch: 16,
            cut: 2,
            device_cuts: None,
            rank: 8,
            device_ranks: None,
            aggregation: Aggregation::Average,
            alpha: None,
            targets: TargetModules::default(),
            lora_dropout: 0.0,
            device_adapters: DeviceAdaptersKind::Lora,
            adapters: None,
            activation: CutCodec::Transform(None),
            gradient: CutCodec::Transform(None),
            labels: LabelSide::Server,
            features: Codec::default_features(),
            sample_memory_mb: 64,
            error_feedback: false,
            adapter_codec: Codec::default_adapter(),
            optimizer: OptimizerKind::Adamw,
            lr: 3e-3,
            lr_server: None,
            momentum: 0.9,
            weight_decay: None,
            clip_norm: None,
            schedule: ScheduleKind::Exponential,
            lr_decay: 0.998,
            warmup_rounds: 0.0,
            partition: Partition::Iid,
            bandwidth_hz: 30e6,
            snr_db: 17.0,
            fading: FadingKind::Rayleigh,
            seed: 1,
            threads: None,
            backend: BackendKind::Cpu,
            gradient_checkpointing: false,
            checkpoint_every: None,
            resume: None,
            merged: false,
            peft_names: ModuleNames::default(),
            out: None,
        }
    }
}

impl RunConfig {
    /// The folder that gets the results, if there is one.
    pub fn folder(&self) -> Option<&Path> {
        self.out.as_deref().or(self.resume.as_deref())
    }

    /// Whether a checkpoint is due after this many rounds.
    pub(super) fn checkpoint_is_due(&self, rounds: usize) -> bool {
        let due = |every: usize| rounds.is_multiple_of(every);
        self.checkpoint_every.is_some_and(due)
    }
}
