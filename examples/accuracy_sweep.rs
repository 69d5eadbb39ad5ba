//! Accuracy over the setting of the activation's codec, measured by training:
//! `cargo run --release --example accuracy_sweep -- --out DIR`.
//!
//! SFT runs once for every setting and seed, and once per seed without compression. A codec with
//! one knob is swept over its step, Top-K over kept fraction and bits. The mean accuracies and what
//! is fitted to them (a curve that does not rise with the step, or the cubic of section IV-C of the
//! paper) go to `surface.json`, every run to `accuracy_sweep.csv`, pictures to
//! `accuracy_over_step.svg`, or the paper's Fig. 7 to `accuracy_over_keep.svg` and its Fig. 3 to
//! `accuracy_surface.svg`. `vit_finetune --auto` reads `surface.json`.
// clap prints the documentation of a flag as it stands.
#![allow(clippy::doc_markdown)]

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches, Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use sft_core::run::{DeviceAdaptersKind, Inputs, RunConfig, Scheme, Session};
use sft_core::split::CutCodec;
use sft_core::write_whole;
use sft_core::{Error, Result};
use sft_examples::console::{ended, say};
use sft_examples::flags::{self, LevelsFlag, check_step_kind, message};
use sft_examples::surface::Surface;
use sft_examples::sweep::{Grid, Runs, csv};
use sft_examples::{input, surface_plot};
use sft_opt::plan::{Axis, KeepScale};

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

/// Steps of the default codec, if nothing is said.
const STEPS: [f64; 6] = [0.2, 0.3, 0.5, 0.8, 1.2, 2.0];
/// Kept fractions and bits of Top-K, if nothing is said.
const KEEPS: [f64; 5] = [0.1, 0.2, 0.4, 0.7, 1.0];
const BITS: [u32; 6] = [1, 2, 3, 4, 6, 8];

/// Accuracy of split fine-tuning over the settings of a codec, and the curve or the cubic through it.
///
/// The activation's codec is swept, the gradient's stays as its flag says. All other flags are
/// those of vit_finetune.
#[derive(Parser)]
#[command(name = "accuracy_sweep", version)]
struct Sweep {
    /// The kind of the activation's codec: transform, dead-zone, unbiased or error, which have one
    /// step, or paper, activation or gradient, which have a kept fraction and bits.
    #[arg(long, default_value = "transform")]
    codec: String,
    /// Steps (or wanted errors) of the activation's codec, ascending, comma-separated, at least two
    /// [default for transform: 0.2,0.3,0.5,0.8,1.2,2].
    #[arg(long, value_delimiter = ',', action = ArgAction::Set)]
    steps: Option<Vec<f64>>,
    /// Kept fractions of the activation, comma-separated, at least four [ρ]
    /// [default: 0.1,0.2,0.4,0.7,1].
    #[arg(long, value_delimiter = ',', action = ArgAction::Set)]
    keeps: Option<Vec<f64>>,
    /// Bits of a level, 1 to 8, comma-separated, at least four; 2^bits levels
    /// [default: 1,2,3,4,6,8].
    #[arg(long, value_delimiter = ',', action = ArgAction::Set, value_parser = clap::value_parser!(u32).range(1..=8))]
    bits: Option<Vec<u32>>,
    /// Seeds, comma-separated; accuracies are means over them.
    #[arg(long, value_delimiter = ',', action = ArgAction::Set, default_value = "1")]
    seeds: Vec<u64>,
    /// What the cubic is a polynomial of, beside the bits [default: log2-keep].
    #[arg(long, value_enum)]
    scale: Option<ScaleFlag>,
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

impl Sweep {
    /// The settings to run, checked: a grid that determines no fit is refused before hours of
    /// training.
    fn grid(&self) -> Result<Grid> {
        if let Ok(codec) = LevelsFlag::from_str(&self.codec, false) {
            refuse(&self.codec, [("steps", self.steps.is_some())])?;
            let (keeps, bits) = (self.keeps.as_deref(), self.bits.as_deref());
            let scale = self.scale.map(ScaleFlag::scale).unwrap_or_default();
            return Grid::levels(codec, keeps.unwrap_or(&KEEPS), bits.unwrap_or(&BITS), scale);
        }
        check_step_kind(&self.codec)?;
        let levels = [
            ("keeps", self.keeps.is_some()),
            ("bits", self.bits.is_some()),
            ("scale", self.scale.is_some()),
        ];
        refuse(&self.codec, levels)?;
        let default = (self.codec == "transform").then_some(&STEPS[..]);
        match self.steps.as_deref().or(default) {
            Some(steps) => Grid::steps(&self.codec, steps),
            None => Grid::steps(&self.codec, &[]),
        }
    }
}

/// A flag of another kind of codec would be ignored.
fn refuse<const N: usize>(codec: &str, given: [(&'static str, bool); N]) -> Result<()> {
    match given.into_iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((name, _)) => {
            let reason = format!("has no place with --codec {codec}");
            Err(Error::argument(name, reason))
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

/// A field that would be ignored is a mistake, and so is one that leaves nothing to measure.
fn refuse_swept(config: &RunConfig) -> Result<()> {
    let value = |config: &RunConfig| serde_json::to_value(config).unwrap_or_default();
    let (ours, defaults) = (value(config), value(&RunConfig::default()));
    if let Some(name) = SWEPT.iter().find(|&&name| ours[name] != defaults[name]) {
        let reason =
            "has no place in a sweep: it has --codec, --steps, --keeps, --bits and --seeds";
        return Err(Error::argument(name, reason));
    }
    match config.device_adapters {
        DeviceAdaptersKind::Lora => Ok(()),
        DeviceAdaptersKind::None => Err(Error::argument(
            "device_adapters",
            "must be lora in a sweep, which measures gradients too, got none",
        )),
    }
}

fn run(sweep: &Sweep, config: &RunConfig) -> Result<()> {
    let grid = sweep.grid()?;
    if sweep.seeds.is_empty() {
        return Err(Error::argument("seeds", "must name at least one seed"));
    }
    let task = Task {
        inputs: input::open(config)?,
        config,
        seeds: &sweep.seeds,
    };
    let codecs = grid.codecs()?;
    let bar = progress((codecs.len() + 1) * sweep.seeds.len());
    let raw = task.runs(Scheme::SftRaw, config.activation, &bar)?;
    // The flags are right; see that the results can be written before the long part.
    let out = config.folder().unwrap_or(OUT.as_ref());
    std::fs::create_dir_all(out).map_err(|e| Error::file(out, e))?;
    let measured = codecs.into_iter();
    let measured = measured.map(|codec| task.runs(Scheme::Sft, codec, &bar));
    let measured = measured.collect::<Result<Vec<_>>>()?;
    bar.finish_and_clear();
    let mut settings = config.for_model(task.inputs.model.spec()).deciding();
    settings.retain(|name, _| !SWEPT.contains(&name.as_str()));
    settings.insert("seeds".into(), sweep.seeds.clone().into());
    write_whole(
        &out.join("accuracy_sweep.csv"),
        csv(&grid, &sweep.seeds, &raw, &measured).as_bytes(),
    )?;
    let surface = grid.surface(settings.into(), &raw, &measured)?;
    write_files(out, &surface)?;
    print_summary(&surface)?;
    say(format_args!(
        "surface.json, the runs and the pictures are in {}",
        out.display()
    ))?;
    Ok(())
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
    seeds: &'a [u64],
}

impl Task<'_> {
    /// The rounds of one setting, seed by seed.
    fn runs(&self, scheme: Scheme, activation: CutCodec, bar: &ProgressBar) -> Result<Runs> {
        // One run of many keeps no files.
        let mut config = RunConfig {
            scheme: vec![scheme],
            activation,
            out: None,
            ..self.config.clone()
        };
        let one = |&seed: &u64| {
            config.seed = seed;
            let session = Session::new(&config, &self.inputs)?;
            let runs = session.run(&(), &AtomicBool::new(false))?;
            let rounds: Vec<_> = runs.into_iter().flat_map(|run| run.rounds).collect();
            let accuracy = rounds.last().map_or(0.0, |round| round.accuracy);
            bar.set_message(format!("{:.1} %", 100.0 * accuracy));
            bar.inc(1);
            Ok(rounds)
        };
        Ok(Runs(self.seeds.iter().map(one).collect::<Result<_>>()?))
    }
}

fn write_files(out: &Path, surface: &Surface) -> Result<()> {
    let (json, pictures) = match surface {
        Surface::Levels(levels) => (
            serde_json::to_string_pretty(levels),
            vec![
                ("accuracy_over_keep.svg", surface_plot::over_keep(levels)),
                ("accuracy_surface.svg", surface_plot::map(levels)),
            ],
        ),
        Surface::Steps(steps) => (
            serde_json::to_string_pretty(steps),
            vec![("accuracy_over_step.svg", surface_plot::over_step(steps))],
        ),
    };
    let json = json.map_err(|e| Error::file(out, e))? + "\n";
    write_whole(&out.join("surface.json"), json.as_bytes())?;
    for (name, picture) in pictures {
        let svg = picture.map_err(|e| Error::file(out, e))?;
        write_whole(&out.join(name), svg.as_bytes())?;
    }
    Ok(())
}

fn print_summary(surface: &Surface) -> Result<()> {
    say(format_args!(
        "accuracy without compression: {:.1} %",
        100.0 * surface.raw_accuracy()
    ))?;
    let fitted = |what: &str, rmse: f64, max_error: f64| {
        say(format_args!(
            "{what}: root mean square error {:.2} points, largest {:.2}",
            100.0 * rmse,
            100.0 * max_error
        ))
    };
    let fit = match surface {
        Surface::Levels(surface) => &surface.fit,
        Surface::Steps(surface) => {
            return fitted("curve", surface.fit.rmse, surface.fit.max_error);
        }
    };
    fitted("cubic", fit.rmse, fit.max_error)?;
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
