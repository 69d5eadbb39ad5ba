//! The texts of a run.

use std::path::Path;

use super::RunConfig;
use super::inputs::of;
use crate::data::{Examples, LanguageData, LanguageInput, PLACE, Wanted, classification, language};
use crate::model::{Pretrained, TextInput};
use crate::{Error, Result};

/// How a configuration names texts before the colon: labelled ones, plain ones, conversations.
const CLASSIFY: &str = "classify";
const TEXT: &str = "text";
const CHAT: &str = "chat";
pub(crate) const TEXTS: [&str; 3] = [CLASSIFY, TEXT, CHAT];
/// The most tokens of a text where nothing else is said.
const MOST_TOKENS: usize = 512;

/// The training and test texts of a kind among [`TEXTS`] that the configuration names.
pub(super) fn open_texts(
    config: &RunConfig,
    (kind, train): (&str, &Path),
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
    let (test, most) = (test(config, kind)?, most_tokens(config, input)?);
    if config.pack && kind != TEXT {
        let reason = format!("must be off but for text:PATH, got true for {kind}");
        return Err(Error::argument("pack", reason));
    }
    if kind != CLASSIFY {
        config.refuse_settings_of_classes()?;
        let kind = match (kind, config.pack) {
            (CHAT, _) => LanguageData::Chat,
            (_, false) => LanguageData::Lines,
            (_, true) => LanguageData::Packed,
        };
        return open_language(kind, [train, test], input, most);
    }
    refuse_settings_of_language(config)?;
    let prompt = prompt(config)?;
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

fn open_language(
    kind: LanguageData,
    files: [&Path; 2],
    input: TextInput<'_>,
    most: usize,
) -> Result<Examples> {
    let tokenizer = input.tokenizer;
    let encode = |text: &str, special: bool| {
        let ids = tokenizer.encode_places(text, special)?;
        let check = ids.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        input.check(&check).map(|()| ids)
    };
    let template = tokenizer.chat()?;
    let render = template.as_ref().map(|template| {
        |messages: &[serde_json::Value], asks: bool| template.render(messages, asks)
    });
    let end = tokenizer.special().eos;
    input.check(end.as_slice())?;
    let wanted = LanguageInput {
        encode: &encode,
        end,
        render: render.as_ref().map(|render| render as _),
        most,
    };
    language(kind, files, &wanted).map_err(of("data"))
}

fn test<'c>(config: &'c RunConfig, kind: &str) -> Result<&'c Path> {
    let named = config.test.as_deref().unwrap_or("none");
    if let Some((same, file)) = named.split_once(':')
        && same == kind
    {
        return Ok(Path::new(file));
    }
    let reason = format!("must be {kind}:FILE beside data {kind}:FILE, got {named}");
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
        ("pack", config.pack),
        ("generate", config.generate > 0),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => {
            let reason = "must be left out for images: it is for texts";
            Err(Error::argument(name, reason))
        }
        None => Ok(()),
    }
}

/// The same of what is only for next tokens.
fn refuse_settings_of_language(config: &RunConfig) -> Result<()> {
    let got = config.generate;
    let accepted = "0 where texts have classes: nothing is said";
    Error::require(got == 0, "generate", got, accepted)
}
