// clap prints the documentation of a flag as it stands.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use sft_core::Result;
use sft_core::net::make_certificates;
use sft_examples::console::say;

/// The flags of `sft certs`.
#[derive(Clone, Debug, Args)]
struct Flags {
    /// Folder for the authority, and in it one for the server and one for each device.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Devices, device-0 to device-(N - 1) [N].
    #[arg(long)]
    devices: usize,
    /// Names and addresses that devices reach the server by, comma-separated, beside localhost,
    /// 127.0.0.1 and ::1.
    #[arg(long, value_delimiter = ',', value_name = "HOSTS")]
    host: Vec<String>,
    /// Days that the certificates hold.
    #[arg(long, default_value_t = 90)]
    days: u32,
}

pub(crate) fn command() -> Command {
    Flags::augment_args(Command::new("certs")).about(
        "Make an authority, a certificate for the server and one for each device, for trying",
    )
}

pub(crate) fn run(matches: &ArgMatches) -> Result<()> {
    let flags = Flags::from_arg_matches(matches).unwrap_or_else(|error| error.exit());
    make_certificates(&flags.out, flags.devices, &flags.host, flags.days)?;
    let (out, last) = (flags.out.display(), flags.devices.saturating_sub(1));
    say(format_args!(
        "{out}/server is for the server, {out}/device-0 to {out}/device-{last} are for the devices"
    ))?;
    say(format_args!(
        "{out}/ca-key.pem makes more of them: keep it where neither needs it"
    ))
}
