//! What the programs that fine-tune have in common: an end by Ctrl-C, a bar, a report.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};
use sft_core::run::{
    Generated, Inputs, Progress, RoundRecord, RunConfig, RunFile, Scheme, SchemeRun, Session,
};
use sft_core::{Error, Result};

use crate::console::{ended, say, tell};
use crate::flags::message;
use crate::memory::peak_resident_bytes;
use crate::report::{shown, table, title, write};

/// Set by Ctrl-C: the rounds that are finished are kept.
static STOP: AtomicBool = AtomicBool::new(false);
/// The exit code of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Does what a program is for, and tells how it ended.
pub fn run(program: impl FnOnce() -> Result<()>) -> ExitCode {
    log_to_standard_error();
    let done = stop_on_interrupt().and_then(|()| program());
    if done.is_ok() && STOP.load(Ordering::Relaxed) {
        return ExitCode::from(INTERRUPTED);
    }
    ended(done.map_err(|error| message(&error)))
}

/// Prints what was found in a run's data.
pub fn tell_data(inputs: &Inputs) {
    for (kind, data) in [("training", &inputs.train), ("test", &inputs.test)] {
        if let Some(told) = data.told() {
            tell(format_args!("{kind} data: {told}"));
        }
    }
}

/// Carries a configuration out and reports on it.
///
/// # Errors
/// What a session fails with, or results that cannot be written.
pub fn finetune(config: &RunConfig, inputs: &Inputs) -> Result<()> {
    let session = Session::new(config, inputs)?;
    let schemes = watched(|bar, stop| session.run(bar, stop))?;
    let holds = "all devices and the server";
    report(session.config(), session.contents()?, schemes, holds)
}

/// Serves a run to devices that are other processes, and reports on it.
///
/// # Errors
/// What the server of a run fails with, or results that cannot be written.
pub fn serve(
    config: &RunConfig,
    inputs: &Inputs,
    serve: impl FnOnce(&dyn Progress, &AtomicBool) -> Result<Vec<SchemeRun>>,
) -> Result<()> {
    let schemes = watched(serve)?;
    let session = Session::new(config, inputs)?;
    report(session.config(), session.contents()?, schemes, "the server")
}

/// Whether Ctrl-C was typed, for what ends by it.
pub fn stopped() -> &'static AtomicBool {
    &STOP
}

/// Does something under a bar.
fn watched<T>(work: impl FnOnce(&dyn Progress, &AtomicBool) -> Result<T>) -> Result<T> {
    let bar = Bar(ProgressBar::no_length());
    let done = work(&bar, &STOP);
    bar.0.finish_and_clear();
    done
}

/// Events of the library at the levels that the environment variable `RUST_LOG` names.
fn log_to_standard_error() {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        // Where that cannot be written, there is no place to say so.
        .log_internal_errors(false)
        .init();
}

/// The first Ctrl-C ends training, the second the program.
fn stop_on_interrupt() -> Result<()> {
    let handler = || {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
    };
    ctrlc::set_handler(handler).map_err(|e| Error::file("the handler of Ctrl-C", e))
}

/// Writes `run.json` and the pictures, and prints the table.
fn report(
    config: &RunConfig,
    contents: &Map<String, Value>,
    mut schemes: Vec<SchemeRun>,
    holds: &str,
) -> Result<()> {
    schemes.retain(|run| !run.rounds.is_empty());
    let out = config.folder().unwrap_or(".".as_ref());
    let run = RunFile {
        settings: config.deciding(),
        contents: contents.clone(),
        peak_resident_bytes: peak_resident_bytes(),
        schemes,
    };
    if !run.schemes.is_empty() {
        write(out, &run)?;
        let table = table(&run, config.target_accuracy, holds);
        say(format_args!("{table}"))?;
        run.schemes.iter().try_for_each(say_generated)?;
        say(format_args!(
            "run.json, adapters and pictures are in {}",
            out.display()
        ))?;
    }
    if STOP.load(Ordering::Relaxed) {
        let kept = |run: &SchemeRun| format!("{} of {}", run.rounds.len(), run.scheme.name());
        let kept: Vec<_> = run.schemes.iter().map(kept).collect();
        match kept.join(", ").as_str() {
            "" => tell(format_args!(
                "interrupted before the end of a round: nothing to keep"
            )),
            kept => {
                let out = out.display();
                tell(format_args!(
                    "interrupted; finished rounds kept: {kept}; go on with --resume {out}"
                ));
            }
        }
    }
    Ok(())
}

/// Prints how a tuned model goes on from some test prompts.
fn say_generated(run: &SchemeRun) -> Result<()> {
    for Generated {
        prompt,
        said,
        expected,
    } in &run.generated
    {
        let scheme = title(run.scheme);
        say(format_args!("\n{scheme}, after: {prompt}"))?;
        say(format_args!("  says: {said}\n  text: {expected}"))?;
    }
    Ok(())
}

/// A bar that starts anew with each scheme.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn scheme(&self, scheme: Scheme, batches: usize) {
        let template = "{prefix:32} {wide_bar} {pos}/{len} batches, {eta} left, {msg}";
        let style = ProgressStyle::with_template(template);
        self.0.reset();
        self.0
            .set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.0.set_length(batches as u64);
        self.0.set_prefix(title(scheme));
        self.0.set_message("");
    }

    fn batch(&self) {
        self.0.inc(1);
    }

    fn round(&self, record: &RoundRecord) {
        let message = format!("round {}: {}", record.round, shown(record));
        self.0.set_message(message);
    }
}
