//! Accuracy over kept fraction and bits of the activation, measured by training:
//! `cargo run --release --example accuracy_sweep -- --out DIR`.
//!
//! SFT runs once for every kept fraction, number of bits and seed, and once per seed without
//! compression. The mean accuracies and the cubic fitted to them (section IV-C of the paper) go
//! to `surface.json`, every run to `accuracy_sweep.csv`, the paper's Fig. 7 to
//! `accuracy_over_keep.svg` and its Fig. 3 to `accuracy_surface.svg`. `vit_finetune --auto`
//! reads `surface.json`.
// clap prints the documentation of a flag as it stands.
#![allow(clippy::doc_markdown)]

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::{Arg, Command, CommandFactory, FromArgMatches, Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use sft_core::run::{Inputs, RunConfig, Scheme, Session};
use sft_core::write_whole;
use sft_core::{Error, Result};
use sft_examples::console::{ended, say};
use sft_examples::flags::{self, LevelsFlag, message};
use sft_examples::surface::Surface;
use sft_examples::{input, surface_plot};
use sft_opt::Accuracy;
use sft_opt::plan::{AccuracyPoint, Axis, KeepScale};

/// Fields of a run that the sweep sets itself or has no use for.
const SWEPT: [&str; 9] = [
    "scheme",
    "activation",
    "seed",
    "target_accuracy",
    "adapters",
    "merged",
    "peft_names",
    "checkpoint_every",
    "resume",
];
/// Where the results go, if nothing is said.
const OUT: &str = "runs/accuracy_sweep";

/// Accuracy of split fine-tuning over a grid of kept fractions and bits, and the cubic through it.
///
/// The activation's codec is swept, the gradient's stays as its flag says. All other flags are
/// those of vit_finetune.
#[derive(Parser)]
#[command(name = "accuracy_sweep", version)]
struct Sweep {
    /// Kept fractions of the activation, comma-separated, at least four [ρ].
    #[arg(long, value_delimiter = ',', default_value = "0.1,0.2,0.4,0.7,1")]
    keeps: Vec<f64>,
    /// Bits of a level, 1 to 8, comma-separated, at least four; 2^bits levels.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3,4,6,8",
          value_parser = clap::value_parser!(u32).range(1..=8))]
    bits: Vec<u32>,
    /// The kind of the activation's codec.
    #[arg(long, value_enum, default_value_t = LevelsFlag::Gradient)]
    codec: LevelsFlag,
    /// Seeds, comma-separated; accuracies are means over them.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    seeds: Vec<u64>,
    /// What the cubic is a polynomial of, beside the bits.
    #[arg(long, value_enum, default_value_t = ScaleFlag::Log2Keep)]
    scale: ScaleFlag,
}

/// Values of `--scale`.
#[derive(Clone, Copy, ValueEnum)]
enum ScaleFlag {
    /// The logarithm of the kept fraction.
    Log2Keep,
    /// The kept fraction.
    Keep,
}

impl ScaleFlag {
    fn scale(self) -> KeepScale {
        match self {
            Self::Log2Keep => KeepScale::Log2Keep,
            Self::Keep => KeepScale::Keep,
        }
    }
}

fn main() -> ExitCode {
    let matches = command().get_matches();
    let sweep = Sweep::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let done = flags::run(&matches, OUT).and_then(|config| {
        refuse_swept(&config)?;
        run(&sweep, &config)
    });
    ended(done.map_err(|error| message(&error)))
}

fn command() -> Command {
    let swept = |arg: &Arg| SWEPT.contains(&arg.get_id().as_str());
    flags::with_run(Sweep::command(), OUT).mut_args(|arg| {
        let hidden = swept(&arg);
        arg.hide(hidden)
    })
}

/// A field that would be ignored is a mistake.
fn refuse_swept(config: &RunConfig) -> Result<()> {
    let value = |config: &RunConfig| serde_json::to_value(config).unwrap_or_default();
    let (ours, defaults) = (value(config), value(&RunConfig::default()));
    match SWEPT.iter().find(|&&name| ours[name] != defaults[name]) {
        None => Ok(()),
        Some(name) => Err(Error::argument(
            name,
            "has no place in a sweep: it has --codec, --keeps, --bits and --seeds",
        )),
    }
}

/// Accuracy of one setting for every seed.
struct Measured {
    keep: f64,
    bits: u32,
    accuracies: Vec<f64>,
}

fn run(sweep: &Sweep, config: &RunConfig) -> Result<()> {
    // A grid that does not determine the cubic is refused before hours of training.
    let planned: Vec<_> = grid(sweep)
        .map(|(keep, bits)| point(keep, bits, 0.0))
        .collect();
    Accuracy::fit(sweep.scale.scale(), &planned)?;
    if sweep.seeds.is_empty() {
        return Err(Error::argument("seeds", "must name at least one seed"));
    }
    let task = Task {
        inputs: input::open(config)?,
        config,
    };
    let bar = progress((planned.len() + 1) * sweep.seeds.len());
    let raw = task.accuracies(sweep, Scheme::SftRaw, None, &bar)?;
    // The flags are right; see that the results can be written before the long part.
    let out = task.out();
    std::fs::create_dir_all(out).map_err(|e| Error::file(out, e))?;
    let measured = grid(sweep)
        .map(|(keep, bits)| {
            let accuracies = task.accuracies(sweep, Scheme::Sft, Some((keep, bits)), &bar)?;
            Ok(Measured {
                keep,
                bits,
                accuracies,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    bar.finish_and_clear();
    let surface = surface(sweep, config, &raw, &measured)?;
    write_files(sweep, out, &raw, &measured, &surface)?;
    print_summary(&surface)?;
    say(format_args!(
        "surface.json, the runs and the pictures are in {}",
        out.display()
    ))?;
    Ok(())
}

fn grid(sweep: &Sweep) -> impl Iterator<Item = (f64, u32)> {
    (sweep.keeps.iter()).flat_map(|&keep| sweep.bits.iter().map(move |&bits| (keep, bits)))
}

fn point(keep: f64, bits: u32, accuracy: f64) -> AccuracyPoint {
    AccuracyPoint {
        keep,
        bits: bits.into(),
        accuracy,
    }
}

fn progress(runs: usize) -> ProgressBar {
    let template = "{wide_bar} {pos}/{len} runs, {eta} left, {msg}";
    ProgressBar::new(runs as u64).with_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}

/// What all runs share.
struct Task<'a> {
    inputs: Inputs,
    config: &'a RunConfig,
}

impl Task<'_> {
    /// The folder of the results.
    fn out(&self) -> &Path {
        self.config.folder().unwrap_or(OUT.as_ref())
    }

    /// Test accuracies of one setting, seed by seed.
    fn accuracies(
        &self,
        sweep: &Sweep,
        scheme: Scheme,
        codec: Option<(f64, u32)>,
        bar: &ProgressBar,
    ) -> Result<Vec<f64>> {
        // One run of many keeps no files.
        let mut config = RunConfig {
            scheme: vec![scheme],
            out: None,
            ..self.config.clone()
        };
        if let Some((keep, bits)) = codec {
            config.activation = sweep.codec.codec(keep, 1 << bits)?.into();
        }
        let one = |&seed: &u64| {
            config.seed = seed;
            let session = Session::new(&config, &self.inputs)?;
            let runs = session.run(&(), &AtomicBool::new(false))?;
            let rounds = runs.iter().flat_map(|run| &run.rounds);
            let accuracy = rounds.last().map_or(0.0, |round| round.accuracy);
            bar.set_message(format!("{:.1} %", 100.0 * accuracy));
            bar.inc(1);
            Ok(accuracy)
        };
        sweep.seeds.iter().map(one).collect()
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn surface(
    sweep: &Sweep,
    config: &RunConfig,
    raw: &[f64],
    measured: &[Measured],
) -> Result<Surface> {
    let points: Vec<_> = (measured.iter())
        .map(|m| point(m.keep, m.bits, mean(&m.accuracies)))
        .collect();
    let mut settings = config.deciding();
    settings.retain(|name, _| !SWEPT.contains(&name.as_str()));
    settings.insert("seeds".into(), sweep.seeds.clone().into());
    Ok(Surface {
        settings: settings.into(),
        codec: sweep.codec,
        raw_accuracy: mean(raw),
        fit: Accuracy::fit(sweep.scale.scale(), &points)?,
        points,
    })
}

fn write_files(
    sweep: &Sweep,
    out: &Path,
    raw: &[f64],
    measured: &[Measured],
    surface: &Surface,
) -> Result<()> {
    let file = |name: &str, text: String| write_whole(&out.join(name), text.as_bytes());
    let json = serde_json::to_string_pretty(surface).map_err(|e| Error::file(out, e))?;
    file("surface.json", json + "\n")?;
    file("accuracy_sweep.csv", csv(sweep, raw, measured))?;
    let fig7 = surface_plot::over_keep(surface).map_err(|e| Error::file(out, e))?;
    file("accuracy_over_keep.svg", fig7)?;
    let fig3 = surface_plot::map(surface).map_err(|e| Error::file(out, e))?;
    file("accuracy_surface.svg", fig3)
}

/// One row per setting; the first, without kept fraction and bits, is not compressed.
fn csv(sweep: &Sweep, raw: &[f64], measured: &[Measured]) -> String {
    let mut text = "keep,bits".to_string();
    for seed in &sweep.seeds {
        let _ = write!(text, ",accuracy_seed_{seed}");
    }
    let mut row = |start: String, accuracies: &[f64]| {
        text += "\n";
        text += &start;
        for accuracy in accuracies {
            let _ = write!(text, ",{accuracy:.4}");
        }
    };
    row(",".into(), raw);
    for m in measured {
        row(format!("{},{}", m.keep, m.bits), &m.accuracies);
    }
    text + "\n"
}

fn print_summary(surface: &Surface) -> Result<()> {
    let fit = &surface.fit;
    say(format_args!(
        "accuracy without compression: {:.1} %",
        100.0 * surface.raw_accuracy
    ))?;
    say(format_args!(
        "cubic: root mean square error {:.2} points, largest {:.2}",
        100.0 * fit.rmse,
        100.0 * fit.max_error
    ))?;
    for warning in &fit.warnings {
        let more = match warning.axis {
            Axis::Keep => "a larger kept fraction",
            Axis::Bits => "a bit more",
        };
        say(format_args!(
            "warning: {more} lowers the fitted accuracy by {:.2} points at keep {:.3}, {:.1} bits",
            -100.0 * warning.change,
            warning.keep,
            warning.bits
        ))?;
    }
    Ok(())
}
