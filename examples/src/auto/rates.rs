//! What is left of the bits at every cut layer: first messages measured there, and those of samples
//! that come again.

use serde_json::{Map, Value};
use sft_compress::{RateTable, TensorView};
use sft_core::run::RunConfig;
use sft_core::{Error, Result};
use sft_opt::plan::{CutOption, RateGrid, StepCurve, StepPoint};

use super::tensors::Tensors;
use crate::flags::step_codec;
use crate::surface::{LevelsSurface, Shares, StepRun, StepSurface, Surface};

/// Kept fractions that rates are measured at, inside the range of the surface.
const KEEPS: [f64; 12] = [
    0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0,
];

/// Bits over raw bits at one cut layer.
pub(super) struct Rates<'a> {
    pub(super) activation: Activation<'a>,
    /// Of gradients by their own flag.
    pub(super) gradient: f64,
}

/// Of activations, by setting, and the surface that has these settings.
pub(super) enum Activation<'a> {
    Levels(&'a LevelsSurface, RateGrid),
    /// One rate for every step of the surface.
    Steps(&'a StepSurface, Vec<f64>),
}

impl<'a> Rates<'a> {
    /// Those of first messages.
    pub(super) fn first(
        surface: &'a Surface,
        config: &RunConfig,
        tensors: &Tensors<'_>,
    ) -> Result<Self> {
        let activation = match surface {
            Surface::Levels(surface) => Activation::Levels(surface, levels(surface, tensors)?),
            Surface::Steps(surface) => {
                let codec = |point: &StepRun| step_codec(&surface.codec, point.step);
                let codecs = surface
                    .points
                    .iter()
                    .map(codec)
                    .collect::<Result<Vec<_>>>()?;
                Activation::Steps(surface, tensors.activation_rates(&codecs)?)
            }
        };
        Ok(Self {
            activation,
            gradient: tensors.gradient_rate(config.gradient)?,
        })
    }
}

fn levels(surface: &LevelsSurface, tensors: &Tensors<'_>) -> Result<RateGrid> {
    let (low, high) = surface.keep_range();
    let (bits_min, bits_max) = bits(surface);
    let mut keeps = vec![low];
    keeps.extend(KEEPS.iter().filter(|&&keep| low < keep && keep < high));
    keeps.push(high);
    keeps.dedup();
    let made = |keep: f64, levels: u32| surface.codec.codec(keep, levels);
    let bits: Vec<u32> = (bits_min..=bits_max).collect();
    let levels: Vec<u32> = bits.iter().map(|bits| 1 << bits).collect();
    let view = TensorView::new(&tensors.activation, &tensors.shape)?;
    let table = RateTable::measure(&[view], made, &keeps, &levels)?;
    let row = |&levels: &u32| {
        (keeps.iter())
            .filter_map(|&k| table.rate(k, levels))
            .collect()
    };
    let beta = levels.iter().map(row).collect();
    Ok(RateGrid::new(keeps, bits, beta)?)
}

/// Fewest and most bits that the rates are measured for.
pub(super) fn bits(surface: &LevelsSurface) -> (u32, u32) {
    let (fewest, most) = surface.bits_range();
    (fewest.ceil() as u32, (most as u32).min(8))
}

/// The fields of a run that decide how often a sample comes again, and whether it is remembered and
/// the same picture when it does.
const RETURNS: [&str; 7] = [
    "sample_memory_mb",
    "augment",
    "device_cuts",
    "devices",
    "participation",
    "deadline_s",
    "partition",
];

/// Messages after the first round over the first messages of the same cut: at the cut of the runs
/// behind the surface both are known, and the ratio is taken for every cut.
pub(super) struct Later {
    /// Of activations, for every step of the surface.
    pub(super) up: Vec<f64>,
    /// Of gradients, with the gradient's codec of these runs.
    pub(super) down: f64,
}

impl Later {
    /// The ratios, where the runs behind the surface and the one to come have rounds after the
    /// first in which samples come again alike, else why there are none; `cuts` are all cut layers
    /// with their first messages.
    pub(super) fn of(
        surface: &Surface,
        config: &RunConfig,
        cuts: &[(CutOption, Rates<'_>)],
    ) -> Result<Result<Self, String>> {
        let unknown = || Ok(Err("the surface tells no rounds after the first".into()));
        let Surface::Steps(surface) = surface else {
            return unknown();
        };
        let later = surface.points.iter().map(|point| point.later);
        let Some(later) = later.collect::<Option<Vec<Shares>>>() else {
            return unknown();
        };
        let fields = config.deciding();
        let same = |name: &str| surface.settings[name] == fields[name];
        if let Some(reason) = differs(surface, config, &fields) {
            return Ok(Err(reason));
        }
        let swept = &surface.settings["cut"];
        let found = cuts.iter().find(|(option, _)| *swept == option.cut);
        let Some((_, first)) = found else {
            let reason = format!("has settings.cut {swept}, which the model does not have");
            return Err(Error::argument("surface", reason));
        };
        let up = match &first.activation {
            Activation::Steps(_, rates) => later.iter().zip(rates),
            Activation::Levels(..) => return unknown(),
        };
        let up = up.map(|(share, rate)| share.up / rate).collect();
        let mean = later.iter().map(|share| share.down).sum::<f64>() / later.len() as f64;
        let down = if same("gradient") {
            mean / first.gradient
        } else {
            1.0
        };
        Ok(Ok(Self { up, down }))
    }
}

/// Why samples do not come again in this run as in those behind the surface, if they do not.
fn differs(
    surface: &StepSurface,
    config: &RunConfig,
    fields: &Map<String, Value>,
) -> Option<String> {
    if config.rounds == 1 {
        return Some("the run has one round".into());
    }
    // Where devices miss rounds, the number of rounds decides how many samples are new.
    let all = config.participation >= 1.0 && config.deadline_s.is_none();
    let rounds = (!all).then_some("rounds");
    let name =
        (RETURNS.into_iter().chain(rounds)).find(|&name| surface.settings[name] != fields[name])?;
    let (theirs, ours) = (&surface.settings[name], &fields[name]);
    Some(format!(
        "the surface was measured with {name} {theirs}, the run has {ours}"
    ))
}

/// The rate of one cut over the step; noise must not make a coarser step cost more.
pub(super) fn curve(surface: &StepSurface, first: &[f64], later: &[f64]) -> Result<StepCurve> {
    let point = |((point, first), later): ((&StepRun, &f64), &f64)| StepPoint {
        step: point.step,
        value: first * later,
    };
    let points: Vec<_> = surface
        .points
        .iter()
        .zip(first)
        .zip(later)
        .map(point)
        .collect();
    Ok(StepCurve::fit(&points)?.curve)
}
