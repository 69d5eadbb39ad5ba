//! `vit_finetune --auto`: cut, kept fraction and levels by the cost model instead of by hand.
//!
//! Every cut layer is a problem of its own: the rates of the codec are measured on the model's
//! own activations and gradients at that cut, then [`sft_opt::optimize`] is exact. The best cut wins.

/// What crosses at a cut layer.
mod tensors;

use std::fmt;

use sft_compress::{Codec, RateTable, TensorView};
use sft_core::adapter::Head;
use sft_core::data::Data;
use sft_core::model::Model;
use sft_core::run::{DeviceAdaptersKind, RunConfig, Wireless};
use sft_core::{Error, Result};
use sft_opt::plan::{Configuration, CutOption, JointProblem, Rate, RateGrid};
use sft_opt::system::Link;
use sft_opt::{Compression, Constraint, Problem, Solution, allocate_bandwidth, optimize};

use self::tensors::Tensors;
use crate::flags::{Auto, LevelsFlag};
use crate::surface::Surface;

/// Elements of an activation that the rates are measured on, about.
const SAMPLED_ELEMENTS: usize = 1 << 18;
/// Kept fractions that rates are measured at, inside the range of the surface.
const KEEPS: [f64; 12] = [
    0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0,
];
/// The paper's fixed setting: cut after block 5 of 12, 20 % kept, 3 bits, in both directions.
const PAPER_CUT: (usize, usize) = (5, 12);
const PAPER_KEEP: f64 = 0.2;
const PAPER_BITS: u32 = 3;

/// What there is to choose for.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// The model.
    pub model: &'a dyn Model,
    /// The head to start from.
    pub head: &'a Head,
    /// The training data of all devices.
    pub train: &'a dyn Data,
    /// The devices and the channel.
    pub wireless: &'a Wireless,
}

/// One cut layer with its best setting.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The cut layer.
    pub cut: usize,
    /// The best setting, or what rules the cut out.
    pub best: Solution<Option<Configuration>>,
}

/// The choice and the reasons for it.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The best configuration.
    pub best: Solution<Configuration>,
    /// The activation's codec in the best configuration.
    pub activation: Codec,
    /// Every cut layer.
    pub candidates: Vec<Candidate>,
    /// Cut layer, accuracy and delay of the paper's fixed setting, by the same model.
    pub paper: (usize, f64, f64),
    /// Accuracy that was asked for.
    pub accuracy_min: f64,
    /// Kept fractions that the surface covers.
    pub keep_range: (f64, f64),
    /// Samples that the rates were measured on.
    pub samples: usize,
}

/// Chooses cut, kept fraction and levels of the activation; the gradient's codec stays.
///
/// Delays are those of a round after the first, over links at their mean and without labels.
///
/// # Errors
/// Data other than the digits without a surface of their own, a surface that cannot be read, a
/// flag outside its range, and an accuracy or a memory that no setting meets.
pub fn choose(auto: &Auto, config: &RunConfig, task: Task<'_>) -> Result<Choice> {
    if config.device_adapters == DeviceAdaptersKind::None {
        let reason = "must be lora with --auto, whose surface is measured with it, got none";
        return Err(Error::argument("device_adapters", reason));
    }
    let surface = surface(auto, config)?;
    let accuracy_min = surface.raw_accuracy - auto.accuracy_drop;
    let samples = sample_size(config, task)?;
    let system = task.wireless.system();
    let links = system.links();
    let mut problem = system.joint_problem(&links, false)?;
    problem.memory_max_bytes.fill(memory_bytes(auto)?);
    let (mut candidates, mut paper) = (Vec::new(), (0, f64::NAN, f64::NAN));
    let paper_cut = (PAPER_CUT.0 * task.model.spec().depth / PAPER_CUT.1).max(1);
    for option in std::mem::take(&mut problem.cuts) {
        let cut = option.cut;
        let tensors = Tensors::at(config, task, cut, samples)?;
        if cut == paper_cut {
            let accuracy = surface.fit.accuracy.at(PAPER_KEEP, PAPER_BITS.into());
            let tau_s = paper_delay(surface.codec, &problem, &option, &links, &tensors)?;
            paper = (cut, accuracy, tau_s);
        }
        let compression = compression(&surface, accuracy_min, &tensors)?;
        let one = with_cut(&problem, option, &links, tensors.gradient_rate(config)?);
        let best = optimize(&one, &compression)?;
        candidates.push(Candidate { cut, best });
    }
    let best = best(&candidates, |_| true).ok_or_else(|| no_choice(&candidates, accuracy_min))?;
    let setting = best.value.setting;
    Ok(Choice {
        activation: (surface.codec).codec(setting.keep, setting.levels() as u32)?,
        best,
        candidates,
        paper,
        accuracy_min,
        keep_range: surface.keep_range(),
        samples,
    })
}

fn best(
    candidates: &[Candidate],
    wanted: impl Fn(usize) -> bool,
) -> Option<Solution<Configuration>> {
    (candidates.iter())
        .filter(|candidate| wanted(candidate.cut))
        .filter_map(|candidate| candidate.best.clone().feasible())
        .min_by(|a, b| a.tau_s.total_cmp(&b.tau_s))
}

/// The first constraint that no cut meets, as a mistake in the flag that sets it.
fn no_choice(candidates: &[Candidate], accuracy_min: f64) -> Error {
    let accuracy = |candidate: &Candidate| {
        matches!(
            candidate.best.status.constraint(),
            Some(Constraint::Accuracy)
        )
    };
    if candidates.iter().any(accuracy) {
        let percent = 100.0 * accuracy_min;
        let reason =
            format!("must leave an accuracy that the surface reaches, it does not {percent:.1} %");
        return Error::argument("accuracy_drop", reason);
    }
    Error::argument("device_memory_mib", "must fit the model cut after block 1")
}

fn surface(auto: &Auto, config: &RunConfig) -> Result<Surface> {
    let data = config.data.as_deref().unwrap_or("digits");
    let embedded = data.starts_with("digits") && config.model.is_none();
    if auto.surface.is_none() && !embedded {
        let reason =
            "is needed with --auto: the embedded one is that of the embedded model and data";
        return Err(Error::argument("surface", reason));
    }
    let drop = auto.accuracy_drop;
    if !(0.0..1.0).contains(&drop) {
        return Err(Error::argument(
            "accuracy_drop",
            format!("must be in [0, 1), got {drop}"),
        ));
    }
    Surface::open(auto.surface.as_deref())
}

fn memory_bytes(auto: &Auto) -> Result<f64> {
    let mib = auto.device_memory_mib;
    if mib > 0.0 && mib.is_finite() {
        return Ok(mib * 1024.0 * 1024.0);
    }
    let reason = format!("must be positive, got {mib}");
    Err(Error::argument("device_memory_mib", reason))
}

/// Images that the rates are measured on.
fn sample_size(config: &RunConfig, task: Task<'_>) -> Result<usize> {
    let one = task
        .model
        .embed(&task.train.batch(&[0])?.inputs, None)?
        .state
        .elem_count();
    let most = config.batch.min(task.train.len());
    Ok((SAMPLED_ELEMENTS / one).clamp(1, most))
}

/// The compression problem with the rates measured at one cut.
fn compression(surface: &Surface, accuracy_min: f64, tensors: &Tensors) -> Result<Compression> {
    let (low, high) = surface.keep_range();
    let (fewest, most) = surface.bits_range();
    let (bits_min, bits_max) = (fewest.ceil() as u32, (most as u32).min(8));
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
    Ok(Compression {
        accuracy: surface.fit.accuracy,
        accuracy_min,
        keep_min: low,
        keep_max: high,
        bits_min,
        bits_max,
        rate: Rate::Table(RateGrid::new(keeps, bits, beta)?),
    })
}

/// What device `n` asks of the band for raw activations, and for raw gradients.
fn raw(problem: &JointProblem, links: &[Link], n: usize) -> (f64, f64) {
    let (up, down) = (1.0 / links[n].uplink_bps_hz, 1.0 / links[n].downlink_bps_hz);
    let share = up / (up + down);
    (problem.c_beta[n] * share, problem.c_beta[n] * (1.0 - share))
}

/// The problem of one cut, in which compression changes the activations only.
fn with_cut(
    problem: &JointProblem,
    mut option: CutOption,
    links: &[Link],
    gradient_rate: f64,
) -> JointProblem {
    let mut one = problem.clone();
    for n in 0..links.len() {
        let (up, down) = raw(problem, links, n);
        option.c_fixed[n] += gradient_rate * down;
        one.c_beta[n] = up;
    }
    one.cuts = vec![option];
    one
}

/// Delay of a round with the paper's kept fraction and levels in both directions, in the kind of
/// codec that the surface was measured with.
fn paper_delay(
    codec: LevelsFlag,
    problem: &JointProblem,
    option: &CutOption,
    links: &[Link],
    tensors: &Tensors,
) -> Result<f64> {
    let codec = codec.codec(PAPER_KEEP, 1 << PAPER_BITS)?;
    let up_rate = tensors.rate(&tensors.activation, codec)?;
    let down_rate = tensors.rate(&tensors.gradient, codec)?;
    let demand = |n: usize| {
        let (up, down) = raw(problem, links, n);
        option.c_fixed[n] + up_rate * up + down_rate * down
    };
    let c: Vec<f64> = (0..links.len()).map(demand).collect();
    let solution = allocate_bandwidth(&Problem {
        a_s: &option.a_s,
        c_bits_per_bps_hz: &c,
        total_hz: problem.total_hz,
        cap_hz: problem.cap_hz.as_deref(),
    })?;
    Ok(solution.tau_s)
}

impl Choice {
    /// The best other cut layer.
    pub fn runner_up(&self) -> Option<Solution<Configuration>> {
        best(&self.candidates, |cut| cut != self.best.value.cut)
    }

    /// What keeps the bits from being fewer.
    fn bound(&self) -> String {
        let setting = self.best.value.setting;
        if setting.accuracy - self.accuracy_min < 1e-6 {
            return format!(
                "bound by accuracy, at least {:.1} %",
                100.0 * self.accuracy_min
            );
        }
        format!(
            "bound by the surface, measured from keep {} to {}",
            self.keep_range.0, self.keep_range.1
        )
    }

    /// Cuts that do not fit into a device.
    fn ruled_out(&self) -> String {
        let memory =
            |c: &&Candidate| matches!(c.best.status.constraint(), Some(Constraint::Memory));
        let cuts: Vec<String> = (self.candidates.iter())
            .filter(memory)
            .map(|c| c.cut.to_string())
            .collect();
        if cuts.is_empty() {
            return "bound by delay, every cut fits into the devices".into();
        }
        format!(
            "bound by delay and memory, which rules out {}",
            cuts.join(", ")
        )
    }
}

fn line(best: &Solution<Configuration>) -> String {
    let Configuration { cut, setting, .. } = best.value;
    format!(
        "cut {cut}, keep {:.3}, {} levels: {:.4} s a round",
        setting.keep,
        setting.levels(),
        best.tau_s
    )
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let setting = self.best.value.setting;
        writeln!(f, "auto: {}", line(&self.best))?;
        writeln!(
            f,
            "  activations: {:.1} % of their bits, accuracy {:.1} % by the surface; {}",
            100.0 * setting.beta,
            100.0 * setting.accuracy,
            self.bound()
        )?;
        writeln!(f, "  cut: {}", self.ruled_out())?;
        match self.runner_up() {
            Some(next) => {
                let more = 100.0 * (next.tau_s / self.best.tau_s - 1.0);
                writeln!(f, "  runner-up: {}, {more:.1} % more", line(&next))?;
            }
            None => writeln!(f, "  runner-up: none")?,
        }
        let (cut, accuracy, tau_s) = self.paper;
        write!(
            f,
            "  the paper's fixed setting: cut {cut}, keep {PAPER_KEEP}, {} levels both ways: \
             {tau_s:.4} s a round, accuracy {:.1} % by the surface\n  \
             (rates measured on {} training images at every cut, links at their mean)",
            1 << PAPER_BITS,
            100.0 * accuracy,
            self.samples
        )
    }
}
