//! What the inputs of a run hold, whatever their files are called.

use serde_json::{Map, Value};

use super::inputs::of;
use super::{Inputs, RunConfig};
use crate::adapter::TENSORS;
use crate::{Digest, Error, Result, model};

/// The fields that name inputs, of which the contents decide.
pub(super) const NAMES: [&str; 4] = ["model", "data", "test", "adapters"];

/// Settings, and in place of the names of inputs what these hold.
pub(super) fn by_content(
    mut settings: Map<String, Value>,
    contents: &Map<String, Value>,
) -> Map<String, Value> {
    settings.retain(|name, _| !NAMES.contains(&name.as_str()));
    settings.extend(contents.clone());
    settings
}

/// Digests of model, data and the adapters to start from, by their names in a run's files.
pub(super) fn contents(config: &RunConfig, inputs: &Inputs) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    let mut add = |name: &str, write: &dyn Fn(&mut Digest) -> Result<()>| -> Result<()> {
        let mut digest = Digest::default();
        write(&mut digest)?;
        all.insert(name.into(), digest.to_string().into());
        Ok(())
    };
    add("model", &|digest| {
        model::digest(inputs.pretrained.as_ref(), digest)
    })?;
    add("training data", &|digest| inputs.train.digest(digest))?;
    add("test data", &|digest| inputs.test.digest(digest))?;
    if let Some(words) = &config.class_words {
        let head = inputs.pretrained.head_of_words(words)?;
        add("head", &|digest| {
            digest.floats(&head.weight);
            Ok(())
        })?;
    }
    if let Some(folder) = &config.adapters {
        let path = folder.join(TENSORS);
        let bytes = std::fs::read(&path).map_err(|e| of("adapters")(Error::file(&path, e)))?;
        add("adapters", &|digest| {
            digest.bytes(&bytes);
            Ok(())
        })?;
    }
    Ok(all)
}
