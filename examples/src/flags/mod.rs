//! The flags of `vit_finetune`.
// clap prints the documentation of a flag as it stands.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

mod codec;

use std::path::PathBuf;

use clap::{Args, Command, FromArgMatches};
use sft_core::run::RunConfig;
use sft_core::{Error, Result};

pub use codec::{LevelsFlag, check_step_kind, step_codec};

/// Where the results go, if nothing is said.
const OUT: &str = "runs/vit_finetune";

/// What `vit_finetune` is asked to do.
#[derive(Clone, Debug)]
pub struct Flags {
    /// The run.
    pub config: RunConfig,
    /// What is to be chosen for it.
    pub auto: Auto,
}

/// The flags of `vit_finetune` that only it has.
#[derive(Clone, Debug, Args)]
pub struct Auto {
    /// Choose --cut and the step of --activation (or its kept fraction and levels, as --surface has
    /// them) for the least modelled delay; prints why.
    #[arg(long, conflicts_with_all = ["cut", "device_cuts", "activation"])]
    pub auto: bool,
    /// Accuracy over steps, or over keep and levels, for --auto, from accuracy_sweep; by default the
    /// digits' over steps.
    #[arg(long, value_name = "FILE", requires = "auto")]
    pub surface: Option<PathBuf>,
    /// Accuracy that --auto may give up for speed, a fraction.
    #[arg(long, default_value_t = 0.02, requires = "auto")]
    pub accuracy_drop: f64,
    /// Memory of every device for --auto, MiB [M_max].
    #[arg(long, default_value_t = 8192.0, requires = "auto")]
    pub device_memory_mib: f64,
}

impl Flags {
    /// What the command line asks for; ends the program where it cannot be read.
    ///
    /// # Errors
    /// A configuration file that cannot be read or is refused.
    pub fn parse() -> Result<Self> {
        let about = "Split LoRA fine-tuning of a vision transformer over simulated mobile devices";
        let more = "A pre-trained model is split at the cut layer between the devices and an edge \
                    server and fine-tuned by Algorithm 1, with the codec on both directions of the \
                    cut; the other schemes of the paper run beside it. In brackets: the paper's \
                    symbol.";
        let own = Auto::augment_args(Command::new("vit_finetune"));
        // The documentation of a struct of flags would be the program's.
        let command = with_run(own, OUT)
            .about(about)
            .version(env!("CARGO_PKG_VERSION"));
        let matches = command
            .long_about(format!("{about}\n\n{more}"))
            .get_matches();
        Ok(Self {
            config: run(&matches, OUT)?,
            auto: Auto::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()),
        })
    }
}

/// Adds the flags of a run to a program's own, with what the programs here have in addition: the
/// embedded model, the digits and a folder for the results.
pub fn with_run(own: Command, out: &str) -> Command {
    let out = format!(
        "Folder that gets the results and holds no other run [default: that of --resume, else {out}]"
    );
    RunConfig::flags(own)
        .mut_arg("model", |arg| {
            arg.help(
                "Pre-trained ViT in safetensors with Hugging Face's or timm's names, config.json \
                 beside it; without it, the embedded ViT of the digits",
            )
        })
        .mut_arg("data", |arg| {
            arg.help(
                "Data set: digits, digits:FILE, cifar100:DIR (official binary or Python files), \
                 tiny-imagenet:DIR (official folder) or folder:DIR (DIR/train/CLASS/*, \
                 DIR/test/CLASS/*) [default: digits]",
            )
        })
        .mut_arg("out", |arg| arg.help(out))
}

/// The run that the flags of [`with_run`] ask for.
///
/// # Errors
/// A configuration file that cannot be read or is refused.
pub fn run(matches: &clap::ArgMatches, out: &str) -> Result<RunConfig> {
    run_over(matches, out, &RunConfig::default())
}

/// The same over other defaults.
///
/// # Errors
/// As [`run`].
pub fn run_over(matches: &clap::ArgMatches, out: &str, defaults: &RunConfig) -> Result<RunConfig> {
    let mut config = RunConfig::from_flags_over(matches, defaults)?;
    config.data.get_or_insert_with(|| "digits".into());
    if config.folder().is_none() {
        config.out = Some(out.into());
    }
    Ok(config)
}

/// The line that tells a user what was wrong, with flags named as they are typed.
pub fn message(error: &Error) -> String {
    match error {
        Error::Argument { argument, reason } => {
            format!("--{} {reason}", argument.replace('_', "-"))
        }
        other => other.to_string(),
    }
}
