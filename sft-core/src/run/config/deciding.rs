//! Which fields decide the result of a run.

use serde_json::{Map, Value};

use super::{RunConfig, ScheduleKind};
use crate::run::content::NAMES;

/// The fields that change no result of a run, only its speed, its memory and its files.
const WITHOUT_EFFECT: [&str; 9] = [
    "generate",
    "max_new_tokens",
    "threads",
    "gradient_checkpointing",
    "checkpoint_every",
    "resume",
    "merged",
    "peft_names",
    "out",
];

impl RunConfig {
    /// The fields that decide what comes out of the run, by name: the `settings` of `run.json`.
    pub fn deciding(&self) -> Map<String, Value> {
        let mut fields = self.fields();
        fields.retain(|name, _| !WITHOUT_EFFECT.contains(&name.as_str()));
        fields
    }

    /// Every field by its name.
    pub(super) fn fields(&self) -> Map<String, Value> {
        // Every field has a form in JSON.
        match serde_json::to_value(self).unwrap_or_default() {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    /// The fields that decide each round of a scheme: a run goes on only from a checkpoint with the
    /// same.
    ///
    /// The number of rounds is not part of it, unless the schedule depends on it, nor are the names
    /// of model, data and adapters, of which the contents count.
    pub fn deciding_rounds(&self) -> Map<String, Value> {
        let mut fields = self.deciding();
        let cosine = self.schedule == ScheduleKind::Cosine;
        let free = ["scheme", "target_accuracy", "rounds"];
        let free = [&free[..], &NAMES].concat();
        fields.retain(|name, _| !free.contains(&name.as_str()) || (cosine && name == "rounds"));
        fields
    }
}
