use std::path::PathBuf;

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value};
use sft_core::adapter::{Lora, ModelSpec, TargetModules};
use sft_core::data::Partition;
use sft_core::optim::Optimizer;
use sft_core::run::{Channel, Decay, Schedule, Scheme, Settings};
use sft_core::{Error, Result};

use crate::codec::Codec;
use crate::error::bad_argument;

/// The arguments of `sft.finetune` but for model and data, each by its name there.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Options {
    pub(super) devices: usize,
    pub(super) scheme: String,
    pub(super) cut: usize,
    pub(super) device_cuts: Option<Vec<usize>>,
    pub(super) activation: Option<Codec>,
    pub(super) gradient: Option<Codec>,
    pub(super) rounds: usize,
    pub(super) local_epochs: usize,
    pub(super) batch: usize,
    pub(super) rank: usize,
    pub(super) alpha: Option<f64>,
    pub(super) targets: Option<String>,
    pub(super) lora_dropout: f64,
    pub(super) optimizer: String,
    pub(super) momentum: f64,
    pub(super) weight_decay: Option<f64>,
    pub(super) clip_norm: Option<f64>,
    pub(super) lr: f64,
    pub(super) lr_server: Option<f64>,
    pub(super) schedule: String,
    pub(super) lr_decay: f64,
    pub(super) warmup_rounds: f64,
    pub(super) participation: f64,
    pub(super) target_accuracy: Option<f64>,
    pub(super) partition: String,
    pub(super) bandwidth_hz: f64,
    pub(super) snr_db: f64,
    pub(super) fading: bool,
    pub(super) seed: u64,
    pub(super) threads: usize,
    pub(super) gradient_checkpointing: bool,
    pub(super) heads: Option<usize>,
    pub(super) full: u8,
    pub(super) augment: bool,
    pub(super) adapters: Option<PathBuf>,
    pub(super) out: Option<PathBuf>,
    pub(super) checkpoint_every: Option<usize>,
    pub(super) resume: Option<PathBuf>,
    /// What decides the results, as JSON: a run goes on only from a checkpoint with the same.
    pub(super) configuration: String,
}

impl Options {
    /// The arguments, an error naming the one that cannot be taken.
    pub(super) fn extract_from(arguments: &Bound<'_, PyDict>) -> PyResult<Self> {
        let py = arguments.py();
        arguments.extract().map_err(|error: PyErr| {
            let text = error.value(py).to_string();
            let Some((_, name)) = text.rsplit_once("field Options.") else {
                return error;
            };
            let value = arguments.get_item(name).ok().flatten();
            let value = value.map_or(String::new(), |value| value.to_string());
            match error.cause(py) {
                Some(cause) if cause.is_instance_of::<PyOverflowError>(py) => {
                    bad_argument(format!("{name} is out of its range, got {value}"))
                }
                Some(cause) if cause.is_instance_of::<PyValueError>(py) => {
                    bad_argument(format!("{name}: {}", cause.value(py)))
                }
                cause => {
                    let reason = cause.map_or(String::new(), |c| format!(": {}", c.value(py)));
                    PyTypeError::new_err(format!("{name} is of a wrong type, got {value}{reason}"))
                }
            }
        })
    }

    pub(super) fn settings(&self, spec: &ModelSpec) -> Result<Settings> {
        let codec = |codec: Option<Codec>| codec.map_or_else(sft_compress::Codec::raw, |c| c.0);
        Ok(Settings {
            lora: self.lora(spec)?,
            activation: codec(self.activation),
            gradient: codec(self.gradient),
            rounds: self.rounds,
            local_epochs: self.local_epochs,
            batch: self.batch,
            optimizer: self.optimizer()?,
            clip_norm: self.clip_norm,
            lr: self.lr,
            lr_server: self.lr_server.unwrap_or(self.lr),
            schedule: Schedule {
                warmup_rounds: self.warmup_rounds,
                decay: self.decay()?,
            },
            participation: self.participation,
            target_accuracy: self.target_accuracy,
            seed: self.seed,
            threads: self.threads,
            ..Settings::new(parse::<Scheme>("scheme", &self.scheme)?, self.cut)?
        })
    }

    pub(super) fn configuration(&self) -> Result<Map<String, Value>> {
        let wrong = |error: serde_json::Error| Error::argument("configuration", error.to_string());
        serde_json::from_str(&self.configuration).map_err(wrong)
    }

    /// Whether a checkpoint is to be kept after so many rounds.
    pub(super) fn checkpoint_is_due(&self, rounds: usize) -> Result<bool> {
        match self.checkpoint_every {
            Some(0) => Err(Error::argument(
                "checkpoint_every",
                "must be at least 1, got 0",
            )),
            Some(every) => Ok(rounds.is_multiple_of(every)),
            None => Ok(false),
        }
    }

    pub(super) fn partition(&self) -> Result<Partition> {
        parse("partition", &self.partition)
    }

    pub(super) fn channel(&self) -> Result<Channel> {
        let (bandwidth_hz, snr_db) = (self.bandwidth_hz, self.snr_db);
        if !(bandwidth_hz > 0.0 && bandwidth_hz.is_finite()) {
            let reason = format!("must be finite and positive, got {bandwidth_hz}");
            return Err(Error::argument("bandwidth_hz", reason));
        }
        if !(-300.0..=300.0).contains(&snr_db) {
            let reason = format!("must be in -300..=300, got {snr_db}");
            return Err(Error::argument("snr_db", reason));
        }
        Ok(Channel {
            bandwidth_hz,
            snr_db,
            rayleigh: self.fading,
        })
    }

    fn lora(&self, spec: &ModelSpec) -> Result<Lora> {
        let mut lora = Lora::new(self.rank, self.alpha.unwrap_or(self.rank as f64))?;
        if let Some(targets) = &self.targets {
            let targets: TargetModules = parse("targets", targets)?;
            lora = lora.with_targets(targets.resolve(spec)?);
        }
        lora.with_dropout(self.lora_dropout)
    }

    fn optimizer(&self) -> Result<Optimizer> {
        match self.optimizer.as_str() {
            "adamw" => Ok(Optimizer::AdamW {
                weight_decay: self.weight_decay.unwrap_or(0.01),
            }),
            "sgd" => Ok(Optimizer::Sgd {
                momentum: self.momentum,
                weight_decay: self.weight_decay.unwrap_or(0.0),
            }),
            other => Err(unknown("optimizer", "adamw or sgd", other)),
        }
    }

    fn decay(&self) -> Result<Decay> {
        match self.schedule.as_str() {
            "constant" => Ok(Decay::Constant),
            "exponential" => Ok(Decay::Exponential(self.lr_decay)),
            "cosine" => Ok(Decay::Cosine),
            other => Err(unknown(
                "schedule",
                "constant, exponential or cosine",
                other,
            )),
        }
    }
}

fn unknown(argument: &'static str, accepted: &str, got: &str) -> Error {
    Error::argument(argument, format!("must be {accepted}, got {got}"))
}

fn parse<T: std::str::FromStr<Err = String>>(argument: &'static str, text: &str) -> Result<T> {
    let wrong = |reason: String| Error::argument(argument, format!("{reason}, got {text}"));
    text.parse().map_err(wrong)
}
