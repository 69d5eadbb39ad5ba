//! Split LoRA fine-tuning of a vision transformer over many devices, scheme beside scheme.

use std::path::{Path, PathBuf};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use sft_core::{
    Data, Error, Head, Images, Job, Outcome, Pretrained, Result, Scheme, Settings, Vit, Wireless,
    finetune, save_adapters,
};
use sft_examples::auto;
use sft_examples::flags::{Flags, message};
use sft_examples::input;
use sft_examples::one_thread_per_product;
use sft_examples::report::{Run, SchemeRun, table, title, write};

fn main() {
    let mut flags = Flags::parse();
    one_thread_per_product();
    if let Err(error) = run(&mut flags) {
        eprintln!("error: {}", message(&error));
        std::process::exit(1);
    }
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
    let made = make_folder(&flags.out)?;
    let done = bench.run_all(flags, &setups);
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
    vit: Vit,
    train: Images,
    test: Images,
    partition: Vec<Vec<usize>>,
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
        let (train, test) = input::data(&flags.data, &pretrained)?;
        let vit = Vit::new(&pretrained.config, &pretrained.weights)?;
        let partition = flags.partition.split(&train, flags.devices, flags.seed)?;
        Ok(Self {
            pretrained,
            vit,
            train,
            test,
            partition,
        })
    }

    /// Sets cut, kept fraction and levels by the cost model, and prints why.
    fn choose(&self, flags: &mut Flags) -> Result<()> {
        flags.cut = 1;
        let setup = self.setup(flags, Scheme::Sft)?;
        let task = auto::Task {
            model: &self.vit,
            head: &setup.head,
            train: &self.train,
            wireless: &setup.wireless,
        };
        let choice = auto::choose(flags, task)?;
        println!("{choice}\n");
        let setting = choice.best.setting;
        (flags.cut, flags.keep) = (choice.best.cut, setting.keep);
        flags.levels = setting.levels() as u32;
        Ok(())
    }

    /// What one scheme is asked to do, checked.
    fn setup(&self, flags: &Flags, scheme: Scheme) -> Result<Setup> {
        let settings = flags.settings(scheme)?;
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

    fn job<'a>(&'a self, setup: &'a Setup, on_batch: &'a (dyn Fn() + Sync)) -> Job<'a> {
        Job {
            model: &self.vit,
            head: &setup.head,
            train: &self.train,
            partition: &self.partition,
            test: &self.test,
            settings: setup.settings,
            wireless: &setup.wireless,
            on_batch,
        }
    }

    /// Runs every scheme, then writes the files and prints the table.
    fn run_all(&self, flags: &Flags, setups: &[Setup]) -> Result<()> {
        let outcomes = setups
            .iter()
            .map(|setup| self.run(setup))
            .collect::<Result<Vec<_>>>()?;
        let mut schemes = Vec::with_capacity(setups.len());
        for (
            Setup {
                settings, wireless, ..
            },
            outcome,
        ) in setups.iter().zip(outcomes)
        {
            let name = settings.scheme.name();
            let path = flags.out.join(format!("adapters-{name}.safetensors"));
            save_adapters(&path, &self.vit, settings.lora, &outcome.adapters)?;
            let device_memory_bytes = wireless.device_memory_bytes(settings)?;
            schemes.push(SchemeRun {
                name,
                device_memory_bytes,
                rounds: outcome.rounds,
            });
        }
        let settings = serde_json::to_value(flags).map_err(|e| Error::file(&flags.out, e))?;
        let run = Run { settings, schemes };
        write(&flags.out, &run)?;
        println!("{}", table(&run, flags.target_accuracy));
        println!(
            "run.json, adapters and pictures are in {}",
            flags.out.display()
        );
        Ok(())
    }

    /// Fine-tunes by one scheme, with a progress bar.
    fn run(&self, setup: &Setup) -> Result<Outcome> {
        let bar = ProgressBar::no_length();
        let on_batch = || bar.inc(1);
        let job = self.job(setup, &on_batch);
        bar.set_length((setup.settings.rounds * job.batches_per_round()) as u64);
        bar.set_style(style());
        bar.set_prefix(title(setup.settings.scheme.name()));
        let outcome = finetune(&job, &mut |round| {
            bar.set_message(format!(
                "round {}: {:.1} %",
                round.round,
                100.0 * round.accuracy
            ));
        });
        bar.finish_and_clear();
        outcome
    }
}

fn style() -> ProgressStyle {
    let template = "{prefix:32} {wide_bar} {pos}/{len} batches, {eta} left, {msg}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
