// clap prints the documentation of a flag as it stands.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use sft_core::net::{
    Board, Identity, LinkLimits, Listener, Pacing, RoundPolicy, StatusPage, serve,
};
use sft_core::run::{Inputs, RunConfig, Scheme};
use sft_core::{Error, Result};
use sft_examples::console::tell;
use sft_examples::{flags, input, program};

/// Where the results go, if nothing is said.
const OUT: &str = "runs/edge";

/// The flags that only the server has.
#[derive(Clone, Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "one for each flag")]
struct Flags {
    /// Address and port that devices come to.
    #[arg(long, default_value = "127.0.0.1:7443")]
    listen: String,
    /// Folder of `sft certs`, or the one for the server in it; without it only devices on this
    /// machine are let in.
    #[arg(long, value_name = "DIR")]
    certs: Option<PathBuf>,
    /// Address of a page that tells how the run stands, of /status.json and of Prometheus' /metrics; whoever
    /// reaches it may read them.
    #[arg(long, value_name = "ADDRESS")]
    status: Option<String>,
    /// Devices that must end a round for it to count; by default half of them.
    #[arg(long)]
    quorum: Option<usize>,
    /// Seconds that the first round waits for all of its devices, before it begins with a quorum; by
    /// default it waits for all.
    #[arg(long)]
    wait_s: Option<f64>,
    /// Average what a device that is late did before --deadline-s, by the samples that it has seen.
    #[arg(long)]
    keep_partial: bool,
    /// Hold every link to its rate by the modelled channel, at the share of the band that P2 gives each
    /// device for what it moved in its last round.
    #[arg(long, group = "pacing")]
    shape: bool,
    /// Measure every link, and hold each to the share that P2 gives it of what all carried together, where
    /// that promises less time than free links take.
    #[arg(long, group = "pacing")]
    control: bool,
    /// With --shape or --control: the same share for each device.
    #[arg(long, requires = "pacing")]
    even: bool,
}

pub(crate) fn command() -> Command {
    let own = Flags::augment_args(Command::new("server"));
    let command = flags::with_run(own, OUT).mut_arg("scheme", |arg| {
        arg.help("The scheme: sft, sft-raw or sl [default: sft]")
    });
    command.about(
        "Serve a run to devices that are other processes; its settings are the flags, or a file by \
         --config",
    )
}

pub(crate) fn run(matches: &ArgMatches) -> Result<()> {
    let own = Flags::from_arg_matches(matches).unwrap_or_else(|error| error.exit());
    let defaults = RunConfig {
        scheme: vec![Scheme::Sft],
        ..RunConfig::default()
    };
    let config = flags::run_over(matches, OUT, &defaults)?;
    let wait = own.wait_s.map(seconds).transpose()?;
    let policy = RoundPolicy {
        quorum: own.quorum.unwrap_or(config.devices.div_ceil(2)),
        wait,
        keep_partial: own.keep_partial,
        pacing: match (own.control, own.shape) {
            (true, _) => Pacing::Measured,
            (false, true) => Pacing::Modelled,
            (false, false) => Pacing::Off,
        },
        even: own.even,
    };
    let identity = own.certs.as_deref().map(Identity::open_server);
    let identity = identity.transpose()?;
    let inputs = open(&config)?;
    program::tell_data(&inputs);
    let listener = Listener::bind(&own.listen, identity.as_ref(), LinkLimits::default())?;
    let count = config.devices;
    tell(format_args!(
        "listening on {} for {count} devices",
        listener.address()
    ));
    let board = Arc::new(Board::new(&config));
    let page = own
        .status
        .map(|address| StatusPage::bind(&address, board.clone()));
    let page = page.transpose()?;
    if let Some(page) = &page {
        tell(format_args!("status at http://{}", page.address()));
    }
    program::serve(&config, &inputs, |progress, stop| {
        serve(&config, &inputs, &listener, policy, &board, progress, stop)
    })
}

fn seconds(s: f64) -> Result<Duration> {
    let reason = || format!("must be at least 0, got {s}");
    Duration::try_from_secs_f64(s).map_err(|_| Error::argument("wait_s", reason()))
}

/// Model and data of any kind, the embedded digits where none is named.
fn open(config: &RunConfig) -> Result<Inputs> {
    match config.data.as_deref() {
        Some(data) if data.starts_with("digits") => input::open(config),
        _ => Inputs::open(config),
    }
}
