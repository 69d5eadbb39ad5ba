//! What a device learns before its first round.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::files::HalfFile;
use crate::adapter::Head;
use crate::data::ImageInput;
use crate::run::{RunConfig, TEXTS};
use crate::{Error, Result};

/// The fields of a configuration that name what a machine has, of which a device has its own.
const OF_THE_MACHINE: [&str; 8] = [
    "model", "heads", "data", "test", "adapters", "out", "resume", "threads",
];

/// All that a device is told when it joins: what is not in the plan of a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceJob {
    /// Its number, from 0.
    pub device: u32,
    /// The fields of the run's configuration that do not name files of the server.
    pub settings: Map<String, Value>,
    /// Blocks on the device.
    pub cut: usize,
    /// Which samples of its data are its share.
    pub samples: Vec<usize>,
    /// Classes of the data, 0 where next tokens are told.
    pub classes: usize,
    /// How images are made what the model takes, where it takes images.
    pub image_input: Option<ImageInput>,
    /// The head, where the labels stay on the device.
    pub head: Option<Head>,
    /// The files of its half of the model.
    pub files: Vec<HalfFile>,
    /// Modelled memory of its half, bytes.
    pub device_memory_bytes: f64,
}

impl DeviceJob {
    /// What a configuration says to devices.
    pub(super) fn settings(config: &RunConfig) -> Map<String, Value> {
        let mut settings = match serde_json::to_value(config) {
            Ok(Value::Object(settings)) => settings,
            _ => Map::new(),
        };
        settings.retain(|name, _| !OF_THE_MACHINE.contains(&name.as_str()));
        settings
    }

    /// The configuration of a device with its own data and its half of the model.
    ///
    /// # Errors
    /// Settings that this version does not know, or that are out of range.
    pub(super) fn config(&self, data: Option<&str>, half: &Path) -> Result<RunConfig> {
        let named = self
            .settings
            .keys()
            .find(|name| OF_THE_MACHINE.contains(&name.as_str()));
        if let Some(name) = named {
            return Err(Error::protocol(format!(
                "sent a job with the setting {name}"
            )));
        }
        let mut config = RunConfig::from_fields(&self.settings)?;
        config.model = Some(half.into());
        config.data = data.map(Into::into);
        // Texts are opened with those that are tested on, which a device has none of.
        let kind = data
            .and_then(|data| data.split_once(':'))
            .map(|(kind, _)| kind);
        config.test = kind
            .filter(|kind| TEXTS.contains(kind))
            .and(config.data.clone());
        Ok(config)
    }

    /// As the text of a message.
    pub(super) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::argument("job", e.to_string()))
    }

    /// From the text of a message.
    ///
    /// # Errors
    /// What is no job.
    pub(super) fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|e| Error::protocol(format!("sent a bad job: {e}")))
    }
}
