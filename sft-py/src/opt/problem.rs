use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use serde::Serialize;
use sft_opt::Compression;
use sft_opt::plan::{CompressionProblem, Setting, StepCompression, StepSetting};

use super::json::read;

/// `sft.Compression` or `sft.StepCompression`.
pub(super) enum AnyCompression {
    Levels(Compression),
    Steps(StepCompression),
}

/// `sft.Setting` or `sft.StepSetting`.
#[derive(Clone, Serialize)]
#[serde(untagged)]
pub(super) enum AnySetting {
    Levels(Setting),
    Step(StepSetting),
}

impl AnyCompression {
    /// Accuracies over steps make it one of steps.
    pub(super) fn read(text: &str) -> PyResult<Self> {
        let value: serde_json::Value = read("compression", text)?;
        let steps = ["accuracy", "rate"]
            .iter()
            .any(|name| value[name].get("step").is_some());
        Ok(if steps {
            Self::Steps(read("compression", text)?)
        } else {
            Self::Levels(read("compression", text)?)
        })
    }

    pub(super) fn levels(&self) -> PyResult<&Compression> {
        match self {
            Self::Levels(compression) => Ok(compression),
            Self::Steps(_) => Err(PyTypeError::new_err(
                "compression must be one of kept fractions and bits here, got one of steps",
            )),
        }
    }
}

impl CompressionProblem for AnyCompression {
    type Setting = AnySetting;

    fn best(&self) -> sft_opt::Result<Option<AnySetting>> {
        Ok(match self {
            Self::Levels(problem) => problem.best()?.map(AnySetting::Levels),
            Self::Steps(problem) => problem.best()?.map(AnySetting::Step),
        })
    }

    fn beta(setting: &AnySetting) -> f64 {
        match setting {
            AnySetting::Levels(setting) => setting.beta,
            AnySetting::Step(setting) => setting.beta,
        }
    }
}
