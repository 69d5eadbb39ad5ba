//! Split LoRA fine-tuning over a network: `sft certs`, `sft server`, `sft device`.

/// Certificates to try with.
mod certs;
/// A device.
mod device;
/// The server.
mod server;

use std::process::ExitCode;

use clap::Command;
use sft_examples::program;

fn main() -> ExitCode {
    let about = "Split LoRA fine-tuning of transformers between many devices and one edge server";
    let matches = Command::new("sft")
        .about(about)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([certs::command(), server::command(), device::command()])
        .get_matches();
    program::run(|| match matches.subcommand() {
        Some(("certs", flags)) => certs::run(flags),
        Some(("server", flags)) => server::run(flags),
        Some(("device", flags)) => device::run(flags),
        _ => Ok(()),
    })
}
