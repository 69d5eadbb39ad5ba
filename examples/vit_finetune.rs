//! Split LoRA fine-tuning of a vision transformer over many devices, scheme beside scheme.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};
use sft_core::run::{
    Inputs, Progress, RoundRecord, RunConfig, RunFile, Scheme, SchemeRun, Session,
};
use sft_core::{Error, Result};
use sft_examples::auto;
use sft_examples::console::{ended, say, tell};
use sft_examples::flags::{Auto, Flags, message};
use sft_examples::input;
use sft_examples::memory::peak_resident_bytes;
use sft_examples::report::{table, title, write};

/// Set by Ctrl-C: the rounds that are finished are kept.
static STOP: AtomicBool = AtomicBool::new(false);
/// The exit code of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    log_to_standard_error();
    let done = Flags::parse().and_then(|flags| {
        stop_on_interrupt()?;
        run(flags)
    });
    if done.is_ok() && STOP.load(Ordering::Relaxed) {
        return ExitCode::from(INTERRUPTED);
    }
    ended(done.map_err(|error| message(&error)))
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

fn run(flags: Flags) -> Result<()> {
    let Flags { mut config, auto } = flags;
    let inputs = input::open(&config)?;
    for (kind, data) in [("training", &inputs.train), ("test", &inputs.test)] {
        if let Some(found) = data.found() {
            tell(format_args!("{kind} data: {found}"));
        }
    }
    if auto.auto {
        choose(&mut config, &auto, &inputs)?;
    }
    let bar = Bar(ProgressBar::no_length());
    let session = Session::new(&config, &inputs)?;
    let schemes = session.run(&bar, &STOP);
    bar.0.finish_and_clear();
    let schemes = schemes?;
    report(&config, session.contents()?, schemes)
}

/// Sets cut and the activation's codec by the cost model, and prints why.
fn choose(config: &mut RunConfig, auto: &Auto, inputs: &Inputs) -> Result<()> {
    config.cut = 1;
    let setup = Session::new(config, inputs)?.setup(Scheme::Sft)?;
    let task = auto::Task {
        model: inputs.model.as_ref(),
        head: &setup.head,
        train: inputs.train.as_ref(),
        wireless: &setup.wireless,
    };
    let choice = auto::choose(auto, config, task)?;
    say(format_args!("{choice}\n"))?;
    (config.cut, config.activation) = (choice.best.value.cut, choice.activation);
    Ok(())
}

/// Writes `run.json` and the pictures, and prints the table.
fn report(
    config: &RunConfig,
    contents: &Map<String, Value>,
    mut schemes: Vec<SchemeRun>,
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
        say(format_args!("{}", table(&run, config.target_accuracy)))?;
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
        let accuracy = 100.0 * record.accuracy;
        let message = format!("round {}: {accuracy:.1} %", record.round);
        self.0.set_message(message);
    }
}
