//! Split LoRA fine-tuning of a vision transformer over many devices, scheme beside scheme.

use std::path::Path;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use sft_core::{
    Data, Error, Images, Job, Pretrained, Result, Scheme, Vit, Wireless, finetune, save_adapters,
};
use sft_examples::flags::{Flags, message};
use sft_examples::input;
use sft_examples::report::{Run, SchemeRun, table, title, write};

fn main() {
    let flags = Flags::parse();
    if let Err(error) = run(&flags) {
        eprintln!("error: {}", message(&error));
        std::process::exit(1);
    }
}

fn run(flags: &Flags) -> Result<()> {
    let bench = Bench::load(flags)?;
    prepare(&flags.out)?;
    let mut schemes = Vec::with_capacity(flags.scheme.len());
    for &scheme in &flags.scheme {
        schemes.push(bench.run(flags, scheme)?);
    }
    let settings = serde_json::to_value(flags).map_err(|e| Error::file(&flags.out, e))?;
    let (runs, adapters): (Vec<_>, Vec<_>) = schemes.into_iter().unzip();
    for (run, adapters) in runs.iter().zip(&adapters) {
        let path = flags.out.join(format!("adapters-{}.safetensors", run.name));
        let lora = flags.settings(Scheme::Sft)?.lora;
        save_adapters(&path, &bench.vit, lora, adapters)?;
    }
    let run = Run {
        settings,
        schemes: runs,
    };
    write(&flags.out, &run)?;
    println!("{}", table(&run, flags.target_accuracy));
    println!(
        "run.json, adapters and pictures are in {}",
        flags.out.display()
    );
    Ok(())
}

/// Makes the folder and sees that files can be written in it.
fn prepare(out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).map_err(|e| Error::file(out, e))?;
    let probe = out.join(format!(".probe.{}", std::process::id()));
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|e| Error::file(out, e))
}

/// Everything that the schemes have in common.
struct Bench {
    pretrained: Pretrained,
    vit: Vit,
    train: Images,
    test: Images,
    partition: Vec<Vec<usize>>,
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

    /// Fine-tunes by one scheme, with a progress bar.
    fn run(&self, flags: &Flags, scheme: Scheme) -> Result<(SchemeRun, sft_core::Adapters)> {
        let settings = flags.settings(scheme)?;
        let classes = self.train.classes();
        let model = self
            .pretrained
            .config
            .transformer(classes, settings.lora.rank());
        let samples: Vec<usize> = self.partition.iter().map(Vec::len).collect();
        let wireless = Wireless::new(model, flags.channel()?, &samples, &settings)?;
        let head = input::head(&self.pretrained, classes, flags.seed);
        let bar = ProgressBar::no_length();
        let job = Job {
            model: &self.vit,
            head: &head,
            train: &self.train,
            partition: &self.partition,
            test: &self.test,
            settings,
            wireless: &wireless,
            on_batch: &|| bar.inc(1),
        };
        bar.set_length((settings.rounds * job.batches_per_round()) as u64);
        bar.set_style(style());
        bar.set_prefix(title(scheme.name()));
        let outcome = finetune(&job, &mut |round| {
            bar.set_message(format!(
                "round {}: {:.1} %",
                round.round,
                100.0 * round.accuracy
            ));
        })?;
        bar.finish_and_clear();
        let device_memory_bytes = wireless.device_memory_bytes(&settings)?;
        let run = SchemeRun {
            name: scheme.name(),
            device_memory_bytes,
            rounds: outcome.rounds,
        };
        Ok((run, outcome.adapters))
    }
}

fn style() -> ProgressStyle {
    let template = "{prefix:32} {wide_bar} {pos}/{len} batches, {eta} left, {msg}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
