//! The texts of a run.

use std::path::Path;

use super::RunConfig;
use super::inputs::of;
use crate::data::{Examples, PLACE, Wanted, classification};
use crate::model::{Pretrained, TextInput};
use crate::{Error, Result};

/// How a configuration names labelled texts, before the colon.
pub(super) const CLASSIFY: &str = "classify";
/// The most tokens of a text where nothing else is said.
const MOST_TOKENS: usize = 512;

/// The training and test texts that the configuration names.
pub(super) fn open_texts(
    config: &RunConfig,
    train: &Path,
    model: &dyn Pretrained,
) -> Result<Examples> {
    let input = model.text_input().ok_or_else(|| {
        let reason = "must be images for this model, or texts for one with a tokenizer";
        Error::argument("data", reason)
    })?;
    if config.augment {
        let reason = "must be off for texts, got true";
        return Err(Error::argument("augment", reason));
    }
    let (test, prompt, most) = (test(config)?, prompt(config)?, most_tokens(config, input)?);
    let tokenizer = input.tokenizer.limited(most, input.keep_last)?;
    let encode = |text: &str| {
        let (ids, was_cut) = tokenizer.encode_limited(text)?;
        input.check(&ids).map(|()| (ids, was_cut))
    };
    let wanted = Wanted {
        encode: &encode,
        prompt,
        most,
    };
    classification(train, test, &wanted).map_err(of("data"))
}

fn test(config: &RunConfig) -> Result<&Path> {
    let named = config.test.as_deref().unwrap_or("none");
    if let Some((CLASSIFY, file)) = named.split_once(':') {
        return Ok(Path::new(file));
    }
    let reason = format!("must be classify:FILE beside data classify:FILE, got {named}");
    Err(Error::argument("test", reason))
}

fn prompt(config: &RunConfig) -> Result<Option<&str>> {
    match config.prompt.as_deref() {
        Some(prompt) if !prompt.contains(PLACE) => {
            let reason = format!("must contain {PLACE}, got {prompt:?}");
            Err(Error::argument("prompt", reason))
        }
        prompt => Ok(prompt),
    }
}

fn most_tokens(config: &RunConfig, input: TextInput<'_>) -> Result<usize> {
    let most = config.max_tokens.unwrap_or(MOST_TOKENS.min(input.most));
    let accepted = format!("in 1..={}, the model's tokens", input.most);
    let fits = (1..=input.most).contains(&most);
    Error::require(fits, "max_tokens", most, &accepted)?;
    Ok(most)
}

/// Nothing is passed over in silence.
pub(super) fn refuse_settings_of_texts(config: &RunConfig) -> Result<()> {
    let given = [
        ("test", config.test.is_some()),
        ("prompt", config.prompt.is_some()),
        ("max_tokens", config.max_tokens.is_some()),
        ("pooling", config.pooling.is_some()),
        ("class_words", config.class_words.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => {
            let reason = "must be left out for images: it is for texts";
            Err(Error::argument(name, reason))
        }
        None => Ok(()),
    }
}
