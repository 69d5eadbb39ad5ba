// clap prints the documentation of a flag as it stands.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use sft_core::Result;
use sft_core::data::Data;
use sft_core::model::Pretrained;
use sft_core::net::{JoinOptions, join};
use sft_core::run::{RunConfig, open_data};
use sft_examples::console::tell;
use sft_examples::memory::peak_resident_bytes;
use sft_examples::{input, program};

/// The flags of `sft device`.
#[derive(Clone, Debug, Args)]
struct Flags {
    /// The server, as host:port.
    #[arg(long, default_value = "127.0.0.1:7443")]
    server: String,
    /// Folder with this device's certificate, one of those that `sft certs` made; without it the
    /// server must be on this machine.
    #[arg(long, value_name = "DIR")]
    certs: Option<PathBuf>,
    /// Data set that this device's share is taken from: digits, cifar100:DIR, tiny-imagenet:DIR,
    /// folder:DIR, classify:FILE, text:PATH or chat:FILE.
    #[arg(long, default_value = "digits")]
    data: String,
    /// The whole model, where it is here: its first blocks are then not sent.
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Folder that keeps what was sent of models.
    #[arg(long, value_name = "DIR", default_value = "runs/device")]
    cache: PathBuf,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Seconds that a server is looked for which is not found.
    #[arg(long, default_value_t = 600)]
    patience_s: u64,
}

pub(crate) fn command() -> Command {
    Flags::augment_args(Command::new("device"))
        .about("Take part in a run as one of its devices; the server tells everything else")
}

pub(crate) fn run(matches: &ArgMatches) -> Result<()> {
    let flags = Flags::from_arg_matches(matches).unwrap_or_else(|error| error.exit());
    let options = JoinOptions {
        server: flags.server,
        certs: flags.certs,
        data: Some(flags.data),
        model: flags.model,
        cache: flags.cache,
        threads: flags.threads,
        patience: Duration::from_secs(flags.patience_s),
    };
    join(&options, &open, &|news| tell(news), program::stopped())?;
    if let Some(peak) = peak_resident_bytes() {
        tell(format_args!(
            "the run is over; peak memory of this process {:.1} MB",
            peak as f64 / 1e6
        ));
    }
    Ok(())
}

fn open(config: &RunConfig, model: &dyn Pretrained) -> Result<Box<dyn Data + Send>> {
    let (train, _) = match config.data.as_deref() {
        Some(data) if data.starts_with("digits") => input::data(config, model)?,
        _ => open_data(config, model)?,
    };
    Ok(train)
}
