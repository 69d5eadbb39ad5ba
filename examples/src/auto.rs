//! `vit_finetune --auto`: cut and compression of the activation by the cost model instead of by hand.
//!
//! Every cut layer is a problem of its own: the rates of the codec are measured on the model's
//! own activations and gradients at that cut, then [`sft_opt::optimize`] is exact. The best cut wins.

/// The setting that is chosen.
mod chosen;
/// What is left of the bits at every cut layer.
mod rates;
/// What crosses at a cut layer.
mod tensors;
/// The choice in words.
mod told;

use serde_json::Value;
use sft_compress::Codec;
use sft_core::adapter::Head;
use sft_core::data::Data;
use sft_core::model::Model;
use sft_core::run::{DeviceAdaptersKind, RunConfig, Wireless};
use sft_core::split::CutCodec;
use sft_core::{Error, Result};
use sft_opt::plan::{Configuration, CutOption, JointProblem};
use sft_opt::system::Link;
use sft_opt::{Constraint, Problem, Solution, allocate_bandwidth, optimize};

use self::chosen::AtCut;
pub use self::chosen::Chosen;
use self::rates::{Later, Rates};
use self::tensors::Tensors;
use crate::flags::{Auto, LevelsFlag};
use crate::surface::Surface;

/// Elements of an activation that the rates are measured on, about.
const SAMPLED_ELEMENTS: usize = 1 << 18;
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
    pub best: Solution<Option<Configuration<Chosen>>>,
}

/// The paper's fixed setting by the same cost model.
#[derive(Clone, Copy, Debug)]
pub struct Paper {
    /// Its cut layer in this model.
    pub cut: usize,
    /// Delay of a round, seconds.
    pub tau_s: f64,
    /// Accuracy, where the surface is one of kept fractions and bits.
    pub accuracy: Option<f64>,
}

/// The choice and the reasons for it.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The best configuration.
    pub best: Solution<Configuration<Chosen>>,
    /// The activation's codec in the best configuration.
    pub activation: CutCodec,
    /// Every cut layer.
    pub candidates: Vec<Candidate>,
    /// The paper's fixed setting, where the model has its cut layer.
    pub paper: Option<Paper>,
    /// Accuracy that was asked for.
    pub accuracy_min: f64,
    /// What the surface covers, in words.
    pub covered: String,
    /// Samples that the rates were measured on.
    pub samples: usize,
    /// Why the rates are those of first messages; none where they are those of rounds after the
    /// first, in which samples come again.
    pub first_only: Option<String>,
}

/// Chooses cut and setting of the activation's codec; the gradient's codec stays.
///
/// Delays are those of a round after the first, over links at their mean. Rates are measured on
/// first messages at every cut. Where the surface tells what rounds after the first cost in the runs
/// behind it, labels included, and samples come again in this run as in those, the ratio to first
/// messages at their cut is taken for every cut.
///
/// # Errors
/// Data other than the digits without a surface of their own, a surface that cannot be read, that
/// is of a model with more blocks or of devices without adapters, a flag outside its range, and an accuracy or a memory that no
/// setting meets.
pub fn choose(auto: &Auto, config: &RunConfig, task: Task<'_>) -> Result<Choice> {
    if config.device_adapters == DeviceAdaptersKind::None {
        let reason = "must be lora with --auto, whose surface is measured with it, got none";
        return Err(Error::argument("device_adapters", reason));
    }
    let surface = surface(auto, config)?;
    let accuracy_min = surface.raw_accuracy() - auto.accuracy_drop;
    let samples = sample_size(config, task)?;
    let system = task.wireless.system();
    let links = system.links();
    let mut problem = system.joint_problem(&links, false)?;
    problem.memory_max_bytes.fill(memory_bytes(auto)?);
    let options = std::mem::take(&mut problem.cuts);
    let paper_cut = (PAPER_CUT.0 * task.model.spec().depth / PAPER_CUT.1).max(1);
    let (mut cuts, mut paper) = (Vec::new(), None);
    for option in options {
        let tensors = Tensors::at(config, task, option.cut, samples)?;
        if option.cut == paper_cut {
            paper = Some(paper_setting(
                &surface, &problem, &option, &links, &tensors,
            )?);
        }
        cuts.push((option, Rates::first(&surface, config, &tensors)?));
    }
    let (later, first_only) = match Later::of(&surface, config, &cuts)? {
        Ok(later) => (Some(later), None),
        Err(reason) => (None, Some(reason)),
    };
    let mut candidates = Vec::new();
    for (option, rates) in cuts {
        let cut = option.cut;
        let compression = AtCut::new(accuracy_min, &rates, later.as_ref())?;
        let gradient = rates.gradient * later.as_ref().map_or(1.0, |later| later.down);
        let best = optimize(&with_cut(&problem, option, &links, gradient), &compression)?;
        candidates.push(Candidate { cut, best });
    }
    let best = best(&candidates, |_| true).ok_or_else(|| no_choice(&candidates, accuracy_min))?;
    Ok(Choice {
        activation: best.value.setting.codec()?,
        best,
        candidates,
        paper,
        accuracy_min,
        covered: chosen::covered(&surface),
        samples,
        first_only,
    })
}

fn best(
    candidates: &[Candidate],
    wanted: impl Fn(usize) -> bool,
) -> Option<Solution<Configuration<Chosen>>> {
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
    let surface = Surface::open(auto.surface.as_deref())?;
    match &surface.settings()["device_adapters"] {
        Value::Null => Ok(surface),
        Value::String(kind) if kind == "lora" => Ok(surface),
        other => {
            let reason = format!("must have settings.device_adapters \"lora\", got {other}");
            Err(Error::argument("surface", reason))
        }
    }
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
/// codec that the surface was measured with, else in the paper's own.
fn paper_setting(
    surface: &Surface,
    problem: &JointProblem,
    option: &CutOption,
    links: &[Link],
    tensors: &Tensors<'_>,
) -> Result<Paper> {
    let (kind, accuracy) = match surface {
        Surface::Levels(surface) => {
            let accuracy = surface.fit.accuracy.at(PAPER_KEEP, PAPER_BITS.into());
            (surface.codec, Some(accuracy))
        }
        Surface::Steps(_) => (LevelsFlag::Paper, None),
    };
    let codec: Codec = kind.codec(PAPER_KEEP, 1 << PAPER_BITS)?;
    let up_rate = tensors.activation_rates(&[codec.into()])?[0];
    let down_rate = tensors.gradient_rate(codec.into())?;
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
    Ok(Paper {
        cut: option.cut,
        tau_s: solution.tau_s,
        accuracy,
    })
}

impl Choice {
    /// The best other cut layer.
    pub fn runner_up(&self) -> Option<Solution<Configuration<Chosen>>> {
        best(&self.candidates, |cut| cut != self.best.value.cut)
    }
}
