//! Split LoRA fine-tuning of a vision transformer over many devices, scheme beside scheme.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use sft_core::adapter::{Adapters, Head, load_peft, save_peft};
use sft_core::data::Data;
use sft_core::model::{Model, Pretrained, save_merged};
use sft_core::run::{
    Job, Outcome, Scheme, Settings, Wireless, finetune, load_checkpoint, save_checkpoint,
};
use sft_core::{Error, Result};
use sft_examples::auto;
use sft_examples::flags::{Flags, message};
use sft_examples::input;
use sft_examples::memory::peak_resident_bytes;
use sft_examples::one_thread_per_product;
use sft_examples::report::{Run, SchemeRun, table, title, write};

/// Set by Ctrl-C: the rounds that are finished are kept.
static STOP: AtomicBool = AtomicBool::new(false);
/// The exit code of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

fn main() {
    let mut flags = Flags::parse();
    one_thread_per_product();
    log_to_standard_error();
    if let Err(error) = stop_on_interrupt().and_then(|()| run(&mut flags)) {
        eprintln!("error: {}", message(&error));
        std::process::exit(1);
    }
    if STOP.load(Ordering::Relaxed) {
        std::process::exit(INTERRUPTED);
    }
}

/// Events of the library at the levels that the environment variable `RUST_LOG` names.
fn log_to_standard_error() {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
}

/// The first Ctrl-C ends training, the second the program.
fn stop_on_interrupt() -> Result<()> {
    let handler = || {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED);
        }
    };
    ctrlc::set_handler(handler).map_err(|e| Error::file("the handler of Ctrl-C", e))
}

fn run(flags: &mut Flags) -> Result<()> {
    let bench = Bench::load(flags)?;
    if flags.auto {
        bench.choose(flags)?;
    }
    let flags = &*flags;
    let setups = flags
        .scheme
        .iter()
        .map(|&scheme| bench.setup(flags, scheme));
    let setups = setups.collect::<Result<Vec<_>>>()?;
    flags.checkpoint_is_due(0)?;
    let starts = setups.iter().map(|setup| bench.start(flags, setup));
    let starts = starts.collect::<Result<Vec<_>>>()?;
    let made = make_folder(flags.out())?;
    let done = bench.run_all(flags, setups.iter().zip(starts));
    if done.is_err() {
        // Only folders that this run made and left empty go.
        for folder in &made {
            let _ = std::fs::remove_dir(folder);
        }
    }
    done
}

/// Makes the folder, sees that files can be written in it, and names those that were new.
fn make_folder(out: &Path) -> Result<Vec<PathBuf>> {
    let new = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let made = out
        .ancestors()
        .take_while(new)
        .map(Path::to_path_buf)
        .collect();
    std::fs::create_dir_all(out).map_err(|e| Error::file(out, e))?;
    let probe = out.join(format!(".probe.{}", std::process::id()));
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|e| Error::file(out, e))?;
    Ok(made)
}

/// Everything that the schemes have in common.
struct Bench {
    pretrained: Pretrained,
    model: Box<dyn Model>,
    train: Box<dyn Data>,
    test: Box<dyn Data>,
    partition: Vec<Vec<usize>>,
    device_cuts: Option<Vec<usize>>,
}

/// What one scheme is asked to do.
struct Setup {
    settings: Settings,
    wireless: Wireless,
    head: Head,
}

impl Bench {
    fn load(flags: &Flags) -> Result<Self> {
        let pretrained = input::model(flags.model.as_deref(), flags.heads)?;
        let (train, test) = input::data(&flags.data, &pretrained, flags.augment)?;
        let model = input::on_backend(&pretrained, flags.backend, flags.gradient_checkpointing)?;
        let partition = flags
            .partition
            .split(train.as_ref(), flags.devices, flags.seed)?;
        Ok(Self {
            pretrained,
            model,
            train,
            test,
            partition,
            device_cuts: flags.device_cuts.clone(),
        })
    }

    /// Sets cut, kept fraction and levels by the cost model, and prints why.
    fn choose(&self, flags: &mut Flags) -> Result<()> {
        flags.cut = 1;
        let setup = self.setup(flags, Scheme::Sft)?;
        let task = auto::Task {
            model: self.model.as_ref(),
            head: &setup.head,
            train: self.train.as_ref(),
            wireless: &setup.wireless,
        };
        let choice = auto::choose(flags, task)?;
        println!("{choice}\n");
        (flags.cut, flags.activation) = (choice.best.value.cut, choice.activation);
        Ok(())
    }

    /// What one scheme is asked to do, checked.
    fn setup(&self, flags: &Flags, scheme: Scheme) -> Result<Setup> {
        let settings = flags.settings(scheme, self.model.spec())?;
        let classes = self.train.classes();
        let model = self
            .pretrained
            .config
            .transformer(classes, settings.lora.rank());
        let samples: Vec<usize> = self.partition.iter().map(Vec::len).collect();
        let wireless = Wireless::new(model, flags.channel()?, &samples, &settings)?;
        let head = input::head(&self.pretrained, classes, flags.seed);
        let setup = Setup {
            settings,
            wireless,
            head,
        };
        self.job(&setup, &|| ()).validate()?;
        Ok(setup)
    }

    /// The run before its first round, or where a checkpoint left it.
    fn start(&self, flags: &Flags, setup: &Setup) -> Result<Outcome> {
        let job = self.job(setup, &|| ());
        let scheme = setup.settings.scheme;
        if let Some(folder) = &flags.resume {
            let path = checkpoint(folder, scheme);
            if path.exists() {
                return load_checkpoint(&path, &flags.configuration(), &self.partition);
            }
            if !Scheme::ALL
                .iter()
                .any(|&any| checkpoint(folder, any).exists())
            {
                return Err(Error::file(
                    folder,
                    "no checkpoint-*.safetensors to go on from",
                ));
            }
        }
        let start = job.start()?;
        match &flags.adapters {
            Some(folder) if scheme != Scheme::FlFull => self
                .adapters(folder, &job)
                .map(|adapters| Outcome { adapters, ..start }),
            _ => Ok(start),
        }
    }

    /// The adapters of a PEFT folder, if they are what the flags ask for.
    fn adapters(&self, folder: &Path, job: &Job<'_>) -> Result<Adapters> {
        let spec = self.model.spec();
        let (found, adapters) = load_peft(folder, spec, Some(job.head))?;
        let wanted = job.settings.lora;
        let pairs = [
            ("rank", found.rank().to_string(), wanted.rank().to_string()),
            (
                "alpha",
                found.alpha().to_string(),
                wanted.alpha().to_string(),
            ),
            (
                "targets",
                found.targets().modules(spec).to_string(),
                wanted.targets().modules(spec).to_string(),
            ),
        ];
        for (name, found, wanted) in pairs {
            if found != wanted {
                let reason = format!("the adapters have {name} {found}, --{name} is {wanted}");
                return Err(Error::file(folder, reason));
            }
        }
        Ok(adapters)
    }

    fn job<'a>(&'a self, setup: &'a Setup, on_batch: &'a (dyn Fn() + Sync)) -> Job<'a> {
        Job {
            model: self.model.as_ref(),
            base: Some(&self.pretrained),
            head: &setup.head,
            train: self.train.as_ref(),
            partition: &self.partition,
            device_cuts: self.device_cuts.as_deref(),
            test: self.test.as_ref(),
            settings: setup.settings,
            wireless: &setup.wireless,
            on_batch,
            stop: &STOP,
        }
    }

    /// Runs every scheme, then writes the files and prints the table.
    fn run_all<'a>(
        &self,
        flags: &Flags,
        setups: impl Iterator<Item = (&'a Setup, Outcome)>,
    ) -> Result<()> {
        let mut schemes = Vec::new();
        for (setup, start) in setups {
            let outcome = self.run(flags, setup, start)?;
            if !outcome.rounds.is_empty() {
                schemes.push(self.keep(flags, setup, outcome)?);
            }
            if STOP.load(Ordering::Relaxed) {
                break;
            }
        }
        let settings = serde_json::to_value(flags).map_err(|e| Error::file(flags.out(), e))?;
        let run = Run {
            settings,
            peak_resident_bytes: peak_resident_bytes(),
            schemes,
        };
        if !run.schemes.is_empty() {
            write(flags.out(), &run)?;
            println!("{}", table(&run, flags.target_accuracy));
            let out = flags.out().display();
            println!("run.json, adapters and pictures are in {out}");
        }
        if STOP.load(Ordering::Relaxed) {
            interrupted(flags, &run);
        }
        Ok(())
    }

    /// Writes what a scheme tuned.
    fn keep(&self, flags: &Flags, setup: &Setup, outcome: Outcome) -> Result<SchemeRun> {
        let Setup {
            settings, wireless, ..
        } = setup;
        let (name, lora) = (settings.scheme.name(), settings.lora);
        let (model, adapters) = (self.model.as_ref(), &outcome.adapters);
        let full = settings.scheme == Scheme::FlFull;
        if !full {
            let folder = flags.out().join(format!("adapters-{name}"));
            save_peft(&folder, model.spec(), lora, adapters, flags.module_names())?;
        }
        if full || flags.merged {
            let folder = flags.out().join(format!("merged-{name}"));
            let lora = (!full).then_some(lora);
            save_merged(&folder, &self.pretrained, lora, adapters)?;
        }
        // The device that holds the most.
        let deepest = self.device_cuts.iter().flatten().copied().max();
        let cut = deepest.unwrap_or(settings.cut);
        Ok(SchemeRun {
            name,
            device_memory_bytes: wireless.device_memory_bytes(settings, cut)?,
            rounds: outcome.rounds,
        })
    }

    /// Fine-tunes by one scheme, with a progress bar and checkpoints.
    fn run(&self, flags: &Flags, setup: &Setup, start: Outcome) -> Result<Outcome> {
        let bar = ProgressBar::no_length();
        let on_batch = || bar.inc(1);
        let job = self.job(setup, &on_batch);
        let scheme = setup.settings.scheme;
        bar.set_length(job.batches_after(start.rounds.len()) as u64);
        bar.set_style(style());
        bar.set_prefix(title(scheme.name()));
        let save = |run: &Outcome| {
            let path = checkpoint(flags.out(), scheme);
            save_checkpoint(&path, &flags.configuration(), &self.partition, run)
        };
        let outcome = finetune(&job, start, &mut |run| {
            if let Some(last) = run.rounds.last() {
                let accuracy = 100.0 * last.accuracy;
                bar.set_message(format!("round {}: {accuracy:.1} %", last.round));
            }
            let last = flags.checkpoint_every.is_some() && job.is_finished(run);
            if last || flags.checkpoint_is_due(run.rounds.len())? {
                save(run)?;
            }
            Ok(())
        });
        bar.finish_and_clear();
        let outcome = outcome?;
        if !job.is_finished(&outcome) && !outcome.rounds.is_empty() {
            save(&outcome)?;
        }
        Ok(outcome)
    }
}

fn checkpoint(folder: &Path, scheme: Scheme) -> PathBuf {
    folder.join(format!("checkpoint-{}.safetensors", scheme.name()))
}

fn interrupted(flags: &Flags, run: &Run) {
    let kept = |scheme: &SchemeRun| format!("{} of {}", scheme.rounds.len(), scheme.name);
    let kept: Vec<_> = run.schemes.iter().map(kept).collect();
    if kept.is_empty() {
        eprintln!("interrupted before the end of a round: nothing to keep");
        return;
    }
    let (kept, out) = (kept.join(", "), flags.out().display());
    eprintln!("interrupted; finished rounds kept: {kept}; go on with --resume {out}");
}

fn style() -> ProgressStyle {
    let template = "{prefix:32} {wide_bar} {pos}/{len} batches, {eta} left, {msg}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
