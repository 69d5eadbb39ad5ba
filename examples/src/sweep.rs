//! The settings of a sweep, and what their runs make: a surface and a table.

use std::fmt::Write as _;

use serde_json::Value;
use sft_core::run::RoundRecord;
use sft_core::split::CutCodec;
use sft_core::{Error, Result};
use sft_opt::Accuracy;
use sft_opt::plan::{AccuracyPoint, KeepScale, StepCurve};

use crate::flags::{LevelsFlag, check_step_kind, step_codec};
use crate::surface::{LevelsSurface, Shares, StepRun, StepSurface, Surface};

/// The settings of an activation's codec that are run.
#[derive(Clone, Debug)]
pub enum Grid {
    /// Kept fractions and bits.
    Levels {
        /// The kind of codec.
        codec: LevelsFlag,
        /// Every pair.
        pairs: Vec<(f64, u32)>,
        /// What the cubic is a polynomial of.
        scale: KeepScale,
    },
    /// Steps.
    Steps {
        /// The kind of codec, `transform` for `transform:STEP`.
        codec: String,
        /// Ascending.
        steps: Vec<f64>,
    },
}

/// The rounds of one setting, a list for every seed.
#[derive(Clone, Debug)]
pub struct Runs(pub Vec<Vec<RoundRecord>>);

impl Grid {
    /// Every pair of a kept fraction and a number of bits.
    ///
    /// # Errors
    /// Pairs that do not determine the cubic.
    pub fn levels(
        codec: LevelsFlag,
        keeps: &[f64],
        bits: &[u32],
        scale: KeepScale,
    ) -> Result<Self> {
        let pairs = keeps
            .iter()
            .flat_map(|&k| bits.iter().map(move |&q| (k, q)));
        let pairs: Vec<_> = pairs.collect();
        let planned: Vec<_> = pairs.iter().map(|&pair| point(pair, 0.0)).collect();
        Accuracy::fit(scale, &planned)?;
        Ok(Self::Levels {
            codec,
            pairs,
            scale,
        })
    }

    /// Steps of a codec that has one.
    ///
    /// # Errors
    /// A kind that has no step; fewer than two steps, steps that are not ascending or outside the
    /// range of the kind.
    pub fn steps(codec: &str, steps: &[f64]) -> Result<Self> {
        check_step_kind(codec)?;
        for &step in steps {
            step_codec(codec, step)?;
        }
        let count = steps.len();
        if count < 2 {
            let reason = format!("must name at least two steps of {codec}, got {count}");
            return Err(Error::argument("steps", reason));
        }
        let descends = |pair: &&[f64]| pair[1] <= pair[0];
        if let Some([before, after]) = steps.windows(2).find(descends) {
            let reason = format!("must be ascending, got {after} after {before}");
            return Err(Error::argument("steps", reason));
        }
        Ok(Self::Steps {
            codec: codec.into(),
            steps: steps.to_vec(),
        })
    }

    /// The codec of every setting.
    ///
    /// # Errors
    /// A number outside its range.
    pub fn codecs(&self) -> Result<Vec<CutCodec>> {
        match self {
            Self::Levels { codec, pairs, .. } => (pairs.iter())
                .map(|&(keep, bits)| Ok(codec.codec(keep, 1 << bits)?.into()))
                .collect(),
            Self::Steps { codec, steps } => {
                steps.iter().map(|&step| step_codec(codec, step)).collect()
            }
        }
    }

    /// What the runs of every setting say, and those without compression.
    ///
    /// # Errors
    /// Accuracies that no fit takes, and what [`Surface::open`] would refuse.
    pub fn surface(&self, settings: Value, raw: &Runs, measured: &[Runs]) -> Result<Surface> {
        let surface = self.fitted(settings, raw, measured)?;
        let unreadable = |reason| Error::argument("codec", format!("makes no surface: {reason}"));
        surface.check().map_err(unreadable)?;
        Ok(surface)
    }

    fn fitted(&self, settings: Value, raw: &Runs, measured: &[Runs]) -> Result<Surface> {
        let raw_accuracy = raw.accuracy();
        match self {
            Self::Levels {
                codec,
                pairs,
                scale,
            } => {
                let points = pairs.iter().zip(measured);
                let points = points.map(|(&pair, runs)| point(pair, runs.accuracy()));
                let points: Vec<_> = points.collect();
                Ok(Surface::Levels(LevelsSurface {
                    settings,
                    codec: *codec,
                    raw_accuracy,
                    fit: Accuracy::fit(*scale, &points)?,
                    points,
                }))
            }
            Self::Steps { codec, steps } => {
                let points = steps.iter().zip(measured);
                let points: Vec<_> = points.map(|(&step, runs)| runs.step(step, raw)).collect();
                Ok(Surface::Steps(StepSurface {
                    settings,
                    codec: codec.clone(),
                    raw_accuracy,
                    fit: StepCurve::fit(&StepSurface::accuracies(&points))?,
                    points,
                }))
            }
        }
    }

    /// The names of the columns that tell a setting.
    fn columns(&self) -> &'static str {
        match self {
            Self::Levels { .. } => "keep,bits",
            Self::Steps { .. } => "step",
        }
    }

    /// Every setting as these columns, behind one for no compression.
    fn rows(&self) -> Vec<String> {
        match self {
            Self::Levels { pairs, .. } => std::iter::once(",".into())
                .chain(pairs.iter().map(|(keep, bits)| format!("{keep},{bits}")))
                .collect(),
            Self::Steps { steps, .. } => std::iter::once(String::new())
                .chain(steps.iter().map(f64::to_string))
                .collect(),
        }
    }
}

fn point((keep, bits): (f64, u32), accuracy: f64) -> AccuracyPoint {
    AccuracyPoint {
        keep,
        bits: bits.into(),
        accuracy,
    }
}

impl Runs {
    /// Test accuracy after the last round, of every seed.
    fn accuracies(&self) -> impl Iterator<Item = f64> {
        let last = |rounds: &Vec<RoundRecord>| rounds.last().map_or(0.0, |round| round.accuracy);
        self.0.iter().map(last)
    }

    /// The mean over the seeds.
    fn accuracy(&self) -> f64 {
        self.accuracies().sum::<f64>() / self.0.len() as f64
    }

    fn step(&self, step: f64, raw: &Self) -> StepRun {
        let later = (self.0.iter()).any(|rounds| rounds.len() > 1);
        StepRun {
            step,
            accuracy: self.accuracy(),
            first: self.shares(raw, |round| round.round == 1),
            later: later.then(|| self.shares(raw, |round| round.round > 1)),
        }
    }

    /// The bytes of some rounds over those of the same rounds without compression.
    fn shares(&self, raw: &Self, of: fn(&RoundRecord) -> bool) -> Shares {
        let bytes = |runs: &Self, field: fn(&RoundRecord) -> u64| -> f64 {
            let rounds = runs.0.iter().flatten().filter(|round| of(round));
            rounds.map(|round| field(round) as f64).sum()
        };
        let share = |field| bytes(self, field) / bytes(raw, field);
        Shares {
            up: share(|round| round.bytes_up),
            down: share(|round| round.bytes_down),
        }
    }
}

/// One row per setting; the first is not compressed. Bytes are those of activations with labels and
/// of gradients over the whole run, in the mean over the seeds.
pub fn csv(grid: &Grid, seeds: &[u64], raw: &Runs, measured: &[Runs]) -> String {
    let mut text = grid.columns().to_string();
    for seed in seeds {
        let _ = write!(text, ",accuracy_seed_{seed}");
    }
    text += ",bytes_up,bytes_down\n";
    for (setting, runs) in grid.rows().iter().zip(std::iter::once(raw).chain(measured)) {
        text += setting;
        for accuracy in runs.accuracies() {
            let _ = write!(text, ",{accuracy:.4}");
        }
        for field in [
            |round: &RoundRecord| round.bytes_up,
            |round: &RoundRecord| round.bytes_down,
        ] {
            let bytes: u64 = runs.0.iter().flatten().map(field).sum();
            let _ = write!(text, ",{:.0}", bytes as f64 / runs.0.len() as f64);
        }
        text += "\n";
    }
    text
}
